"""Which signals stop a run, and which of them a second time."""

import os
import signal

import pytest

from minippo.run.checkpoint import load_tensors
from minippo.run.exits import launch
from minippo.run.signals import STOPPING, deferred_signals
from tests.robustness.posix import posix
from tests.run.test_exits import Tool
from tests.run.walk import corpus, values, walk

HANGUP = getattr(signal, "SIGHUP", None)
pytestmark = posix


@pytest.fixture(autouse=True)
def heeded():
    """Nothing is ignored, whoever runs the tests; afterwards all is as before."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in STOPPING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(*numbers):
    for number in numbers:
        os.kill(os.getpid(), number)


def test_ctrl_c_sigterm_and_a_closed_terminal_stop():
    assert STOPPING == [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", STOPPING)
@pytest.mark.parametrize("ignored", [False, True])
def test_a_script_stops_with_status_130_unless_the_signal_is_ignored(number, ignored, capsys):
    signal.signal(number, signal.SIG_IGN if ignored else signal.default_int_handler)
    if not ignored and number != signal.SIGINT:
        signal.signal(number, signal.SIG_DFL)   # as a shell starts it
    done = []

    def main(config):
        send(number)
        done.append(1)
    if ignored:   # as under nohup
        launch(main, Tool, "A test.", [])
        return
    with pytest.raises(SystemExit) as left:
        launch(main, Tool, "A test.", [])
    assert not done and left.value.code == 130 and capsys.readouterr().err == "error: stopped\n"


def test_a_closed_terminal_lets_the_iteration_end_and_saves(tmp_path):
    corpus(tmp_path)
    clean = walk(tmp_path / "clean", 6, data=str(tmp_path / "rows.txt")), values(tmp_path / "clean")
    for last, sent in ((2, (HANGUP, HANGUP)), (4, (signal.SIGTERM, HANGUP))):   # as a session ends
        with pytest.raises(KeyboardInterrupt):
            walk(tmp_path, 6, stop=lambda i: i == last and send(*sent), save_every=1e9, resume=True)
        assert load_tensors(tmp_path / "state.pt")["iteration"] == last + 1   # the second has cut off nothing
    assert (walk(tmp_path, 6, resume=True), values(tmp_path)) == clean


@pytest.mark.parametrize("first, second", [(signal.SIGINT, signal.SIGINT), (HANGUP, signal.SIGTERM)])
def test_whoever_asks_again_is_obeyed_at_once(first, second):
    with pytest.raises(KeyboardInterrupt), deferred_signals() as noted:
        send(first)
        assert noted == [first]
        send(second)


def test_a_note_that_nobody_can_read_is_no_error(monkeypatch):
    def write(number, text):
        raise OSError(5, "Input/output error")   # of a terminal that is gone
    with deferred_signals() as noted:
        monkeypatch.setattr(os, "write", write)
        send(HANGUP)
        monkeypatch.undo()
    assert noted == [HANGUP]


def test_a_second_hangup_does_not_reach_the_message_of_the_first(capsys):
    signal.signal(HANGUP, signal.SIG_DFL)

    def main(config):
        try:
            send(HANGUP)
        finally:
            send(HANGUP)   # the system's, while what the shell's began is still going on
    with pytest.raises(SystemExit) as left:
        launch(main, Tool, "A test.", [])
    assert left.value.code == 130 and capsys.readouterr().err == "error: stopped\n"


def test_a_second_hangup_after_the_loop_that_noted_the_first_is_none():
    with deferred_signals() as noted:
        send(HANGUP)
    send(HANGUP)
    assert noted == [HANGUP]
