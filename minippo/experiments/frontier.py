"""Scores against their price in KL: best of n, the curves of Gao et al. 2022, where gold turns; a figure.

A point is a dict: method, setting (n, or the iteration), seed, comparisons, and the figures kl, proxy, gold,
judged_positive, distinct_2. A run is the points of one method, seed and number of comparisons.
"""

import math
import sys
from statistics import fmean

import numpy as np
import torch

from minippo.run.errors import UserError
from minippo.run.files import write_atomically
from minippo.tools.shared import curves
from minippo.tools.shared.tables import flat, markdown, spread

BEST, PPO = "best of n", "PPO"
COLOURS = {BEST: "tab:orange", PPO: "tab:blue"}
FIGURES = ("kl", "proxy", "gold", "judged_positive", "distinct_2")
SMOOTH = 5     # iterations whose mean says where a run of PPO stands: 128 responses leave a tenth of noise
FALL = 0.2     # gold has turned if it ends so far below its highest point: less may be chance
KNOWN = 0.5    # the share of a run's points from which its turn is predicted
HEAD = ["method", "comparisons", "proxy's accuracy", "gold turns at KL", "predicted", "gold there",
        "gold at the end", "judged positive there", "at the end", "distinct-2 there", "at the end",
        "proxy there", "at the end", "KL at the end"]
