"""Over-optimisation: a table, a sentence, texts of the worst run, a figure; points as in frontier."""

import sys

import numpy as np

from minippo.experiments.frontier import BEST, PPO, by, curve, fit, peak, predicted, smoothed, turn, turned
from minippo.run.errors import UserError
from minippo.run.files import write_atomically
from minippo.tools.shared import curves
from minippo.tools.shared.tables import flat, markdown, spread

COLOURS = {BEST: "tab:orange", PPO: "tab:blue"}
SHARES = {"judged_positive": ("judged positive", "tab:green"), "distinct_2": ("distinct-2", "tab:purple")}
HEAD = ["method", "comparisons", "proxy's accuracy", "gold turns at KL, by seed", "fitted", "predicted",
        "gold at its highest", "at the end", "judged positive there", "at the end", "distinct-2 there",
        "at the end", "proxy there", "at the end", "gold / proxy at the end", "KL at the end"]
NOTE = """
Means over the seeds (smallest to largest). Scores: standard deviations of the reference's responses, from
their mean. Of PPO each number is the mean of five neighbouring iterations. "Turns": gold's highest point, if
the run ends 0.2 or more below it. "Fitted": the highest point of the curve through the whole run;
"predicted": of that through its first half; "-": not within the run. Gold / proxy: the mean of the ratios."""


def report(points, accuracies):
    """The table: where gold turns, by method and number of comparisons.

    accuracies   {number of comparisons: the proxies' accuracies, one for each seed}
    """
    rows = []
    for (method, count), mine in by(points, "method", "comparisons").items():
        runs = list(by(mine, "seed").values())
        both = [turn(run) for run in runs]
        turns = [top["kl"] if turned(top, end) else None for top, end in both]
        found = turns, [peak(method, *fit(run)) for run in runs], [predicted(run) for run in runs]
        row = [method, learned_from(count), spread(accuracies[count], 3)]
        row += [", ".join(within(kl, end) for kl, (_, end) in zip(some, both)) for some in found]
        for name in ("gold", "judged_positive", "distinct_2", "proxy"):
            row += [spread([p[name] for p in side], 2) for side in zip(*both)]
        ratios = [end["gold"] / end["proxy"] for _, end in both if end["proxy"] > 0]
        row.append(spread(ratios, 2) if ratios else "-")
        rows.append([*row, spread([end["kl"] for _, end in both], 1)])
    return markdown(HEAD, sorted(rows, key=lambda row: row[0])) + "\n" + NOTE   # PPO first


def within(kl, end):
    """A KL as text; "-" for None, and for what lies behind the end of a run."""
    return "-" if kl is None or kl > end["kl"] else f"{kl:.1f}"


def learned_from(count):
    return f"{count:,}" if count else "all"


def beside(points, wanted=64):
    """A sentence: the best of 64 beside PPO where it has the same gold; by the proxies that learned most."""
    mine = [p for p in points if p["comparisons"] == points[-1]["comparisons"]]
    n = min((p["setting"] for p in mine if p["method"] == BEST), key=lambda n: abs(n - wanted))
    best = [p for p in mine if p["method"] == BEST and p["setting"] == n]
    runs = [smoothed(run) for (method, _), run in by(mine, "method", "seed").items() if method == PPO]
    there = [p for run, rival in zip(runs, best)
             for p in [p for p in run if p["gold"] >= rival["gold"]][:1]]

    def at(found):
        return (f"KL {spread([p['kl'] for p in found], 1)}, "
                f"judged positive {spread([p['judged_positive'] for p in found], 2)}, "
                f"distinct-2 {spread([p['distinct_2'] for p in found], 2)}")

    learned = learned_from(mine[0]["comparisons"])
    return (f"Proxies that learned from {learned} comparisons: the best of {n:,} has gold "
            f"{spread([p['gold'] for p in best], 2)} at {at(best)}; PPO "
            + (f"first has as much at {at(there)}." if there else "never has as much."))


