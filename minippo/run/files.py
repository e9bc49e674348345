"""Files: what is read is a regular one, what is written is whole, and no link leads it elsewhere."""

import contextlib
import errno
import os
import stat
from pathlib import Path

from minippo.run.errors import UserError

try:
    import fcntl
except ImportError:   # Windows: two runs in one folder are not kept apart there
    fcntl = None

NOFOLLOW, NONBLOCK = getattr(os, "O_NOFOLLOW", 0), getattr(os, "O_NONBLOCK", 0)   # 0 on Windows


def open_regular(path, limit):
    """A regular file (or what a link to one leads to), open for reading bytes.

    A pipe or a device, which may never end, is not waited for, and nothing of it is read.

    limit    bytes that the file may have: a larger one is none of ours, and reading it takes long
    Raises   OSError with a reason for people as its strerror: missing, no regular file, too large
    """
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | NONBLOCK))
    found = os.fstat(file.fileno())
    if stat.S_ISREG(found.st_mode) and found.st_size <= limit:
        return file
    file.close()
    if stat.S_ISREG(found.st_mode):
        raise OSError(errno.EFBIG, f"{found.st_size:,} bytes, more than the {limit:,} it may have", str(path))
    raise OSError(errno.EINVAL, "no regular file but a pipe or a device", str(path))


def read_regular(path, limit):
    """The bytes that a regular file has at this moment; limit and errors as in `open_regular`."""
    with open_regular(path, limit) as file:
        return file.read(os.fstat(file.fileno()).st_size)


def check_replaceable(path):
    """UserError unless path is free, or a regular file without a second name: all that a run writes.

    What is written to a link, or to one of two names of a file, is also written somewhere else.
    """
    try:
        found = os.lstat(path)
    except OSError:   # not there; or nobody may look, which is said when it is written
        return
    kinds = [(stat.S_ISLNK, "a link"), (stat.S_ISDIR, "a folder")]
    kind = next((name for test, name in kinds if test(found.st_mode)), "a pipe or a device")
    if stat.S_ISREG(found.st_mode):
        if found.st_nlink <= 1:
            return
        kind = "a file that has another name, too (a hard link)"
    raise UserError(f"{path}: {kind}, where a file of the run is to be; move it away, "
                    "or name another folder")


def write_atomically(path, content):
    """Bytes to a file that is, at every moment, either the old one or the new one, whole.

    A link of that name is replaced, and where it leads to nothing changes.

    Raises   UserError if the disk is full or the folder cannot be written; the old file stays
    """
    temporary = Path(f"{path}.part")
    try:
        temporary.unlink(missing_ok=True)       # a kill left it, or somebody put a link there
        with open(temporary, "xb") as file:     # made here and now: nothing that is there is opened
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(temporary.parent)
    except OSError as error:
        with contextlib.suppress(OSError):   # a folder, for example: the first error says more
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


def open_own(path):
    """A file of this run, opened for appending bytes; no link is followed."""
    return open(path, "ab", opener=lambda name, flags: os.open(name, flags | NOFOLLOW | NONBLOCK, 0o666))


def hold(path):
    """Open a file, and keep other processes from holding it until it is closed.

    Raises   UserError if another process holds it, or if it is not a file of this name alone;
             OSError if it cannot be written
    """
    check_replaceable(path)
    file = open_own(path)
    if fcntl:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise UserError(f"{path}: another run is writing it at this moment; wait until that "
                            "has ended, or name another --out") from None
    return file


def being_written(path):
    """Whether a process holds the file at this moment; False where the system cannot say (Windows)."""
    with open(path, "rb") as file:
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)   # let go when the file is closed, at once
        except BlockingIOError:
            return True
    return False


def unwritable(path, error):
    """The UserError for a file that could not be written."""
    return UserError(f"{path}: cannot be written ({error.strerror}); make room, or name "
                     "another folder; what was saved before is whole")
