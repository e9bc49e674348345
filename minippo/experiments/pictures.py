"""The pictures of docs/walkthrough.md: one for each step from the logits to the clipped loss."""

import math

import torch

from minippo.experiments.drawing import bars, curves, grid
from minippo.experiments.example import RESPONSES, WORDS
from minippo.ppo import policy_loss
from minippo.tokens import PAD

MINUS = "\N{MINUS SIGN}"
COLUMNS, HEADS = (180, 280, 380, 500, 600, 700), {280: "A, the liked one", 600: "B, the other one"}
REAL = ("A0", "A1", "A2", "B0", "B1")   # B2 is PAD
SAID = dict(zip(REAL, (WORDS[token] for token in RESPONSES[RESPONSES != PAD])))
FOLLOWS = {"A0": "A1", "A1": "A2", "B0": "B1"}


def pictures(f):
    """The pictures as SVG, by name."""
    return cells(f) | charts(f)


def cells(f):
    """Those of numbers in boxes, a column for each token."""
    tokens, lam = [*SAID.values(), "PAD"], f["config"].lam

    def row(name, kind="plain", label="", arrow=False):
        return label or name, kind, [*(format(f[name][place], "") for place in REAL), ""], arrow
    told = "token", "gray", tokens, False
    scores = ["", "", format(f["score"][0], ""), "", format(f["score"][1], ""), ""]
    following = [format(f["value"][FOLLOWS[place]], "") if place in FOLLOWS else "0" for place in REAL] + [""]
    return {
        "states": grid("Tokens and states", "Each token is chosen in the state after the word before it.",
                       HEADS, COLUMNS,
                       [("state after", "blue", ["film", *tokens[:2], "film", "bad", ""], True), told]),
        "score": grid("Scores", "One number for a whole response, given at its last token.",
                      HEADS, COLUMNS, [told, ("score", "gold", scores, False)]),
        "rewards": grid("Rewards", "Each token pays for its KL; the last one also gets the score.",
                        HEADS, COLUMNS, [told, row("kl"), row("price", label=f"{MINUS}β · kl"),
                                         ("score", "gold", scores, False), row("reward", "blue")]),
        "values": grid("Values and deltas", "Each delta is the reward, plus the next value, less its own.",
                       HEADS, COLUMNS, [told, row("reward"), ("next value", "plain", following, False),
                                        row("value"), row("delta", "blue")]),
        "advantages": grid("Advantages",
                           f"From right to left: delta, plus {lam} times the advantage after it.",
                           HEADS, COLUMNS, [told, row("reward"), row("value"), row("delta", arrow=True),
                                            row("advantage", "blue")], left=(4, f"· {lam}"))}


def charts(f):
    """Those of bars, a group for each word of the language or each token, and of the clipped loss."""
    before, after, reference = (f[name]["film"] for name in ("policy", "after", "reference"))
    clip = f["config"].clip

    def words(title, desc, **series):
        return bars(title, desc, WORDS, {name: [*x.values()] for name, x in series.items()})

    def tokens(title, desc, **keys):
        return bars(title, desc, [f"{place[0]} {word}" for place, word in SAID.items()],
                    {name: [f[key][place] for place in REAL] for name, key in keys.items()})
    return {
        "logits": words("Logits and log-probabilities after film",
                        "A log-probability is the logit, less the same number for every word.",
                        **{"logit": before["logits"], "log-probability": before["logp"]}),
        "words": words("After film", "Probability of each word under the reference and under the policy.",
                       reference=reference["p"], policy=before["p"]),
        "returns": tokens("Returns", "What the critic said, and what it should have said.",
                          value="value", **{"return": "returns"}),
        "whitening": tokens("Whitening", "Advantages as they are, and with mean 0 and deviation 1.",
                            advantage="advantage", whitened="white"),
        "loss": tokens("Loss before the step", "At ratio 1 each token adds minus its advantage: 0 in all.",
                       **{"whitened A": "white", f"loss of the token, {MINUS}A": "adds"}),
        "gradient": words("Gradient of the logits after film", "Below 0: a step makes the word likelier.",
                          **{"from A, which said very": f["grad"]["A0"],
                             "from B, which said bad": f["grad"]["B0"]}),
        "step": words("After film, before and after the step", "very and good are likelier, bad is rarer.",
                      **{"before the step": before["p"], "after it": after["p"]}),
        "clip": curves("The clipped loss",
                       f"Where it paid, the loss is flat beyond {1 + clip:g}, or below {1 - clip:g}.",
                       [(f"advantage {sign}: loss per |advantage|", clipped(x, clip), marked(f, x))
                        for sign, x in (("above 0", 1.0), ("below 0", -1.0))])}


def clipped(advantage, clip):
    """Points of the clipped loss over the ratio, as `policy_loss` gives it for one token."""
    mask, old = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.float64)
    return [(x, policy_loss(old + math.log(x), old, old + advantage, mask, clip)[0].item())
            for x in (0.5, 1 - clip, 1.0, 1 + clip, 1.5)]


def marked(f, sign):
    """The tokens whose advantage has this sign, {word: (ratio, loss per |advantage|)}."""
    return {SAID[place]: (f["again"]["ratio"][place], f["again"]["each"][place] / abs(f["white"][place]))
            for place in REAL if f["white"][place] * sign > 0}