def worst(points):
    """Gold's highest point and the end of the PPO run in which it fell furthest."""
    runs = by([p for p in points if p["method"] == PPO], "seed", "comparisons").values()
    return max(map(turn, runs), key=lambda both: both[0]["gold"] - both[1]["gold"])


def texts(points, prompts):
    """Responses at gold's highest point and at the end of the worst run, beside each other.

    prompts   {seed: the prompts that the points' texts answer}
    """
    top, end = worst(points)
    heads = [f"KL {p['kl']:.1f}, gold {p['gold']:+.2f}, proxy {p['proxy']:+.2f}" for p in (top, end)]
    aside = "" if turned(top, end) else " (less than 0.2 lower: no turn)"
    rows = [map(flat, row) for row in zip(prompts[top["seed"]], top["texts"], end["texts"])]
    return (f"Where gold fell furthest (seed {top['seed']}, {learned_from(top['comparisons'])} comparisons), "
            f"texts at its highest point and at the end{aside}:\n\n" + markdown(["prompt", *heads], rows))


def canvas(width, height):
    """An empty figure; None, with a note, if there is no matplotlib."""
    try:
        return curves.figure(width, height, layout="constrained")
    except UserError as error:
        print(f"note: no figure: {error}", file=sys.stderr)


def draw(figure, points, path):
    """A column for each number of comparisons: scores over KL, and below what becomes of the texts."""
    groups, right = by(points, "comparisons"), 1.05 * max(p["kl"] for p in points)
    upper, lower = figure.subplots(2, len(groups), sharex=True, sharey="row", squeeze=False,
                                   height_ratios=(2, 1))
    for (count,), above, below in zip(groups, upper, lower):
        runs = by(groups[count,], "method", "seed").items()
        for (method, _), run in runs:
            scores(above, method, run)
        for run in (run for (method, _), run in runs if method == PPO):
            shares(below, smoothed(run))
        above.set_title(f"{learned_from(count)} comparisons")
        below.set_xlabel("KL (nats, square-root scale)")
        dress(above, right)
        dress(below, right)
    upper[0].set_ylabel("score (deviations of the reference's)")
    lines = {line.get_label(): line for axes in (upper[0], lower[0]) for line in axes.lines}
    shown = {label: line for label, line in lines.items() if not label.startswith("_")}
    figure.legend(shown.values(), shown, loc="outside lower center", frameon=False,
                  ncols=4 if len(groups) > 1 else 3)
    opaque = {"savefig.transparent": False, "savefig.dpi": 160}
    write_atomically(path, curves.saved(figure, path.suffix, **opaque))


def scores(axes, method, run):
    """The proxy's score and gold's over KL, the curve fitted to gold, and a star where gold turns."""
    found, colour = smoothed(run), COLOURS[method]
    kl = [max(0.0, p["kl"]) for p in found]
    axes.plot(kl, [p["proxy"] for p in found], "--", color=colour, linewidth=1, label=f"{method}: proxy")
    axes.plot(kl, [p["gold"] for p in found], color=colour, linewidth=1.8, label=f"{method}: gold")
    d = np.linspace(0, max(kl) ** 0.5, 200)
    axes.plot(d ** 2, curve(method, d, *fit(run)), ":", color="0.45", linewidth=1, label="fitted to gold")
    top, end = turn(run)
    if turned(top, end):
        axes.plot(top["kl"], top["gold"], "*", color="tab:red", markersize=13, markeredgecolor="white",
                  label="gold turns")


def shares(axes, found):
    """What share of the texts the judge calls positive, and how many of their word pairs differ, over KL."""
    for name, (label, colour) in SHARES.items():
        axes.plot([max(0.0, p["kl"]) for p in found], [p[name] for p in found], color=colour, linewidth=1.2,
                  label=label)
    axes.set_ylim(0, 1.05)


def dress(axes, right):
    """KL from 0 to `right` on a square-root scale: there the curves of best of n are parabolas."""
    axes.set_xlim(0, right)
    axes.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
    axes.set_xticks([x for x in (0, 1, 4, 9, 16, 25, 36, 64, 100, 144, 196) if x <= right])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
