"""Scores against their price in KL: best of n, the curves of Gao et al. 2022, and where a run turns.

A point is a dict: method, setting (n, or the iteration), seed, comparisons, and the numbers FIGURES. A run is
the points of one method, seed and number of comparisons.
"""

import math
from statistics import fmean

import numpy as np
import torch

BEST, PPO = "best of n", "PPO"
FIGURES = ("kl", "proxy", "gold", "judged_positive", "distinct_2")
SMOOTH = 5     # iterations whose mean says where a run of PPO stands: 64 responses leave an eighth of noise
FALL = 0.2     # gold has turned if it ends so far below its highest point: less may be chance


def best_of(n, score, value):
    """Mean value of the best of n responses, from all N: of the subsets of n responses,
    C(i, n - 1) have the one with i lower scores as their best.

    score, value   (P, N): N >= n responses to each of P prompts
    Returns        a float, without bias for any n
    """
    total = score.shape[1]
    weights = [math.comb(i, n - 1) / math.comb(total, n) for i in range(total)]
    ordered = value.gather(1, score.argsort(dim=1, stable=True)).double()
    return (ordered @ torch.tensor(weights, dtype=torch.double)).mean().item()


def curve(method, d, a, b):
    """A score at d = sqrt(KL), an array: best of n d (a - b d), PPO d (a - b ln d).

    Source   Gao et al. 2022, section 1 (arXiv:2210.10760)
    """
    return d * (a - b * (d if method == BEST else np.log(np.maximum(d, 1e-12))))


def fit(points, name="gold"):
    """a and b of the curve through points of one method, by least squares."""
    method, d = points[0]["method"], np.sqrt([max(0.0, p["kl"]) for p in points])
    columns = np.stack([curve(method, d, 1, 0), curve(method, d, 0, 1)], 1)
    return tuple(map(float, np.linalg.lstsq(columns, [p[name] for p in points], rcond=None)[0]))


def peak(method, a, b):
    """The KL at which a curve is highest: d = a / 2b, or e^(a/b - 1). None: it never turns down."""
    if b <= 0:
        return None
    return (max(0.0, a / (2 * b)) if method == BEST else math.exp(min(a / b - 1, 300))) ** 2


def by(points, *names):
    """{values of these names: their points}, in the order in which they come"""
    found = {}
    for p in points:
        found.setdefault(tuple(p[name] for name in names), []).append(p)
    return found


def smoothed(run):
    """The points of one run in their order; of PPO means of SMOOTH neighbours, with the texts of one."""
    ordered = sorted(run, key=lambda p: p["setting"])
    if ordered[0]["method"] == BEST:
        return ordered
    windows = [ordered[i:i + SMOOTH] for i in range(max(1, len(ordered) - SMOOTH + 1))]
    return [window[len(window) // 2] | {name: fmean(p[name] for p in window) for name in FIGURES}
            | {"texts": next(p["texts"] for p in window if "texts" in p)} for window in windows]


def turn(run):
    """Where gold is highest in one run, and where the run ends: two points."""
    found = smoothed(run)
    return max(found, key=lambda p: p["gold"]), found[-1]


def turned(top, end):
    """Whether gold ends clearly below its highest point: what turn() returns."""
    return top["gold"] - end["gold"] >= FALL


def predicted(run):
    """The KL at which gold will turn, by the curve through the first half of a run; None: never."""
    ordered = sorted(run, key=lambda p: p["setting"])
    return peak(run[0]["method"], *fit(ordered[:math.ceil(len(run) / 2)]))
