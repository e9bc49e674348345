"""Several models, and best of n, answer the same held-out prompts: scores, KL, win rates, samples."""

import json
import math
import sys
from dataclasses import asdict, dataclass

from minippo.run.errors import UserError
from minippo.run.files import write_atomically
from minippo.run.flags import DeviceConfig, numbers, option, words
from minippo.tools.shared import comparison, page, tables
from minippo.tools.shared.comparison import best, best_of_kl, draw, measure
from minippo.tools.shared.contest import Contest

MOST = 1024   # n of best of n
SHOWN = {"score": ("score", "+.2f"), "won_by_score": ("won by score", None),
         "judged_positive": ("judged positive", ".0%"), "won_by_judge": ("won by judge", None),
         "kl": ("KL", ".2f"), "distinct_2": ("distinct-2", ".2f"), "length": ("length", ".1f"),
         "ended": ("ended", ".0%")}   # of a model's figures: heading, format (None: share and interval)


@dataclass
class Config(DeviceConfig):
    GROUP = "what is compared"
    models: tuple = words(("runs/pretrain", "runs/ppo"), "folders of models, of stage 1 or 3")
    reference: str = option("", "folder of the reference; else the first of stage 1 that is named, or "
                                "what the first of stage 3 began with")
    reward: str = option("", "folder of the reward model; else that of the first of stage 3")
    score: str = option("", "module:function of texts that scores in place of a reward model")
    data: str = option("", "data whose held-out texts give the prompts; else what the reference learned from")
    best_of: str = option("4,16", "values of n: the best of n responses of the reference, too; 0 = none")
    prompts: int = option(256, "held-out prompts, the same for every model", low=2, high=2048)
    samples: int = option(3, "prompts whose responses are shown", low=0)
    html: str = option("", "file to write a page to")
    json: str = option("", "file to write figures and samples to")


def main(config):
    """Print the table and the samples; write the page and the JSON that are asked for."""
    if config.html and config.html == config.json:
        raise UserError(f"--html and --json are both {config.html}; name two files")
    for flag, path in (("--html", config.html), ("--json", config.json)):
        if path:
            page.check(path, flag)
    counts = [n for n in numbers(config.best_of, int, 0) if n]
    if max(counts, default=0) > MOST:
        raise UserError(f"--best-of {config.best_of}: at most {MOST}; each prompt takes so many responses")
    contest = Contest(config)
    figures, texts, scores = measured(contest, counts)
    shown = comparison.samples(contest.query, texts, scores, contest.tokenizer, config.samples)
    samples = [{"prompt": prompt, "responses": [
        {"model": name, "score": x["score"], "response": x["text"]} for name, x in responses.items()]}
        for prompt, responses in shown]
    if config.json:
        found = {"settings": asdict(config), "reference": contest.reference, "reward": contest.reward,
                 "data": contest.data, "judge_accuracy": contest.judge and contest.judge.accuracy,
                 "models": figures, "samples": samples}
        write_atomically(config.json, json.dumps(found, indent=2).encode())
    if config.html:
        page.write(config.html, html(*as_table(figures), notes(contest), samples))
    print(tables.table(*as_table(figures)), "", *notes(contest), sep="\n")
    if shown:
        print("", comparison.table(shown), sep="\n")


def measured(contest, counts):
    """Of every model and best of n, by name: figures (a dict), texts and scores (lists, P of each)."""
    settings, figures, texts, scores = contest.settings, {}, {}, {}
    reference = contest.models[contest.reference]

    def add(name, model, response, **known):
        found, texts[name], scores[name] = measure(
            model, reference, contest.reward_model, contest.judge, contest.query, response,
            contest.tokenizer, settings.microbatch_size)
        figures[name] = found | known

    for name, model in contest.models.items():
        print(f"{name}: {len(contest.query)} responses", file=sys.stderr, flush=True)
        add(name, model, model.generate(contest.query, settings.response_length, contest.generator(1)))
    if counts:
        print(f"best of {counts[-1]}: {len(contest.query) * counts[-1]:,} responses", file=sys.stderr,
              flush=True)
        response, paid = draw(reference, contest.reward_model, contest.query, counts[-1], settings,
                              contest.generator(2))
        for n in counts:
            add(f"best of {n}, {settings.target}", reference, best(response, paid, n), kl=best_of_kl(n))
    for name in figures.keys() - {contest.reference}:
        figures[name]["won_by_score"] = won(scores[name], scores[contest.reference])
        if contest.judge:
            figures[name]["won_by_judge"] = won(*(contest.judge.bag(texts[x]).tolist()
                                                  for x in (name, contest.reference)))
    return figures, texts, scores


def won(mine, theirs):
    """How often mine is above theirs, lists of P numbers: share, low and high; ties count half.

    Source   95 % interval of a share of P independent trials: Wilson 1927 (ties make it a little too wide)
    """
    count, z = len(mine), 1.959964
    share = sum((a > b) + (a == b) / 2 for a, b in zip(mine, theirs)) / count
    middle, scale = share + z * z / (2 * count), 1 + z * z / count
    half = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return {"share": share, "low": (middle - half) / scale, "high": (middle + half) / scale}


def as_table(figures):
    """Header and rows of text: a model a row, and "" for a figure that it does not have."""
    kept = [name for name in SHOWN if any(name in found for found in figures.values())]
    return (["", *(SHOWN[name][0] for name in kept)],
            [[model, *(cell(found.get(name), SHOWN[name][1]) for name in kept)]
             for model, found in figures.items()])


def cell(value, form):
    if value is None:
        return ""
    if form:
        return format(value, form)
    return f"{value['share']:.0%} ({100 * value['low']:.0f} to {100 * value['high']:.0f})"


def notes(contest):
    """What the table is of, in lines."""
    sought = {"positive": "high", "negative": "low"}[contest.settings.target]
    judge = (f" The judge, a bag of words, is right on {contest.judge.accuracy:.0%} of held-out texts."
             if contest.judge else "")
    score = f"reward model {contest.reward}" if contest.reward else f"score {contest.config.score}"
    return [f"{len(contest.query)} prompts from {contest.texts} held-out texts of {contest.data}; reference "
            f"{contest.reference}, {score}.{judge}",
            "won: share of prompts at which the response gets more than the reference's, ties half; in "
            "brackets the 95 % interval (Wilson).",
            f"best of n: of n responses of the reference the one that PPO pays most ({sought} scores, as the "
            "first model of stage 3); its KL is ln n - (n - 1) / n nats."]


def html(header, body, about, samples):
    parts = [page.table(header, body), *(f'<p class="quiet">{page.escaped(line)}</p>\n' for line in about)]
    for sample in samples:
        lines = [[x["model"], f"{x['score']:+.2f}", x["response"]] for x in sample["responses"]]
        parts.append(page.table(["", "score", "response"], lines, f"{sample['prompt']} ..."))
    return page.page("Models on the same prompts", "".join(parts))
