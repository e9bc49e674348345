"""Draw score and KL of runs of stage 3, over the iterations (needs matplotlib)."""

import json
from dataclasses import dataclass
from pathlib import Path

from minippo.run.errors import UserError
from minippo.run.files import read_regular
from minippo.run.flags import option
from minippo.run.sizes import LARGEST_RECORD

PANELS = {"objective/scores": "mean score (reward model)", "objective/kl": "KL from the reference (nats)"}
GREY = "#808080"   # of letters and axes: can be read on white and on black


@dataclass
class Config:
    runs: str = option("runs/ppo", "folders of runs, with commas between them")
    out: str = option("curve.svg", "file to write; its ending says the format: .svg, .png, .pdf")


def main(config):
    """Write the figure: a panel per quantity, a line per run."""
    if not config.out.strip():
        raise UserError("--out is empty; name a file")
    records = {folder: record(Path(folder)) for folder in config.runs.split(",")}
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("this needs matplotlib: pip install matplotlib") from None
    figure = Figure(figsize=(8, 2.9), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)   # inches
    for axes, (key, title) in zip(figure.subplots(1, len(PANELS)), PANELS.items()):
        for name, rows in records.items():
            axes.plot([1 + row["iteration"] for row in rows], [row[key] for row in rows], label=name)
        axes.set_title(title, color=GREY)
        axes.set_xlabel("iteration", color=GREY)
        axes.tick_params(color=GREY, labelcolor=GREY)
        axes.spines[["left", "bottom"]].set_color(GREY)
        axes.spines[["top", "right"]].set_visible(False)
    if len(records) > 1:
        axes.legend(frameon=False, labelcolor=GREY)
    try:
        figure.savefig(config.out, transparent=True)
    except (OSError, ValueError) as error:   # no such folder, or no such format
        raise UserError(f"--out {config.out}: cannot be written ({error})") from None
    print(f"written: {config.out}")


def record(folder):
    """The rows of a run's metrics.jsonl, dicts; UserError if it is not one of stage 3."""
    path = folder / "metrics.jsonl"
    try:
        text = read_regular(path, LARGEST_RECORD).decode("utf-8")
        rows = [json.loads(line) for line in text.splitlines()]
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error}); name the folder of a run") from None
    if not rows or not all(isinstance(row, dict) and {"iteration", *PANELS} <= row.keys() for row in rows):
        raise UserError(f"{path}: no record of finetune_ppo.py; name a folder that it wrote")
    return rows
