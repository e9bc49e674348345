"""A stage's folder: what it holds, and whether a run may write there."""

import os
import sys
from pathlib import Path

from minippo.run import checkpoint
from minippo.run.errors import UserError
from minippo.run.files import check_replaceable, hold
from minippo.run.flags import settings

FINISHED, UNFINISHED = "a finished run", "an unfinished run"
WITH_RESUME = {FINISHED: "keep it with --resume, ", UNFINISHED: "go on with --resume, "}


def claim(folder):
    """Make the folder, and keep other processes from it: until the file that is returned is closed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return hold(folder / "metrics.jsonl")
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be written ({error.strerror}); "
                        "name another folder") from None


def read_from(config):
    """Folders of models that a run with these flags begins with. (With --score --reward is empty.)"""
    return [folder for name in ("model", "reward") if (folder := getattr(config, name, ""))]


def check_free(folder, config):
    """UserError unless a run with these flags may write to a folder; SystemExit if it is done.

    Nothing is emptied, nor any time spent, where a link or a folder stands in the way of a file.
    """
    if not config.out.strip():
        raise UserError("--out is empty; name a folder")
    if os.path.realpath(folder) in map(os.path.realpath, read_from(config)):
        raise UserError(f"--out {folder} is also read from; name another folder")
    found = held_by(folder)
    if found == FINISHED and config.resume:
        leave_finished(folder, config)
    for name in ("metrics.jsonl", *checkpoint.FILES):
        check_replaceable(folder / name)
        check_replaceable(folder / f"{name}.part")   # as write_atomically calls it
    if found and not (config.overwrite or (config.resume and found in WITH_RESUME)):
        raise UserError(f"--out {folder} holds {found}: {WITH_RESUME.get(found, '')}"
                        "delete it with --overwrite, or name another --out")


def leave_finished(folder, config):
    """SystemExit 0: the run is done; UserError if these flags ask for another one."""
    before = checkpoint.read_config(folder)["settings"]
    checkpoint.check_settings(folder, before, settings(config))
    for name in read_from(config):
        if finished_at(name) > finished_at(folder):
            print(f"note: {name} is newer than {folder}; --overwrite makes it anew", file=sys.stderr)
    print(f"{folder}: finished already")
    sys.exit(0)


def held_by(folder):
    """FINISHED, UNFINISHED, or the name of a file that is left in the folder, "" if none."""
    there = {name for name in checkpoint.FILES
             if os.path.exists(folder / name)}   # Path.exists raises for a name too long
    record = folder / "metrics.jsonl"
    begun = os.path.exists(record) and record.stat().st_size > 0
    if "state.pt" in there or (begun and not there):
        return UNFINISHED
    if {"config.json", "model.pt", "tokenizer.json"} <= there:
        return FINISHED
    return min(there, default="")


def finished_at(folder):
    """When the run in a folder was finished, seconds since 1970; 0 if it is not there."""
    path = Path(folder) / "config.json"
    return path.stat().st_mtime if path.exists() else 0.0


def note_other_data(config):
    """Say on stderr if the model to begin with was trained on other data than --data."""
    before = checkpoint.read_config(config.model)["settings"].get("data")
    if before not in (None, config.data):
        print(f"note: {config.model} was trained on --data {before}, not on {config.data}; "
              "unless you mean that, give the same", file=sys.stderr)
