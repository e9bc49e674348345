"""What moves the frontier: people's judgement at a given KL, with one thing about PPO changed at a time."""

import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean

import numpy as np

from minippo import data
from minippo.corpora.read import read
from minippo.experiments import trials
from minippo.experiments.kept import SeedsConfig, folders, kept, made, seeds_of
from minippo.run.errors import UserError
from minippo.run.files import write_atomically
from minippo.run.flags import numbers, option
from minippo.tools.shared.tables import markdown, spread

BASE, BEST = "as it is", "best of n"
PRICES = {"KL at 0.05": {"kl_coef": 0.05}, "KL at 0.1": {"kl_coef": 0.1}, BASE: {},
          "KL at 0.3": {"kl_coef": 0.3}}   # the frontier
LEVERS = {
    "rollouts of 128, twice as many": {"rollout_size": 128, "iterations": 120},
    "rollouts of 512, half as many": {"rollout_size": 512, "iterations": 30},
    "half the learning rate": {"lr": 5e-5},
    "twice the learning rate": {"lr": 2e-4},
    "a constant learning rate": {"schedule": "constant"},
    "one epoch": {"epochs": 1},
    "four epochs": {"epochs": 4},
    "minibatches of 256": {"minibatch_size": 256},
    "minibatches of 256, twice the learning rate": {"minibatch_size": 256, "lr": 2e-4},
    "Adam's epsilon 1e-4, twice the learning rate": {"epsilon": 1e-4, "lr": 2e-4},
    "lambda 1": {"lam": 1.0},
    "lambda 0.8": {"lam": 0.8},
    "a critic apart, begun as the reward model": {"separate_critic": True},
    "a critic apart, KL at 0.25": {"separate_critic": True, "kl_coef": 0.25},
    "values alone in the first 4 of 60 iterations": {"values_first": 4, "iterations": 56},
    "KL at 0.3, falling to 0.05": {"kl_coef": 0.3, "last_kl_coef": 0.05},
    "a reference that follows the policy": {"follow": 0.05},
}
TRIALS = PRICES | LEVERS
KLS = (1, 2, 4, 8)
GAINS = ("gold", "judged_positive")


@dataclass
class Config(SeedsConfig):
    CHOOSES = ("levers",)
    out: str = option("runs/levers", "folder to write to; what is finished there is kept")
    levers: str = option("", "only these levers, with semicolons between them, as the table names them")
    responses: int = option(2000, "responses of each policy that are judged", low=100)
    best_of: str = option("1,4,16,64,256", "values of n: the best of n responses of the reference")
    prompts: int = option(64, "held-out prompts of best of n", low=2)
    shorter: int = option(1, "divide the iterations by it, to try the command", low=1)


def main(config):
    """Every lever of every seed; then the frontier, and how far each lever is from it."""
    config = replace(config, best_of=numbers(config.best_of, int, 1))
    names = list(PRICES) + chosen(config.levers)
    seeds = seeds_of(config)
    out = made(Path(config.out) / "parts").parent
    found = {seed: of_seed(config, seed, names, out / "parts") for seed in seeds}
    text = frontier(found) + "\n\n" + gains(found, names)
    write_atomically(out / "table.md", (text + "\n").encode())
    print(text)


def chosen(given):
    names = [name.strip() for name in given.split(";") if name.strip()] if given else list(LEVERS)
    if unknown := [name for name in names if name not in TRIALS]:
        raise UserError(f"--levers {unknown[0]}: there is none of that name; there are {'; '.join(LEVERS)}")
    return [name for name in names if name not in PRICES]


def of_seed(config, seed, names, folder):
    """{lever: {variant: figures}} of a seed; "" is the policy itself; BEST has a variant for each n."""
    @cache   # made when the first part is missing
    def bench():
        return trials.Bench(config, *folders(config, seed), seed, data.split(read(config.data)))

    def part(i, name, measure):
        return kept(folder / f"{seed}-{i}.json", config, seed, name, ["figures"],
                    lambda: {"figures": measure(bench())})["figures"]

    found = {BEST: part(0, BEST, trials.references)}
    for i, name in enumerate(TRIALS, 1):
        if name in names:
            trial = trials.Trial(**TRIALS[name])
            trial = replace(trial, iterations=max(1, trial.iterations // config.shorter))
            found[name] = part(i, name, lambda bench: trials.measured(bench, trial, name in PRICES, progress))
    return found


def path(points, figure, kl):
    """The figure at this KL, on straight lines over sqrt(KL) between points; NaN beyond the last."""
    ordered = sorted(points, key=lambda p: p["kl"])
    d = [max(0.0, p["kl"]) ** 0.5 for p in ordered]
    return float(np.interp(kl ** 0.5, d, [p[figure] for p in ordered], right=np.nan))


def on_frontier(figures):
    """The points of a seed's PPO as it is, at different prices of KL, and of the reference."""
    return [figures[BEST]["1"]] + [figures[name][""] for name in PRICES]


def frontier(found):
    """Markdown: gold's score and the judged share at several KLs, of best of n and of PPO."""
    ways = {BEST: lambda figures: list(figures[BEST].values()), "PPO, by its price of KL": on_frontier}
    for share in trials.WEIGHTS:
        ways[f"PPO, {share:g} of its weights, the rest the reference's"] = lambda figures, share=share: (
            [figures[BEST]["1"]] + [figures[name][f"weights {share:g}"] for name in PRICES])
    for decay in trials.AVERAGES:
        ways[f"PPO, average of its weights, decay {decay:g}"] = lambda figures, decay=decay: (
            [figures[BEST]["1"]] + [figures[name][f"average {decay:g}"] for name in PRICES])
    rows = []
    for name, points in ways.items():
        cells = [[path(points(figures), figure, kl) for figures in found.values()]
                 for figure in GAINS for kl in KLS]
        rows.append([name] + [spread(x, 2) if all(np.isfinite(x)) else "" for x in cells])
    heads = [f"{what} at KL {kl}" for what in ("gold", "judged positive") for kl in KLS]
    return markdown(["", *heads], rows)


def gains(found, names):
    """Markdown: each lever's figures, and their distance from PPO's as it is at the same KL."""
    rows = []
    for name in names:
        mine = [(figures[name][""], on_frontier(figures), figures[BEST]["1"]) for figures in found.values()]
        cells = [spread([p["kl"] for p, _, _ in mine], 1)]
        for figure in GAINS:
            cells += [spread([p[figure] for p, _, _ in mine], 2), gain(
                [p[figure] - path(points, figure, p["kl"]) for p, points, _ in mine])]
        cells += [spread([p["distinct_2"] / start["distinct_2"] for p, _, start in mine], 2),
                  spread([p["ended"] for p, _, _ in mine], 2)]
        rows.append([name, *cells])
    return markdown(["lever", "KL", "gold", "gain at that KL", "judged positive", "gain at that KL",
                     "distinct-2 of the reference's", "ended"], rows)


def gain(differences):
    """The mean over the seeds with a sign, and the smallest and largest; "beyond" if there is no frontier."""
    if not all(np.isfinite(differences)):
        return "beyond"
    low, high = min(differences), max(differences)
    return f"{fmean(differences):+.2f} ({low:+.2f} to {high:+.2f})"


def progress(i, stats):
    print(f"  iteration {i:>3}  KL {stats['objective/kl']:6.2f}  score {stats['objective/scores']:+.2f}",
          file=sys.stderr, flush=True)
