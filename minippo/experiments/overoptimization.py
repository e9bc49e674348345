"""Over-optimisation: a learned score is raised; what a better model and a judge say of the texts."""

import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from minippo import data
from minippo.corpora.read import read
from minippo.experiments import frontier_page
from minippo.experiments.kept import SeedsConfig, folders, kept, made, seeds_of
from minippo.experiments.proxies import World, measured
from minippo.run.errors import UserError
from minippo.run.files import check_replaceable, write_atomically
from minippo.run.flags import numbers, option

KEPT = ("seed", "comparisons", "accuracy", "judge_accuracy", "prompts", "points")


@dataclass
class Config(SeedsConfig):
    CHOOSES = ("comparisons",)
    out: str = option("runs/overoptimization", "folder to write to; what is finished there is kept")
    reward: str = option("runs/{seed}/reward", "folder of the gold model: a reward model of stage 2")
    comparisons: str = option("64,256,1024,0", "how many comparisons a proxy learns from; 0 = all")
    best_of: str = option("1,4,16,64,256,1024", "values of n: the best of n responses of the reference")
    prompts: int = option(16, "held-out prompts of best of n", low=2)
    iterations: int = option(45, "rollouts of a PPO run, each followed by an update", low=2)
    rollout_size: int = option(64, "responses per iteration, learned from in halves", low=2)
    lr: float = option(7e-4, "learning rate of PPO", low=0)
    kl_coef: float = option(0.2, "beta at the beginning; it falls to 0 in half of the run", low=0, high=1000)


def main(config):
    """Every proxy of every seed; then the table, the figures, and texts of the worst run."""
    config, seeds, counts = checked(config)
    out = made(Path(config.out) / "proxies").parent
    plots = [out / name for name in ("overoptimization.png", "panel.png")]
    for plot in plots:
        check_replaceable(plot)
    figures = frontier_page.canvas(max(6, 3 * len(counts) + 0.5), 6), frontier_page.canvas(6, 5.6)
    found = [proxy for seed in seeds for proxy in of_seed(config, seed, counts, out)]
    points = [point for proxy in found for point in proxy["points"]]
    accuracies = {count: [x["accuracy"] for x in found if x["comparisons"] == count] for count in counts}
    text = "\n\n".join([
        frontier_page.report(points, accuracies), frontier_page.beside(points),
        frontier_page.texts(points, {x["seed"]: x["prompts"] for x in found}),
        f"The judge is right on {found[0]['judge_accuracy']:.0%} of held-out texts."])
    write_atomically(out / "table.md", (text + "\n").encode())
    print(text)
    if all(figures):
        frontier_page.draw(figures[0], points, plots[0])
        top, names = frontier_page.worst(points)[0], ("seed", "comparisons")
        frontier_page.draw(figures[1], [p for p in points if all(p[x] == top[x] for x in names)], plots[1])


def checked(config):
    """The config with best_of as a list, the seeds, the numbers of comparisons; 0, all of them, is the last.

    What is wrong is said here, before the work."""
    counts, best_of = numbers(config.comparisons, int, 0), numbers(config.best_of, int, 1)
    if sum(n > 1 for n in best_of) < 2:
        raise UserError(f"--best-of {config.best_of}: a curve takes two numbers above 1")
    return replace(config, best_of=best_of), seeds_of(config), sorted(counts, key=lambda n: n or sys.maxsize)


def of_seed(config, seed, counts, out):
    """What was measured of every proxy of a seed, a dict each; read from `out` if it is there."""
    @cache   # made when the first part is missing
    def world():
        return World(config, *folders(config, seed), seed, data.split(read(config.data)))

    def measure(count):
        points, accuracy = measured(world(), count, progress)
        return {"seed": seed, "comparisons": count, "accuracy": accuracy, "points": points,
                "judge_accuracy": world().judge.accuracy,
                "prompts": [world().tokenizer.decode(row) for row in world().shown]}

    for count in counts:
        yield kept(out / "proxies" / f"{seed}-{count}.json", config, seed,
                   f"{frontier_page.learned_from(count)} comparisons", KEPT, lambda: measure(count))


def progress(point):
    print(f"  iteration {point['setting']:>3}  KL {point['kl']:6.2f}  proxy {point['proxy']:+.2f}  "
          f"gold {point['gold']:+.2f}  judged positive {point['judged_positive']:.0%}",
          file=sys.stderr, flush=True)