NOTE = """
Means over the seeds (smallest to largest). Scores: standard deviations of the reference's responses, from
their mean. Of PPO each figure is the mean of five neighbouring iterations. "Turns": gold's highest point, in
those runs that end 0.2 or more below it. "Predicted": the highest point of the curve fitted to the first half
of all runs' points; "never": it does not turn down."""


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
    """The points of one run in their order; of PPO the means of SMOOTH neighbours."""
    ordered = sorted(run, key=lambda p: p["setting"])
    if ordered[0]["method"] == BEST:
        return ordered
    windows = [ordered[i:i + SMOOTH] for i in range(max(1, len(ordered) - SMOOTH + 1))]
    return [window[len(window) // 2] | {name: fmean(p[name] for p in window) for name in FIGURES}
            for window in windows]


def turn(run):
    """Where gold is highest in one run, and where the run ends: two points."""
    found = smoothed(run)
    return max(found, key=lambda p: p["gold"]), found[-1]


def predicted(runs):
    """The KL at which gold will turn, by the first half of these runs of one method; None: never."""
    known = [p for run in runs for p in sorted(run, key=lambda p: p["setting"])[:math.ceil(KNOWN * len(run))]]
    return peak(known[0]["method"], *fit(known))


def report(points, accuracies):
    """Markdown: where gold turns, by method and number of comparisons.

    accuracies   {number of comparisons: the proxies' accuracies, one for each seed}
    """
    rows = []
    for (method, count), mine in by(points, "method", "comparisons").items():
        runs = list(by(mine, "seed").values())
        both = [turn(run) for run in runs]
        turned = [top["kl"] for top, end in both if top["gold"] - end["gold"] >= FALL]
        some = f" ({len(turned)} of {len(runs)} runs)" if len(turned) < len(runs) else ""
        ahead = predicted(runs)
        row = [method, learned_from(count), spread(accuracies[count], 3),
               spread(turned, 1) + some if turned else "-",
               "never" if ahead is None else "above 1,000" if ahead > 1000 else f"{ahead:.1f}"]
        for name in ("gold", "judged_positive", "distinct_2", "proxy"):
            row += [spread([p[name] for p in side], 2) for side in zip(*both)]
        rows.append([*row, spread([end["kl"] for _, end in both], 1)])
    return markdown(HEAD, sorted(rows, key=lambda row: row[0])) + "\n" + NOTE   # PPO first


def learned_from(count):
    return f"{count:,}" if count else "all"


def worst(points):
    """Gold's highest point and the end of the PPO run in which it fell furthest."""
    runs = by([p for p in points if p["method"] == PPO], "seed", "comparisons").values()
    return max(map(turn, runs), key=lambda both: both[0]["gold"] - both[1]["gold"])


def texts(points, prompts):
    """Markdown: responses at gold's highest point and at the end, of the run in which it fell furthest.

    prompts   {seed: the prompts that the points' texts answer}
    """
    top, end = worst(points)
    heads = [f"KL {p['kl']:.1f}, gold {p['gold']:+.2f}, proxy {p['proxy']:+.2f}" for p in (top, end)]
    rows = [map(flat, row) for row in zip(prompts[top["seed"]], top["texts"], end["texts"])]
    return (f"Where gold fell furthest (seed {top['seed']}, {learned_from(top['comparisons'])} comparisons), "
            "texts at its highest point and at the end:\n\n" + markdown(["prompt", *heads], rows))


def canvas(width, height):
    """An empty figure; None, with a note, if there is no matplotlib."""
    try:
        return curves.figure(width, height, layout="constrained")
    except UserError as error:
        print(f"note: no figure: {error}", file=sys.stderr)


def draw(figure, points, path):
    """A column for each number of comparisons: scores over KL, and below what the texts become."""
    groups = by(points, "comparisons")
    upper, lower = figure.subplots(2, len(groups), sharex=True, sharey="row", squeeze=False,
                                   height_ratios=(2, 1))
    right = 1.05 * max(p["kl"] for p in points)
    for (count,), above, below in zip(groups, upper, lower):
        scores(above, groups[count,])
        shares(below, [p for p in groups[count,] if p["method"] == PPO])
        for axes in (above, below):
            dress(axes, right)
        above.set_title(f"{learned_from(count)} comparisons")
        below.set_xlabel("KL (nats, square-root scale)")
    upper[0].set_ylabel("score (deviations of the reference's)")
    upper[0].legend(frameon=False, loc="upper left")
    lower[0].legend(frameon=False, loc="lower left")
    opaque = {"savefig.transparent": False, "savefig.dpi": 160}
    write_atomically(path, curves.saved(figure, path.suffix, **opaque))


def scores(axes, points):
    """The proxy's score and gold's over KL: every point, the fitted curves, and where gold stood highest."""
    for method, colour in COLOURS.items():
        mine = [p for p in points if p["method"] == method]
        kl = [max(0.0, p["kl"]) for p in mine]
        d = np.linspace(0, max(kl) ** 0.5, 200)
        for name, style, face in (("proxy", "--", "none"), ("gold", "-", colour)):
            axes.plot(d ** 2, curve(method, d, *fit(mine, name)), style, color=colour,
                      label=f"{method}: {name}")
            axes.scatter(kl, [p[name] for p in mine], 6, facecolors=face, edgecolors=colour, linewidths=0.4,
                         alpha=0.5)
        tops = [turn(run)[0] for run in by(mine, "seed").values()]
        axes.plot([p["kl"] for p in tops], [p["gold"] for p in tops], "*", color=colour, markersize=11,
                  markeredgecolor="white")


def shares(axes, points):
    """How many texts the judge calls positive, and how many of their word pairs differ, over KL."""
    for name, label, colour in (("judged_positive", "judged positive", "tab:green"),
                                ("distinct_2", "distinct word pairs", "tab:purple")):
        for run in by(points, "seed").values():
            found = smoothed(run)
            axes.plot([max(0.0, p["kl"]) for p in found], [p[name] for p in found], color=colour, linewidth=1,
                      label=label)
            label = None
    axes.set_ylim(0, 1.05)


def dress(axes, right):
    """KL from 0 to `right` on a square-root scale: there the curves of best of n are parabolas."""
    axes.set_xlim(0, right)
    axes.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
    axes.set_xticks([x for x in (0, 1, 4, 9, 16, 25, 36, 49, 64, 81, 100, 144) if x <= right])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
