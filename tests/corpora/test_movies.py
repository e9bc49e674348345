"""The movie snippets: fetched once, checked, joined by id; no test needs a network."""

import hashlib
import io
import os
import subprocess
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from minippo.corpora import movies
from minippo.corpora.read import read
from minippo.corpora.rows import Row
from minippo.run.errors import UserError
from tests.robustness.posix import posix


def complaint(cache):
    """The one line that says why the snippets cannot be had."""
    with pytest.raises(UserError) as caught:
        read("movies", cache)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def tar(**members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


TEXTS = "1\t0.5\tA gem\t indeed.\r\n2\t-1.0\tToo long    caf\u00e9s".encode()
VOTES = b"2\t-1.0\t0.8\t[0, -2]\r\n1\t0.5\t0.5\t[1, 0]"  # another order: joined by id


@pytest.fixture
def internet(monkeypatch):
    """A pip that writes what `internet.archive` is; counts how often it was asked."""
    names = (movies.SNIPPETS + "GroundTruth.txt", movies.SNIPPETS + "anonDataRatings.txt")
    archive = tar(**{movies.INNER: tar(**dict(zip(names, (TEXTS, VOTES))))})
    internet = SimpleNamespace(archive=archive, asked=0)

    def download(folder):
        internet.asked += 1
        (folder / movies.ARCHIVE).write_bytes(internet.archive)

    monkeypatch.setattr(movies, "_download", download)
    monkeypatch.setattr(movies, "SHA256", hashlib.sha256(archive).hexdigest())
    return internet


def test_movie_snippets_are_joined_with_their_votes_by_id(tmp_path, internet):
    assert read("movies", cache=tmp_path) == [
        Row("movies-1", "a gem indeed.", (1.0, 0.0)),
        Row("movies-2", "too long caf\u00e9s", (0.0, -2.0)),
    ]


def test_the_archive_is_fetched_once(tmp_path, internet):
    cache = tmp_path / "not" / "yet"
    assert read("movies", cache) == read("movies", str(cache))
    assert internet.asked == 1
    assert [path.name for path in cache.iterdir()] == [movies.ARCHIVE]


def test_a_corrupt_file_in_the_cache_is_fetched_anew(tmp_path, internet):
    (tmp_path / movies.ARCHIVE).write_bytes(internet.archive[:-1])
    assert len(read("movies", tmp_path)) == 2 and internet.asked == 1
    assert (tmp_path / movies.ARCHIVE).read_bytes() == internet.archive


@posix
@pytest.mark.parametrize("make", [lambda path: os.mkfifo(path), lambda path: path.symlink_to("/dev/zero")],
                         ids=["fifo", "device"])
def test_a_pipe_or_a_device_in_the_cache_is_not_waited_for(tmp_path, internet, make):
    make(tmp_path / movies.ARCHIVE)
    message = complaint(tmp_path)
    assert "no regular file but a pipe or a device" in message and "MINIPPO_CACHE may name another" in message
    assert internet.asked == 0


def test_an_archive_of_gigabytes_is_refused_unread(tmp_path, internet):
    (tmp_path / movies.ARCHIVE).touch()
    os.truncate(tmp_path / movies.ARCHIVE, 2**34)
    assert "17,179,869,184 bytes, more than the 67,108,864" in complaint(tmp_path)


def test_a_wrong_hash_leaves_no_file_behind(tmp_path, internet):
    (tmp_path / movies.ARCHIVE).write_bytes(b"corrupt, too")
    internet.archive += b"!"
    assert "wrong sha256" in complaint(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_cache_follows_its_variables(tmp_path, internet, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("MINIPPO_CACHE", raising=False)
    read("movies")
    assert (tmp_path / "xdg" / "minippo" / movies.ARCHIVE).exists()
    monkeypatch.setenv("MINIPPO_CACHE", str(tmp_path / "own"))
    read("movies")
    assert (tmp_path / "own" / movies.ARCHIVE).exists()


def test_a_cache_that_cannot_be_written_is_an_error_in_one_line(tmp_path, internet):
    occupied = tmp_path / "occupied"
    occupied.write_text("a file, not a folder")
    message = complaint(occupied / "x")
    assert "MINIPPO_CACHE" in message and "--data toy" in message


def late(*command, timeout, **streams):
    raise subprocess.TimeoutExpired("pip", timeout)


def failed(stderr):
    return lambda *command, **streams: subprocess.CompletedProcess("pip", 1, "", stderr)


@pytest.mark.parametrize(
    "pip, part",
    [
        (late, "no answer from pip in 300 s"),
        (failed("WARNING: retrying\nERROR: no match\n"), "(ERROR: no match)"),
        (failed("python: No module named pip"), "No module named pip"),
        (failed(""), "pip left with status 1"),
    ],
)
def test_without_pip_or_network_the_alternatives_are_named(tmp_path, monkeypatch, pip, part):
    monkeypatch.setattr(movies.subprocess, "run", pip)
    message = complaint(tmp_path)
    assert part in message and "--data toy" in message and "--data FILE" in message
    assert list(tmp_path.iterdir()) == []


def test_pip_checks_the_hash_before_it_runs_anything_of_the_archive(tmp_path, monkeypatch):
    def run(command, **streams):
        wanted = Path(command[command.index("--requirement") + 1]).read_text()
        assert wanted == f"vaderSentiment==3.3.2 --hash=sha256:{movies.SHA256}\n"
        assert "--no-deps" in command and "--no-binary" in command
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(movies.subprocess, "run", run)
    movies._download(tmp_path)


def test_the_real_snippets_are_those_of_the_paper():
    try:
        rows = read("movies")
    except UserError as error:
        pytest.skip(str(error))
    # counted in the two files with sort, cut and grep
    assert len(rows) == len({row.id for row in rows}) == 10605
    assert sum(row.rating > 0 for row in rows) == 5242
    assert sum(row.rating < 0 for row in rows) == 5326
    assert {len(row.votes) for row in rows} == set(range(15, 30))
    assert rows[2] == Row("movies-3", "effective but too tepid biopic", rows[2].votes)
    assert rows[2].rating == pytest.approx(-0.6)  # the file's own mean
