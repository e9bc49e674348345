"""Reading a run's folder: its record, also while it is being written, and what stands beside it."""

import json
from pathlib import Path

from minippo.run import checkpoint
from minippo.run.errors import UserError
from minippo.run.files import read_regular
from minippo.run.sizes import LARGEST_RECORD


def record(folder, *keys, script="finetune_ppo.py"):
    """The rows of a run's metrics.jsonl, dicts of numbers; None stands for NaN and infinity.

    A last line without its end is still being written, and left out.

    keys     what every row has to hold besides "iteration"
    Raises   UserError if there is no row, if a line is damaged, or if it is no record of `script`
    """
    path = Path(folder) / "metrics.jsonl"
    try:
        lines = read_regular(path, LARGEST_RECORD).decode("utf-8").split("\n")[:-1]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); name the folder of a run") from None
    rows = [_row(path, number, line) for number, line in enumerate(lines, 1)]
    if not rows:
        raise UserError(f"{path}: no iteration yet; wait for the first, or name another run")
    for row in rows:
        if missing := [key for key in ("iteration", *keys) if key not in row]:
            raise UserError(f"{path}: iteration {row.get('iteration')} has no {missing[0]}: no record of "
                            f"{script}, or of another version of it; name a folder that it wrote")
    return rows


def _row(path, number, line):
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or not all(x is None or is_number(x) for x in row.values()):
        raise UserError(f"{path}: line {number} is no row of numbers; the record is damaged: begin again "
                        "with --overwrite")
    return row


def is_number(x):
    """Whether x is a number to reckon with: a square overflows from 1e154 on; float32 ends at 3e38."""
    return type(x) in (int, float) and abs(x) < 1e100


def settings(folder):
    """The flags that a finished run was made with, a dict; {} for one that is not finished."""
    return _config(folder).get("settings", {})


def defaults(folder):
    """What these flags are without a command line, a dict; {} if the run is not finished, or kept none."""
    found = _config(folder).get("defaults")
    return found if isinstance(found, dict) else {}


def _config(folder):
    return checkpoint.read_config(folder) if (Path(folder) / "config.json").exists() else {}


def figures(folder, name="comparison.json"):
    """What stands in a run's comparison.json (or calibration.json), a dict; {} if it has none."""
    path = Path(folder) / name
    try:
        found = json.loads(read_regular(path, LARGEST_RECORD))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run the stage again") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: no figures by name; run the stage again")
    return found
