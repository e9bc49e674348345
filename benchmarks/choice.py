"""Which pairs to ask about: random ones, the most uncertain, or the best against any. A Markdown table.

A scripted labeller answers 200 times, each way; what the small model of `minippo label` has learned then is
measured on prompts of another part of the data: how often it orders two responses as the labeller would
(pairs that the labeller ties are left out), and how often the one it likes best among a prompt's responses
wins against the others (ties count half), beside the most that was to be had. No policy is trained: the
responses are written once and kept in --pool, each way chooses among the same.
With --rounds 50 train_reward.py makes a reward model after every 50 answers: it chooses the next 50 pairs
(uncertain), and the last one is what is measured (random, uncertain).
"""

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import torch

from benchmarks.taste import REWARD, ROOT, command, named
from minippo import data
from minippo.corpora.read import read
from minippo.corpora.rows import Row
from minippo.generation import generate
from minippo.run import checkpoint
from minippo.run.errors import UserError
from minippo.run.exits import launch
from minippo.run.files import write_atomically
from minippo.run.flags import option
from minippo.tools.labels import pairs, taste
from minippo.tools.labels.answers import Answer, write_preferences
from minippo.tools.labels.labellers import MEANT, RULES, said
from minippo.tools.shared.tables import markdown

WAYS = ("random", "uncertain", "best")
DECIDE = "model", "data", "count", "held_out", "candidates"   # what the pool is


@dataclass
class Config:
    GROUP = "the answers"
    model: str = option("runs/pretrain", "folder of the pretrained model")
    data: str = option("movies", "where prompts come from")
    pool: str = option("runs/taste/pool.json", "file for the responses; written if it is not there")
    labellers: str = option(",".join(RULES), "with commas between")
    seed_count: int = option(3, "how many seeds, from 0: other prompts and candidates come first", low=1)
    count: int = option(200, "answers", low=1)
    held_out: int = option(100, "prompts that the small model is measured on", low=1)
    candidates: int = option(32, "responses to a prompt", low=2)
    rounds: int = option(0, "answers to each reward model, a divisor of --count; 0: the small model", low=0)

    def __post_init__(self):
        if self.rounds and self.count % self.rounds:
            raise UserError(f"--rounds {self.rounds} does not divide --count {self.count}: the last answers "
                            "would go into no reward model")


def main(config):
    names, rows = named(config.labellers), []
    learned, held_out = pool(config)
    for name in names:
        for way in WAYS[:2] if config.rounds else WAYS:
            found = [measure(RULES[name], MEANT[name], way, learned, held_out, config.count, seed,
                             in_rounds(config, seed) if config.rounds else small)
                     for seed in range(config.seed_count)]
            counts, accuracies, wins, most = zip(*found)
            rows.append((name, way, f"{fmean(counts):.0f}", spread(accuracies), spread(wins),
                         f"{most[0]:.2f}"))
    print(markdown(("labeller", "pairs", f"preferences of {config.count}", "accuracy",
                    "best one wins", "at most"), rows))


def spread(numbers):
    return f"{fmean(numbers):.2f} ({min(numbers):.2f} to {max(numbers):.2f})"


@torch.no_grad()
def pool(config):
    """Two lists of (prompt, texts), to learn from and held out: different texts, none empty, two at least."""
    path, settings = Path(config.pool), {name: getattr(config, name) for name in DECIDE}
    if not path.exists():
        lm, tokenizer = checkpoint.load_lm(config.model)
        parts, generator = data.split(read(config.data)), torch.Generator().manual_seed(0)
        written = []
        for part, count in (("prompts", config.count), ("test", config.held_out)):
            prompts, some = data.Prompts(parts[part], tokenizer, 2, 8, lm.config.context - 24), []
            while len(some) < count:
                query = prompts.sample(1, generator)
                rows = generate(lm, query.expand(config.candidates, -1), 24, 0.8, generator=generator)
                texts = [text for text in dict.fromkeys(map(tokenizer.decode, rows)) if text.strip()]
                if len(texts) > 1:
                    some.append((tokenizer.decode(query[0]), texts))
            written.append(some)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"settings": settings, "pool": written}).encode())
    kept = json.loads(path.read_text(encoding="utf-8"))
    if kept["settings"] != settings:
        raise UserError(f"--pool {path} was written with other settings; name another file")
    return kept["pool"]


def small(given):
    """A score of (prompt, texts): the small model's that has learned from these answers."""
    model = taste.Taste(given)
    return lambda prompt, texts: model(texts)


def in_rounds(config, seed):
    """As `small`, by a reward model that is trained after every --rounds answers; until then all are 0."""
    latest = [lambda prompt, texts: torch.zeros(len(texts))]

    def learn(given):
        if len(given) % config.rounds == 0 and sum(answer.preference() is not None for answer in given) > 9:
            latest[0] = reward_model(config, given, seed)   # of fewer no part of the data would be left
        return latest[0]
    return learn


def reward_model(config, given, seed):
    """A score of (prompt, texts): that of a reward model which train_reward.py makes of these answers."""
    (folder := Path(config.pool).with_name("choice")).mkdir(parents=True, exist_ok=True)
    write_preferences(folder / "labels.jsonl", given)
    command(ROOT / "train_reward.py", "--model", config.model, "--seed", seed, "--overwrite", *REWARD.split(),
            "--data", folder / "labels.jsonl", "--out", folder / "reward")
    model, tokenizer = checkpoint.load_reward(folder / "reward")
    def score(prompt, texts):
        rows = [Row("", text, prompt=prompt) for text in texts]
        with torch.no_grad():
            return model(*data.tensors(data.encode(rows, tokenizer, model.lm.config.context)))
    return score


def measure(rule, meant, way, learned, held_out, count, seed, learn=small):
    """How many answers were preferences, the accuracy, the wins of the one liked best, and of the best."""
    given = []
    for place, i in enumerate(torch.randperm(len(learned), generator=pairs.seeded(seed))[:count].tolist()):
        prompt, texts = learned[i]
        generator = pairs.seeded(seed, place)
        chosen = (torch.randperm(len(texts), generator=generator)[:2].tolist()   # other ones for each seed
                  if way == "random" else pairs.choose(way, learn(given)(prompt, texts), generator))
        left, right = (texts[i] for i in chosen)
        given.append(Answer(prompt, left, right, said(rule, left, right), 0.5))
    score, right, wins, most = learn(given), [], [], []
    for prompt, texts in held_out:
        scores = score(prompt, texts).tolist()
        right += [float((a - b) * meant(one, other) > 0) if a != b else 0.5
                  for (one, a), (other, b) in pairwise(zip(texts, scores)) if meant(one, other)]
        shares = [win_share(meant, i, texts) for i in range(len(texts))]
        wins.append(shares[scores.index(max(scores))])
        most.append(max(shares))
    preferences = sum(answer.preference() is not None for answer in given)
    return preferences, fmean(right or [0.5]), fmean(wins), fmean(most)


def win_share(rule, i, texts):
    """How often a text wins against the other ones; ties count half."""
    others = texts[:i] + texts[i + 1:]
    return fmean((rule(texts[i], other) + 1) / 2 for other in others)


if __name__ == "__main__":
    launch(main, Config, __doc__.splitlines()[0])
