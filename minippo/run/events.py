"""The record a second time, as event files for TensorBoard: OUT/tensorboard. (The package is optional.)"""

import os
import stat
from pathlib import Path

from minippo.run.errors import UserError

FOLDER, OURS = "tensorboard", ".minippo"   # how the names of our event files end: no other is deleted


def check(folder):
    """UserError unless event files can be written for a run in a folder: package and place are there."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: F401
    except ImportError as error:
        raise UserError(f"--tensorboard needs the package tensorboard ({error}): pip install tensorboard, "
                        "or leave the flag out") from None
    path = Path(folder) / FOLDER
    if os.path.lexists(path) and not _is_folder(path):
        raise UserError(f"{path}: no folder, but event files are to be written there; move it away, "
                        "or name another --out")


def writer(folder, begin):
    """What event files are written with. TensorBoard drops what earlier ones say of iteration `begin` on."""
    from torch.utils.tensorboard import SummaryWriter
    check(folder)
    return SummaryWriter(str(Path(folder) / FOLDER), purge_step=begin, filename_suffix=OURS)


def clear(folder):
    """Delete the event files that runs in a folder wrote; not what a link leads to, not other files."""
    path = Path(folder) / FOLDER
    if _is_folder(path):
        for file in path.glob(f"events.out.tfevents.*{OURS}"):
            if stat.S_ISREG(os.lstat(file).st_mode):
                file.unlink()


def _is_folder(path):
    """Whether it is a folder itself, and no link to one."""
    return os.path.isdir(path) and not os.path.islink(path)
