"""Files: no pipe is waited for, no large file is read, and nothing is written through a link."""

import os
import time

import pytest

from minippo.run.errors import UserError
from minippo.run.files import (
    being_written,
    check_replaceable,
    hold,
    open_regular,
    read_regular,
    write_atomically,
)
from tests.robustness.posix import posix


@pytest.fixture
def far(tmp_path):
    """A file outside of the folder that is written to; nothing may change it."""
    (tmp_path / "far").write_bytes(b"far")
    yield tmp_path / "far"
    assert (tmp_path / "far").read_bytes() == b"far"


@pytest.fixture
def near(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


# Reading

def test_a_file_is_read_whole_and_so_is_what_a_link_leads_to(tmp_path, far):
    (tmp_path / "link").symlink_to(far)
    for name in ("far", "link"):
        assert read_regular(tmp_path / name, 3) == read_regular(str(tmp_path / name), 10**30) == b"far"
    with open_regular(tmp_path / "link", 3) as file:
        assert file.read(1) == b"f" and not file.closed
    (tmp_path / "empty").touch()
    assert read_regular(tmp_path / "empty", 0) == b""


def test_a_file_beyond_its_limit_is_refused_unread(tmp_path):
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(2**34)   # 16 GiB, none of them on the disk: to read them takes a minute
    start = time.monotonic()
    with pytest.raises(OSError) as caught:
        read_regular(tmp_path / "sparse", 2**34 - 1)
    assert caught.value.strerror == "17,179,869,184 bytes, more than the 17,179,869,183 it may have"
    assert caught.value.filename == str(tmp_path / "sparse") and time.monotonic() - start < 1


def strange(path, kind):
    """Put a thing at a path that is no regular file."""
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link to a fifo":
        os.mkfifo(f"{path}.fifo")
        path.symlink_to(f"{path}.fifo")
    else:
        path.symlink_to("/dev/zero")


@posix
@pytest.mark.parametrize("kind", ["fifo", "link to a fifo", "link to a device"])
def test_what_may_never_end_is_neither_waited_for_nor_read(tmp_path, kind):
    strange(tmp_path / "x", kind)
    with pytest.raises(OSError, match="no regular file but a pipe or a device"):
        read_regular(tmp_path / "x", 10)


def test_a_folder_and_nothing_are_errors_of_the_system(tmp_path):
    with pytest.raises(OSError):
        read_regular(tmp_path, 10)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none", 10)


# Writing

def in_the_way(path, far, kind):
    """Put at a path what leads to another file, or what is none."""
    {"link": lambda: path.symlink_to(far), "hard link": lambda: os.link(far, path),
     "dangling": lambda: path.symlink_to(far.parent / "new"), "folder": path.mkdir,
     "pipe": lambda: os.mkfifo(path)}[kind]()


KINDS = ["link", "hard link", "dangling", "folder", pytest.param("pipe", marks=posix)]


@pytest.mark.parametrize("kind", ["link", "hard link", "dangling", pytest.param("pipe", marks=posix)])
@pytest.mark.parametrize("name", ["model.pt", "model.pt.part"])
def test_a_link_is_replaced_and_what_it_leads_to_stays(near, far, name, kind):
    in_the_way(near / name, far, kind)
    write_atomically(near / "model.pt", b"new")
    assert (near / "model.pt").read_bytes() == b"new" and not (near / "model.pt").is_symlink()
    assert sorted(path.name for path in near.parent.rglob("*")) == ["far", "model.pt", "run"]


def test_what_a_kill_left_half_written_is_written_anew(near):
    (near / "model.pt.part").write_bytes(b"the longer half of it")
    write_atomically(near / "model.pt", b"new")
    assert [(path.name, path.read_bytes()) for path in near.iterdir()] == [("model.pt", b"new")]


@pytest.mark.parametrize("name", ["model.pt", "model.pt.part"])
def test_a_folder_in_the_way_is_one_error_and_nothing_is_left_of_the_new_file(near, name):
    (near / name / "inner").mkdir(parents=True)
    with pytest.raises(UserError, match="model.pt: cannot be written"):
        write_atomically(near / "model.pt", b"new")
    assert [path.name for path in near.iterdir()] == [name]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_a_file_has_the_permissions_that_any_new_file_has(near):
    before = os.umask(0o027)
    try:
        write_atomically(near / "model.pt", b"new")
        hold(near / "metrics.jsonl").close()
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in near.iterdir()] == [0o640, 0o640]   # 666 without 027


WORDS = {"link": "a link", "hard link": "another name, too (a hard link)", "dangling": "a link",
         "folder": "a folder", "pipe": "a pipe or a device"}


@pytest.mark.parametrize("refuse", [check_replaceable, hold])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_of_one_name_is_named(near, far, refuse, kind):
    in_the_way(near / "x", far, kind)
    with pytest.raises(UserError) as caught:
        refuse(near / "x")
    assert str(caught.value).startswith(f"{near / 'x'}: ") and WORDS[kind] in str(caught.value)
    assert "move it away, or name another folder" in str(caught.value)
    assert not (near.parent / "new").exists()


def test_a_file_and_nothing_can_be_replaced(near):
    check_replaceable(near / "none")
    check_replaceable(near / ("a" * 300))   # no system has such a name: whoever writes there is told
    hold(near / "x").close()
    check_replaceable(near / "x")
    with hold(near / "x") as file:   # and it is gone on with at its end
        file.write(b"a")
    with hold(near / "x") as file:
        file.write(b"b")
    assert (near / "x").read_bytes() == b"ab"


@posix
def test_a_file_is_being_written_while_a_process_holds_it_and_asking_holds_nothing(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with hold(path):
        assert being_written(path)
    assert not being_written(path)
    hold(path).close()   # the question has let go of it
