"""Scores against their price in KL: best-of-n, the curves of Gao et al. 2022, a table, a figure.

A point is a dict: method, setting (n, or kl-coef), seed, and the figures named in COLUMNS.
"""

import math
import sys

import numpy as np
import torch

from minippo.run.errors import UserError
from minippo.run.files import write_atomically
from minippo.tools.shared import curves
from minippo.tools.shared.comparison import best_of_kl
from minippo.tools.shared.tables import markdown, spread

BEST, PPO = "best of n", "PPO"
COLUMNS = {"kl": "KL", "score": "learned score", "judge": "judge's score",
           "judged_positive": "judged positive", "distinct_2": "distinct-2",
           "ended": "ended", "length": "length"}
NOTE = """

Means over the seeds (smallest to largest). Scores: from the mean of the reference's responses, in
their standard deviations; the learned score of a response cut off is fixed, as in training.
distinct-2 is that of one response a prompt; length in tokens."""


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
    """The judge's score at d = sqrt(KL), an array: best of n d (a - b d), PPO d (a - b ln d).

    Source   Gao et al. 2022, section 1 (arXiv:2210.10760)
    """
    return d * (a - b * (d if method == BEST else np.log(np.maximum(d, 1e-12))))


def peak(method, a, b):
    """The KL at which a curve is highest: d = a / 2b, or e^(a/b - 1). None: it never turns down."""
    if b <= 0:
        return None
    return (max(0.0, a / (2 * b)) if method == BEST else math.exp(min(a / b - 1, 300))) ** 2


def fit(method, points, name="judge"):
    """A curve through the points of a method by least squares: a dict."""
    mine = [p for p in points if p["method"] == method]
    d = np.sqrt([max(0.0, p["kl"]) for p in mine])
    columns = np.stack([curve(method, d, 1, 0), curve(method, d, 0, 1)], 1)
    a, b = map(float, np.linalg.lstsq(columns, [p[name] for p in mine], rcond=None)[0])
    top, highest = peak(method, a, b), float(d.max() ** 2)
    return {"a": a, "b": b, "peak_kl": top, "highest_kl": highest,
            "turns_down": top is not None and top <= highest}


def verdict(method, points):
    """The fit as a plain sentence, and where each seed's own curve is highest."""
    def highest(fitted):
        return f"{fitted['peak_kl']:.1f}" if fitted["turns_down"] else "none"

    mine = [p for p in points if p["method"] == method]
    fitted, seeds = fit(method, mine), sorted({p["seed"] for p in mine})
    where = f"does not turn down within the range measured (KL up to {fitted['highest_kl']:.1f})"
    if fitted["turns_down"]:
        where = f"turns down at KL {highest(fitted)} (measured up to {fitted['highest_kl']:.1f})"
    each = ", ".join(highest(fit(method, [p for p in mine if p["seed"] == s])) for s in seeds)
    return (f"{method}: the judge's score {where}. Turning point seed by seed: {each}. Fit: "
            f"d ({fitted['a']:.3f} {-fitted['b']:+.3f} {'d' if method == BEST else 'ln d'}), "
            "d = sqrt(KL).")


def by_setting(points, method):
    """{setting: its points, one a seed}"""
    mine = [p for p in points if p["method"] == method]
    return {s: [p for p in mine if p["setting"] == s] for s in sorted({p["setting"] for p in mine})}


def label(method, setting):
    return f"best of {setting}" if method == BEST else f"PPO, kl-coef {setting:g}"


def table(points):
    """Markdown: means over the seeds, with the smallest and the largest; then what they are."""
    rows = []
    for method in (BEST, PPO):
        for setting, group in by_setting(points, method).items():
            rows.append([label(method, setting)])
            for name in COLUMNS:
                rows[-1].append(spread([p[name] for p in group], 2))
    return markdown(["", *COLUMNS.values()], rows) + NOTE


def canvas():
    """An empty figure; None, with a note, if there is no matplotlib."""
    try:
        return curves.figure(8, 5, layout="constrained")
    except UserError as error:
        print(f"note: no figure: {error}", file=sys.stderr)


def draw(figure, points, path):
    """The figure: the learned score (dashed) and the judge's (solid) against KL, written to path."""
    axes, right = figure.add_subplot(), 1.1 * max(p["kl"] for p in points)
    axes.set_xlim(0, right)
    axes.set_xscale("function", functions=(np.sqrt, np.square))
    for method, colour in ((BEST, "tab:orange"), (PPO, "tab:blue")):
        draw_method(axes, method, [p for p in points if p["method"] == method], colour)
    for n in by_setting(points, BEST):
        axes.text(best_of_kl(n), 1.01, f"n = {n}", transform=axes.get_xaxis_transform(),
                  color="tab:orange", ha="center")
    axes.set(ylabel="score (standard deviations of the reference's)",
             xlabel="KL from the reference (nats per response; square-root scale)")
    axes.set_xticks([x for x in (0, 0.1, 0.5, 1, 2, 4, 6, 9, 12, 16, 25, 36, 49) if x <= right])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
    opaque = {"savefig.transparent": False, "savefig.dpi": 160}
    write_atomically(path, curves.saved(figure, path.suffix, **opaque))


def draw_method(axes, method, points, colour):
    """Every seed's points and the curves fitted to them."""
    kl = [max(0.0, p["kl"]) for p in points]
    d = np.linspace(0, max(kl) ** 0.5, 200)
    for name, style, face in (("score", "--", "white"), ("judge", "-", colour)):
        fitted = fit(method, points, name)
        axes.plot(d ** 2, curve(method, d, fitted["a"], fitted["b"]), style, color=colour,
                  label=f"{method}: {COLUMNS[name]}")
        axes.scatter(kl, [p[name] for p in points], 22, facecolors=face, edgecolors=colour)
