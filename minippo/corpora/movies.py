"""The default data: sentences of movie critics with real people's ratings, fetched once."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from minippo.corpora.rows import Row
from minippo.run.errors import UserError
from minippo.run.files import read_regular

ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
LARGEST = 2**26   # bytes of the archive; it has 15 times fewer
SNIPPETS = "hutto_ICWSM_2014/movieReviewSnippets_"


def movies(cache=None) -> list[Row]:
    """10,605 sentences of movie critics, each with the votes (-4 ... 4) of 15 to 29 people.

    cache    as in `read`; after the first download nothing here needs a network
    Raises   UserError if the archive can be neither found nor fetched
    Source   Hutto & Gilbert, "VADER", ICWSM 2014; the data is in the package's source archive
    """
    default = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    cache = cache or os.environ.get("MINIPPO_CACHE") or os.path.join(default, "minippo")
    inner, = _members(_archive(Path(cache)), INNER)
    found = _members(inner, SNIPPETS + "GroundTruth.txt", SNIPPETS + "anonDataRatings.txt")
    texts, ratings = (data.decode().splitlines() for data in found)
    votes = {id: json.loads(values) for id, _, _, values in (line.split("\t") for line in ratings)}
    rows = []
    for id, _, text in (line.split("\t", 2) for line in texts):
        text = " ".join(text.lower().split())  # dashes are blanked out: "comics    even those"
        rows.append(Row(f"movies-{id}", text, tuple(map(float, votes[id]))))
    return rows


def _members(archive, *names):
    """The bytes of files in a tar, read in memory: nothing is unpacked, no link is followed."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = {member.name: member for member in tar if member.isreg()}
        if missing := [name for name in names if name not in members]:
            raise _unfetched(f"{ARCHIVE} has no file {missing[0]}")
        return [tar.extractfile(members[name]).read() for name in names]


def _archive(cache):
    """The bytes of the archive: what will be opened is exactly what was checked."""
    place = cache / ARCHIVE
    try:
        if place.exists():
            data = read_regular(place, LARGEST)
            if hashlib.sha256(data).hexdigest() == SHA256:
                return data
            place.unlink()
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            _download(Path(folder))
            data = read_regular(Path(folder) / ARCHIVE, LARGEST)
            if hashlib.sha256(data).hexdigest() != SHA256:
                raise _unfetched(f"{ARCHIVE} has a wrong sha256")
            os.replace(Path(folder) / ARCHIVE, place)  # atomic, in case two runs start at once
        return data
    except OSError as error:
        raise _unfetched(f"{error}; MINIPPO_CACHE may name another folder") from error


def _download(folder, seconds=300):
    # pip runs the archive's setup.py to learn its metadata; the hash here is checked before that
    wanted = folder / "requirements.txt"
    wanted.write_text(f"vaderSentiment==3.3.2 --hash=sha256:{SHA256}\n")
    # not `--no-binary :all:`: that would build even the build tools from source
    options = "-m pip download -q --disable-pip-version-check --no-input --retries 2 --no-deps"
    command = [sys.executable, *options.split(), "--no-binary", "vaderSentiment"]
    command += ["--dest", str(folder), "--requirement", str(wanted)]
    streams = dict(stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    try:
        done = subprocess.run(command, timeout=seconds, **streams)
    except subprocess.TimeoutExpired:
        raise _unfetched(f"no answer from pip in {seconds} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"pip left with status {done.returncode}"]
        raise _unfetched(lines[-1])


def _unfetched(why):
    return UserError(
        f"cannot get the movie snippets ({why}): try again with a network, "
        "or use --data toy, or a file of your own, --data FILE"
    )
