"""The folder that a model is written to."""

import os
from pathlib import Path

from minippo.run.errors import UserError
from minippo.run.files import check_replaceable


def check_out(config, names):
    """UserError unless files of these names may be written to --out: said before anything takes time.

    config   has out, model, a folder that is read, and overwrite
    """
    if not config.out.strip():
        raise UserError("--out is empty; name a folder")
    folder = Path(config.out)
    if os.path.realpath(folder) == os.path.realpath(config.model):
        raise UserError(f"--out {folder} is also read from; name another folder")
    if os.path.isdir(folder) and os.listdir(folder) and not config.overwrite:
        raise UserError(f"--out {folder} is not empty; replace what is there by --overwrite, or name another "
                        "folder")
    for name in names:
        check_replaceable(folder / name)
        check_replaceable(folder / f"{name}.part")   # as write_atomically calls it
