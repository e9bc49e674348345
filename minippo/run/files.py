"""Writing files that neither a crash nor another process can halve."""

import contextlib
import os
from pathlib import Path

from minippo.run.errors import UserError

try:
    import fcntl
except ImportError:   # Windows: two runs in one folder are not kept apart there
    fcntl = None


def write_atomically(path, content):
    """Bytes to a file that is, at every moment, either the old one or the new one, whole.

    Raises   UserError if the disk is full or the folder cannot be written; the old file stays
    """
    temporary = Path(f"{path}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(temporary.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise unwritable(path, error) from None


def sync_folder(folder):
    """Make a renaming last through a power cut, where the system lets folders be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def hold(path):
    """Open a file, and keep other processes from holding it until it is closed.

    Raises   UserError if another process holds it; OSError if it cannot be written
    """
    file = open(path, "ab")
    if fcntl:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise UserError(f"{path}: another run is writing it at this moment; wait until that "
                            "has ended, or name another --out") from None
    return file


def unwritable(path, error):
    """The UserError for a file that could not be written."""
    return UserError(f"{path}: cannot be written ({error.strerror}); make room, or name "
                     "another folder; what was saved before is whole")
