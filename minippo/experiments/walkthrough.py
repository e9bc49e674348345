"""Write docs/walkthrough.md: one PPO step on two short responses, every number of it, and pictures."""

from dataclasses import dataclass
from pathlib import Path

import torch

from minippo.experiments.example import QUERY, RESPONSES, STEP, WORDS, example, score
from minippo.experiments.pictures import MINUS, pictures
from minippo.memory import PPOMemory
from minippo.policy import at_tokens, entropy_of, log_softmax
from minippo.ppo import collect, gae, kl_estimates, penalized_rewards, policy_loss, update, value_loss, whiten
from minippo.reward import preference_loss
from minippo.run.errors import UserError
from minippo.run.flags import option
from minippo.tokens import masked_mean
from minippo.tools.shared import page

PLACES = {"A0": (0, 0), "A1": (0, 1), "A2": (0, 2), "B0": (1, 0), "B1": (1, 1), "B2": (1, 2)}


@dataclass
class Config:
    out: str = option("docs/walkthrough.md", "page to write; its pictures go into a folder beside it")


class Number(float):
    """Three digits after the point, unless asked for others; a real minus sign, and no minus before 0."""

    def __format__(self, spec):
        text = format(round(float(self), 3) + 0.0, spec or ".3f")
        return text.replace("-", MINUS)


def by_place(x):
    """(2, 3) -> {"A0": Number, ...}"""
    return {name: Number(x[place]) for name, place in PLACES.items()}


def by_word(x):
    """(5,) -> {"END": Number, ...}; (5, N) -> {"END": list of N Numbers, ...}"""
    return {word: Number(row) if row.dim() == 0 else [*map(Number, row)] for word, row in zip(WORDS, x)}


def distribution(lm, word):
    """What stands between the state after a word and the probabilities of the next, dicts by word."""
    state = lm.table[WORDS.index(word)].detach()
    logits = lm.logits(state)
    logprobs = log_softmax(logits)
    return {"state": [*map(Number, state)], "logits": by_word(logits),
            "exp": by_word(logits.exp()), "sum": Number(logits.exp().sum()), "logp": by_word(logprobs),
            "p": by_word(logprobs.exp()), "entropy": Number(entropy_of(logprobs))}


def logit_gradients(policy, rollout, clip):
    """Gradient of the policy loss with respect to the logits of every token, (2, 3, 5)."""
    logits = policy.lm(rollout.query, rollout.response).detach().requires_grad_()
    logprobs = at_tokens(log_softmax(logits), rollout.response)
    loss, _ = policy_loss(logprobs, rollout.logprobs, rollout.advantages, rollout.mask, clip)
    return torch.autograd.grad(loss, logits)[0]


def second_pass(policy, rollout, config):
    """After the step: ratios, losses of the tokens and their mean, gradients, what the critic says now."""
    logprobs, values, _ = (x.detach() for x in policy(rollout.query, rollout.response))
    each = torch.zeros_like(logprobs)
    for row, t in PLACES.values():   # a batch of one token, whose mean is itself
        one = slice(row, row + 1), slice(t, t + 1)
        each[row, t] = policy_loss(logprobs[one], rollout.logprobs[one], rollout.advantages[one],
                                   rollout.mask[one], config.clip)[0]
    loss, share = policy_loss(logprobs, rollout.logprobs, rollout.advantages, rollout.mask, config.clip)
    ratio = (logprobs - rollout.logprobs).exp()
    return {"ratio": by_place(ratio), "unclipped": by_place(-rollout.advantages * ratio),
            "clipped": by_place(-rollout.advantages * ratio.clamp(1 - config.clip, 1 + config.clip)),
            "each": by_place(each), "loss": Number(loss), "share": Number(share),
            "now": by_place(values), "grad": gradients(policy, rollout, config.clip)}


def gradients(policy, rollout, clip):
    """The same by place and word, and by word the sum of the two in the state after "film"."""
    found = logit_gradients(policy, rollout, clip)
    after_film = {"film": by_word(found[:, 0].sum(0))}
    return {name: by_word(found[place]) for name, place in PLACES.items()} | after_film


def judged(rollout, config):
    """From the log-probabilities to whitened advantages and the critic's loss, step by step."""
    logprobs, values, mask = rollout.logprobs, rollout.values, rollout.mask
    scores = score(QUERY, RESPONSES)
    price, rewards = (penalized_rewards(x, logprobs, rollout.reference_logprobs, mask, config.kl_coef)
                      for x in (0 * scores, scores))
    advantages, returns = gae(rewards, values, config.gamma, config.lam)
    mean, white = masked_mean(advantages, mask), whiten(advantages, mask)
    return {"logp": by_place(logprobs), "ref": by_place(rollout.reference_logprobs),
            "kl": by_place(kl_estimates(logprobs, rollout.reference_logprobs)[0]),
            "score": [*map(Number, scores)], "preference": Number(preference_loss(scores[:1], scores[1:])),
            "price": by_place(price), "reward": by_place(rewards), "value": by_place(values),
            "delta": by_place(gae(rewards, values, config.gamma, 0)[0]),
            "advantage": by_place(advantages), "returns": by_place(returns),
            "white": by_place(white), "adds": by_place(-white), "mean": Number(mean),
            "std": Number(masked_mean((advantages - mean).square(), mask).sqrt()),
            "loss_value": Number(value_loss(values, values, returns, mask, config.value_clip))}


def facts():
    """Every number of the page, by name; `again` holds those after the step."""
    policy, reference, config = example()
    rollout, seen = collect(policy, reference, score, QUERY, config)
    gradient = logit_gradients(policy, rollout, config.clip)[:, 0].sum(0)
    found = judged(rollout, config) | {
        "config": config, "step": Number(STEP), "head": by_word(policy.lm.embedding.weight),
        "policy": {word: distribution(policy.lm, word) for word in WORDS},
        "reference": {word: distribution(reference.lm, word) for word in WORDS},
        "seen": {name: Number(x) for name, x in seen.items()},
        "grad": gradients(policy, rollout, config.clip),
        "slope": [*map(Number, gradient @ policy.lm.embedding.weight)]}
    memory, optimizer = PPOMemory(), torch.optim.SGD(policy.parameters(), STEP)
    memory.store(rollout)
    found["learned"] = {name: Number(x) for name, x in update(policy, optimizer, memory, config).items()}
    return found | {"after": {word: distribution(policy.lm, word) for word in WORDS},
                    "again": second_pass(policy, rollout, config)}


def main(config):
    """Write the page, and its pictures into the folder of its name."""
    out = Path(config.out)
    if not config.out.strip():
        raise UserError("--out is empty; name a file")
    found = facts()
    folder = out.with_suffix("")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}); name another --out") from None
    for name, picture in pictures(found).items():
        page.write(folder / f"{name}.svg", picture)
    page.write(out, page.asset("walkthrough.md").format_map(found | {"folder": folder.name}))
    print(f"written: {out}, and pictures in {folder}")
