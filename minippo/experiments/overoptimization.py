"""Over-optimisation: a learned score is raised until a better judge's falls."""

import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from minippo import data
from minippo.corpora.read import read
from minippo.experiments import frontier_page
from minippo.experiments.proxies import World, measured
from minippo.run import checkpoint
from minippo.run.errors import UserError
from minippo.run.files import check_replaceable, read_regular, write_atomically
from minippo.run.flags import numbers, option

LARGEST = 2**26   # bytes of a file of points; one has a hundred times fewer
KEPT = ("seed", "comparisons", "accuracy", "judge_accuracy", "prompts", "points")


@dataclass
class Config:
    out: str = option("runs/overoptimization", "folder to write to; what is finished there is kept")
    model: str = option("runs/{seed}/pretrain", "folder of the pretrained model; {seed} stands for each seed")
    reward: str = option("runs/{seed}/reward", "folder of the gold model: a reward model of stage 2")
    data: str = option("movies", "the data of the three stages; it needs ratings")
    seeds: str = option("0,1,2", "the seeds, with commas between them")
    comparisons: str = option("64,256,1024,0", "how many comparisons a proxy learns from; 0 = all")
    best_of: str = option("1,4,16,64,256,1024", "values of n: the best of n responses of the reference")
    prompts: int = option(32, "held-out prompts of best of n", low=2)
    iterations: int = option(80, "rollouts of a PPO run, each followed by an update", low=2)
    rollout_size: int = option(128, "responses per iteration", low=2)
    lr: float = option(5e-4, "learning rate of PPO", low=0)
    kl_coef: float = option(0.2, "beta at the beginning; it falls to 0 in half of the run", low=0, high=1000)
    device: str = option("auto", "where to compute", choices=("auto", "cpu", "cuda", "mps"))
    precision: str = option("auto", "precision of the matrix products", choices=("auto", "bf16", "fp32"))


def main(config):
    """Every proxy of every seed; then the table, the figures, and texts of the worst run."""
    config, seeds, counts = checked(config)
    out = made(Path(config.out) / "proxies").parent
    plots = [out / name for name in ("overoptimization.png", "panel.png")]
    for plot in plots:
        check_replaceable(plot)
    figures = frontier_page.canvas(3 * len(counts) + 0.5, 6), frontier_page.canvas(6, 5.6)
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

    What is wrong is said here, before half an hour of work."""
    seeds, counts = numbers(config.seeds, int, 0), numbers(config.comparisons, int, 0)
    best_of = numbers(config.best_of, int, 1)
    if sum(n > 1 for n in best_of) < 2:
        raise UserError(f"--best-of {config.best_of}: a curve takes two numbers above 1")
    for seed in seeds:
        checkpoint.load_both(*folders(config, seed))
    return replace(config, best_of=best_of), seeds, sorted(counts, key=lambda n: n or sys.maxsize)


def folders(config, seed):
    return [name.replace("{seed}", str(seed)) for name in (config.model, config.reward)]


def made(folder):
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}); name another --out") from None
    return folder


def of_seed(config, seed, counts, out):
    """What was measured of every proxy of a seed, a dict each; read from `out` if it is there."""
    world = None
    for count in counts:
        file = out / "proxies" / f"{seed}-{count}.json"
        about = identity(config, seed, count)
        found = finished(file, about)
        if not found:
            say(f"seed {seed}, {frontier_page.learned_from(count)} comparisons: {file}")
            world = world or World(config, *folders(config, seed), seed, data.split(read(config.data)))
            points, accuracy = measured(world, count, progress)
            found = {"about": about, "seed": seed, "comparisons": count, "accuracy": accuracy,
                     "judge_accuracy": world.judge.accuracy, "points": points,
                     "prompts": [world.tokenizer.decode(row) for row in world.shown]}
            write_atomically(file, json.dumps(found, indent=1).encode())
        yield found


def identity(config, seed, count):
    """What the points of one proxy depend on, a dict: flags, and the files of the models."""
    flags = asdict(config)
    for name in ("out", "seeds", "comparisons", "model", "reward", "device"):
        del flags[name]
    return flags | {"seed": seed, "comparisons": count,
                    "models": [checkpoint.model_hashes(folder) for folder in folders(config, seed)]}


def finished(file, about):
    """What an earlier start wrote of a proxy, a dict; None if there is nothing.

    Raises   UserError if it is of other flags or models, or damaged
    """
    try:
        found = json.loads(read_regular(file, LARGEST).decode())
        same = found["about"] == about
        whole = all(name in found for name in KEPT) and found["points"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        same, whole = True, False
    if not same:
        raise UserError(f"{file}: was made with other flags or models; delete it, or name another --out")
    if not whole:
        raise UserError(f"{file}: cannot be read, or damaged; delete it, and it is made again")
    return found


def progress(point):
    say(f"  iteration {point['setting']:>3}  KL {point['kl']:6.2f}  proxy {point['proxy']:+.2f}  "
        f"gold {point['gold']:+.2f}  judged positive {point['judged_positive']:.0%}")


def say(what):
    print(what, file=sys.stderr, flush=True)
