"""A script whose output is lost works to its end, and its status says so."""

import errno
import io
import sys
from dataclasses import dataclass

import pytest

from minippo.run.commands import main as minippo
from minippo.run.errors import UserError
from minippo.run.exits import launch, screens
from minippo.run.flags import StageConfig


@dataclass
class Tool:
    pass


class Dead(io.StringIO):
    """A stream of which nothing can be written; `number` is the reason."""

    def __init__(self, number=errno.ENOSPC):
        super().__init__()
        self.number = number

    def write(self, text):
        raise OSError(self.number, "No space left on device")   # of EPIPE: a BrokenPipeError


def talk(done):
    """A main that prints to both streams before it has done its work."""
    def main(config):
        print("result")
        print("note", file=sys.stderr)
        done.append(1)
    return main


@pytest.mark.parametrize("config_class", [Tool, StageConfig])
@pytest.mark.parametrize("name", ["stdout", "stderr"])
@pytest.mark.parametrize("dead", [Dead, lambda: None])
def test_what_cannot_be_written_stops_nothing_and_the_status_is_4(
        monkeypatch, capsys, config_class, name, dead):
    monkeypatch.setattr(sys, name, dead())
    done = []
    with pytest.raises(SystemExit) as left:
        launch(talk(done), config_class, "A test.", [])
    assert done and left.value.code == 4
    out, err = capsys.readouterr()
    if name == "stderr":
        assert (out, err) == ("result\n", "")   # nobody hears of it but by the status
    else:
        assert err.startswith("note\nerror: some output could not be written (") and err.count("\n") == 2


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_when_nobody_reads_a_stage_works_to_its_end_and_a_tool_stops(monkeypatch, name):
    for config_class, finishes in ((StageConfig, True), (Tool, False)):
        monkeypatch.setattr(sys, name, Dead(errno.EPIPE))
        done = []
        with pytest.raises(SystemExit) as left:
            launch(talk(done), config_class, "A test.", [])
        assert bool(done) == finishes and left.value.code == 141


@pytest.mark.parametrize("error, status", [(UserError("a mistake"), 2), (KeyboardInterrupt(), 130)])
def test_another_status_is_not_hidden_by_lost_output(monkeypatch, error, status):
    monkeypatch.setattr(sys, "stderr", Dead())
    with pytest.raises(SystemExit) as left:
        def main(config):
            raise error
        launch(main, Tool, "A test.", [])
    assert left.value.code == status


def test_a_help_that_cannot_be_written_has_status_4(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Dead())
    for command in (lambda: launch(talk([]), Tool, "A test.", ["--help"]), minippo):
        monkeypatch.setattr("sys.argv", ["minippo"])
        with pytest.raises(SystemExit) as left:
            command()
        assert left.value.code == 4
    assert capsys.readouterr().err.count("some output could not be written") == 2


def test_all_well_is_no_exit_and_the_streams_are_as_before(capsys):
    before = sys.stdout, sys.stderr
    launch(talk([]), Tool, "A test.", [])
    with pytest.raises(SystemExit) as left, screens():
        assert sys.stdout is not before[0]
        sys.exit(0)
    assert not left.value.code and (sys.stdout, sys.stderr) == before
    assert capsys.readouterr() == ("result\n", "note\n")


class DeadLate(io.StringIO):
    """A buffer that nobody empties any more."""

    def flush(self):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


@pytest.mark.parametrize("dead", [Dead, DeadLate])
def test_a_bug_is_not_hidden_by_lost_output(monkeypatch, dead):
    monkeypatch.setattr(sys, "stdout", dead())

    def main(config):
        print("result")
        raise ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError, match="a bug"):
        launch(main, Tool, "A test.", [])


def test_what_nobody_reads_at_the_very_end_is_lost_too(monkeypatch):
    monkeypatch.setattr(sys, "stdout", DeadLate())
    with pytest.raises(SystemExit) as left:
        launch(talk([]), Tool, "A test.", [])
    assert left.value.code == 141


def test_whatever_a_script_prints_its_control_characters_are_letters(capsys):
    def main(config):
        print("a\x1b[2Jb")
        print("note: \x9b2J", file=sys.stderr)
        raise UserError("\x1b]0;title\x07")
    with pytest.raises(SystemExit):
        launch(main, Tool, "A test.", [])
    assert capsys.readouterr() == ("a\\x1b[2Jb\n", "note: \\x9b2J\nerror: \\x1b]0;title\\x07\n")


def test_an_unknown_flag_or_command_is_named_in_letters(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        launch(talk([]), Tool, "A test.", ["--\x1b[2J"])
    monkeypatch.setattr("sys.argv", ["minippo", "dance\x1b[2J"])
    with pytest.raises(SystemExit):
        minippo()
    err = capsys.readouterr().err
    assert "--\\x1b[2J" in err and "error: dance\\x1b[2J: no such command" in err and "\x1b" not in err
