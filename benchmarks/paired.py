"""Two programs timed in turn, on a machine that may be noisy.

A pair is both once, one after the other; every second pair in the opposite order. Before, between and after,
the machine is looked at in two ways, and a pair is thrown away and repeated if either speaks of company:

* a matrix product of fixed size is slower at one of these times than at another by more than --gate. A
  machine that is slower from the first to the last is fair to both sides, and the ratio holds;
* a small operation takes more than CROWDED times as long on all threads as on one. That finds what the first
  cannot, a core that somebody else uses all the time: threads then wait for each other in every small
  operation, some milliseconds each, and the ratio tells who has more of them, not who is faster.

What is reported is the ratio within a pair, its median, smallest and largest value.
"""

import json
import statistics
import time
from dataclasses import dataclass

import torch

from minippo.run.devices import keep_freed_memory
from minippo.run.errors import UserError
from minippo.run.flags import option

SIZE = 1024        # of the product that measures the machine: 2 SIZE^3 operations, some 10 ms on two cores
SAMPLES = 25
PEAK_SIZES = (1024, 2048, 3072)
SMALL = 200_000    # numbers in the small operation: it takes some 0.1 ms on one thread, and uses them all
CROWDED = 2.0      # a machine of our own is below 1
ENOUGH = 5         # pairs without which there is no result


@dataclass
class PairedConfig:
    GROUP = "how it is timed"
    pairs: int = option(7, "pairs that count; the median of them is reported", low=ENOUGH)
    warm_up: int = option(1, "pairs before them that do not count", low=0)
    gate: float = option(0.15, "throw a pair away during which the rate of matrix products fell or rose by "
                               "more than this share", low=0.01, high=100)
    crowded: float = option(CROWDED, "and one during which a small operation took so many times as long on "
                                     "all threads as on one", low=0.1, high=1e6)
    spare: int = option(14, "how many pairs may be thrown away before giving up", low=0)
    seed: int = option(0, "fixes weights, queries and lengths", low=0)


def timed(run):
    """Seconds that run() takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def products(size, count):
    """GFLOP/s of `count` float32 products of two square matrices, each timed alone."""
    a, b, out = (torch.ones(size, size) for _ in range(3))
    torch.mm(a, b, out=out)
    return [2 * size**3 / timed(lambda: torch.mm(a, b, out=out)) / 1e9 for _ in range(count)]


def rate():
    """How fast the machine is now: GFLOP/s, the median of some products."""
    return statistics.median(products(SIZE, SAMPLES))


def crowding():
    """How long a small operation takes on all threads, as a multiple of its time on one; medians."""
    x, threads, seconds = torch.ones(SMALL), torch.get_num_threads(), {}
    for count in {1, threads}:
        torch.set_num_threads(count)
        x + 1   # wakes the threads
        seconds[count] = statistics.median(timed(lambda: x + 1) for _ in range(SAMPLES))
    torch.set_num_threads(threads)
    return seconds[threads] / seconds[1]


def look():
    """The machine now: rate of matrix products (GFLOP/s), crowding."""
    return rate(), crowding()


def peak():
    """The fastest float32 product that was seen: GFLOP/s, of several sizes."""
    return max(max(products(size, 5)) for size in PEAK_SIZES)


def moved(rates):
    """By which share the lowest of these rates is below the highest."""
    return 1 - min(rates) / max(rates)


def one_round(runs, turned):
    """Seconds of each run and what it returned; how the machine looked before, between and after."""
    looks, found = [look()], {}
    for i in sorted(range(len(runs)), reverse=turned):
        start = time.perf_counter()
        result = runs[i]()
        found[i] = time.perf_counter() - start, result
        looks.append(look())
    return [found[i] for i in range(len(runs))], looks


def rounds(runs, config):
    """The runs in turn, again and again, until --pairs rounds were undisturbed.

    Freed memory is kept meanwhile, as in every run of ours; peers gain by that, too.

    runs      functions without arguments
    Returns   a list of rounds: of each run (seconds, what it returned); how many were thrown away
    Raises    UserError if these are more than --spare
    """
    keep_freed_memory()
    good, thrown = [], 0
    for _ in range(config.warm_up):
        for run in runs:
            run()
    while len(good) < config.pairs:
        found, looks = one_round(runs, turned=bool((len(good) + thrown) % 2))
        rates, crowds = zip(*looks)
        if moved(rates) <= config.gate and max(crowds) <= config.crowded:
            good.append(found)
        else:
            thrown += 1
        if thrown > config.spare:
            raise UserError(f"the machine is too noisy: {thrown} of {len(good) + thrown} rounds were thrown "
                            f"away (last: its rate moved by {moved(rates):.0%}, crowding {max(crowds):.1f}); "
                            "try when nothing else runs on it")
    return good, thrown


def compare(ours, theirs, config):
    """Two functions of the same work timed in turn: a dict of what came out."""
    good, thrown = rounds([ours, theirs], config)
    pairs = [[seconds for seconds, _ in pair] for pair in good]
    return {"ours_seconds": spread([mine for mine, _ in pairs]),
            "theirs_seconds": spread([other for _, other in pairs]),
            "times_faster": spread([other / mine for mine, other in pairs])} | gates(config, thrown)


def gates(config, thrown):
    """How many rounds counted and did not, and what decided it."""
    return {"pairs": config.pairs, "thrown_away": thrown, "gate": config.gate, "crowded": config.crowded}


def spread(numbers):
    """Median, smallest, largest: rounded to four digits, a dict."""
    found = {"median": statistics.median(numbers), "min": min(numbers), "max": max(numbers)}
    return {name: short(x) for name, x in found.items()}


def short(x):
    """A number with four digits that count."""
    return float(f"{x:.4g}")


def agree(checks, tolerance):
    """The largest difference of each quantity, a dict, if the two sides computed the same.

    checks   name -> (ours, theirs, tensors), compared relative to the largest of theirs
    Raises   UserError naming the first quantity that differs by more than `tolerance`: then the
             times would be of two different things
    """
    found = {}
    for name, (ours, theirs) in checks.items():
        if ours.shape != theirs.shape:
            raise UserError(f"{name}: shape {tuple(ours.shape)} of ours, {tuple(theirs.shape)} of theirs; "
                            "the two do not compute the same, so nothing was timed")
        found[name] = ((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30)).item()
        if not found[name] <= tolerance:
            raise UserError(f"{name}: ours and theirs differ by {found[name]:.1e} of the largest number; "
                            "the two do not compute the same, so nothing was timed")
    return {name: short(x) for name, x in found.items()}


def say(benchmark, config, **found):
    """One line of JSON: what was measured, with which settings, and on what."""
    about = {"benchmark": benchmark, "torch": torch.__version__, "threads": torch.get_num_threads(),
             "settings": vars(config)}
    print(json.dumps(about | found))
