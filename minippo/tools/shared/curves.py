"""Curves of runs over the iterations: as SVG inside a page, or score and KL as a file (needs matplotlib)."""

import io
import logging
import math
import re
from pathlib import Path

from minippo.run.errors import UserError, printable
from minippo.run.files import write_atomically
from minippo.tools.shared import page
from minippo.tools.shared.page import escaped
from minippo.tools.shared.runs import is_number

# Runs differ in colour and in dashes. Each colour has a contrast of 3 or more with light and dark pages.
COLOURS = ("#2f7fd1", "#c9600a", "#2a8f47", "#b0479a", "#8a6fe0", "#8f7420")
DASHES = {"-": "", "--": "6 3", ":": "2 3", "-.": "7 3 2 3"}   # as matplotlib and as SVG call them
GREY = "#808080"   # of letters and axes: can be read on white and on black
ALONE = {"objective/scores": "mean score (reward model)", "objective/kl": "KL from the reference (nats)"}
ENDINGS = (".svg", ".png", ".pdf")
ROOM = (0.17, 0.21, 0.81, 0.75)   # of the axes in a panel: left, bottom, width, height as shares of it

SECTIONS = [   # heading, a sentence, and the panels: key of the record, title, what it says
    ("Score and its price", "", [
        ("objective/scores", "Score", "Mean of the reward model's; 0 is the mean of the pretrained "
                                      "model's that end, 1 their deviation. Of --target negative: "
                                      "minus that."),
        ("objective/paid", "Paid", "What PPO pays: the score, or --missing-end-score for a response that was "
                                   "cut off."),
        ("objective/kl", "KL from the reference", "Nats per response: the price, and how far the policy has "
                                                  "gone.")]),
    ("Total loss and mean reward", "A falling loss is not success: every update has responses and advantages "
     "of its own, so the losses of two iterations measure different things. Whether PPO gets what it "
     "seeks, the reward says.", [
         ("ppo/loss/total", "Total loss", "Policy loss + c1 value loss - c2 entropy, mean over an update."),
         ("objective/rlhf_reward", "Mean reward", "Paid minus β times KL: what PPO maximises.")]),
    ("How the updates went", "", [
        ("ppo/policy/entropy", "Entropy", "Nats per token. A fall to 0: the policy always writes the same."),
        ("ppo/policy/clipfrac", "Clip fraction", "Share of tokens where the clip binds. Above 0.3 steps are "
                                                 "large."),
        ("ppo/policy/ratio", "Ratio", "New / old probability of a token, mean. It stays near 1."),
        ("ppo/val/var_explained", "Explained variance", "Of the returns, by the critic: 1 is perfect, 0 no "
                                                        "better than a constant."),
        ("tokens/responses_len_mean", "Length", "Tokens per response, the end token included."),
        ("tokens/ended", "Ended", "Share of responses that end by themselves. Near 0 nothing can be "
                                  "learned.")])]
KEYS = [key for _, _, panels in SECTIONS for key, _, _ in panels]


def figure(width, height, **given):
    """An empty Figure, in inches; UserError if there is no matplotlib."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)   # else it tells stderr of its fonts and caches
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("this needs matplotlib: pip install matplotlib") from None
    return Figure(figsize=(width, height), **given)


def style(i):
    """Colour and dashes of run number i: 12 differ."""
    return COLOURS[i % len(COLOURS)], list(DASHES)[i % len(DASHES)]


def finite(x):
    """A number to draw: NaN, a gap, for what is none."""
    return float(x) if is_number(x) else math.nan


def plot(axes, records, key):
    """A line per run. records: {name: rows}"""
    for i, rows in enumerate(records.values()):
        colour, dashes = style(i)
        axes.plot([finite(row["iteration"]) + 1 for row in rows], [finite(row[key]) for row in rows], dashes,
                  color=colour, marker="o" if len(rows) == 1 else "")   # a line of one point is not seen
    axes.set_xlabel("iteration", color=GREY)
    dress(axes)


def dress(axes):
    axes.ticklabel_format(useOffset=False)
    axes.tick_params(color=GREY, labelcolor=GREY)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.spines[["top", "right"]].set_visible(False)


def check(flag, file):
    """UserError, before the work, unless a figure can be written to the file that a flag names."""
    if Path(file).suffix not in ENDINGS:
        raise UserError(f"{flag} {file}: the name has to end in {', '.join(ENDINGS)}")
    page.check(file, flag)


def saved(drawing, ending, **settings):
    """A figure as bytes, the same ones each time; transparent, if matplotlib's settings do not say else."""
    from matplotlib import rc_context
    content = io.BytesIO()
    about = {".svg": ("Creator", "Date", "Format", "Type"), ".pdf": ("CreationDate",)}.get(ending, ())
    with rc_context({"svg.hashsalt": "minippo", "savefig.transparent": True, **settings}):
        drawing.savefig(content, format=ending[1:], metadata=dict.fromkeys(about))
    return content.getvalue()


def inline(drawing, name, label):
    """A figure as SVG for a page: letters stay text, ids are its own, and `label` says what it shows."""
    svg = saved(drawing, ".svg", **{"svg.fonttype": "none"}).decode()
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg[svg.index("<svg"):])
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escaped(label)}" ', 1)


def panel(records, key, title):
    """One quantity of all runs, inline."""
    drawing = figure(3.8, 2.2)
    plot(drawing.add_axes(ROOM), records, key)
    return inline(drawing, re.sub(r"\W", "-", key), f"{title} over the iterations")


def reliability(bins, name):
    """How often a reward model is right against how sure it is, inline. bins: [sure, right, share] each"""
    drawing = figure(3.8, 2.6)
    axes = drawing.add_axes(ROOM, xlim=(0.48, 1.02), ylim=(0, 1.05))
    axes.plot([0.5, 1], [0.5, 1], ":", color=GREY)
    axes.plot([finite(sure) for sure, *_ in bins], [finite(right) for _, right, _ in bins], "o-",
              color=COLOURS[0])
    axes.set_xlabel("how sure: sigmoid(difference of scores)", color=GREY)
    axes.set_ylabel("share that is right", color=GREY)
    dress(axes)
    return inline(drawing, name, "share of pairs ordered right against how sure the reward model is")


def write_alone(records, file):
    """Score and KL, side by side, in a file of their own; its ending says the format."""
    check("--png", file)
    several = len(records) > 1
    drawing = figure(8, 2.9 + 0.25 * several * len(records), layout="constrained")
    drawing.get_layout_engine().set(w_pad=0.1, h_pad=0.1)   # inches
    for axes, (key, title) in zip(drawing.subplots(1, len(ALONE)), ALONE.items()):
        plot(axes, records, key)
        axes.set_title(title, color=GREY)
    if several:
        legend = drawing.legend(axes.lines, [" "] * len(records), loc="outside lower center", frameon=False,
                                labelcolor=GREY)
        for text, name in zip(legend.get_texts(), records):   # no formula, whatever is in a name
            text.set_parse_math(False)
            text.set_text(printable(name.encode("utf-8", "replace").decode()))
    write_atomically(file, saved(drawing, Path(file).suffix))
