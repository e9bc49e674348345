"""Closed, full and unread outputs, a terminal that goes away, and texts that would command it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import finetune_ppo
import pretrain
import train_reward
from minippo.run.exits import launch
from minippo.run.flags import StageConfig
from minippo.tools import generate
from tests.outside import ROOT, environment
from tests.robustness.world import STAGES, arguments_of

# Windows has none
fcntl, pty = pytest.importorskip("fcntl"), pytest.importorskip("pty")

needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
FILES = {"config.json", "metrics.jsonl", "model.pt", "tokenizer.json"}


def opened(number):
    """sys.stdout or sys.stderr as Python makes it when it starts: None if it is closed."""
    try:
        fcntl.fcntl(number, fcntl.F_GETFD)
    except OSError:
        return None
    return open(number, "w", buffering=1 if number == 2 else -1, closefd=False, errors="backslashreplace")


def forked(prepare, run):
    """The exit status of run() in a fork, whose system streams prepare() has changed; 99: a traceback."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            prepare()
            sys.stdout, sys.stderr = opened(1), opened(2)
            run()
            status = 0
        except SystemExit as left:
            status = left.code or 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def close(*numbers):
    return lambda: [os.close(number) for number in numbers]


def full(number):
    return lambda: os.dup2(os.open("/dev/full", os.O_WRONLY), number)


def unread(number):
    def prepare():
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, number)
    return prepare


CASES = [(close(1), 4), (close(2), 4), (close(0, 1, 2), 4), (unread(1), 141), (unread(2), 141),
         pytest.param(full(1), 4, marks=needs_full), pytest.param(full(2), 4, marks=needs_full)]


@pytest.mark.parametrize("prepare, status", CASES)
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_whose_output_is_lost_trains_saves_and_says_so_by_its_status(place, stage, prepare, status):
    script = STAGES[stage][0]
    arguments = arguments_of(stage, "new")
    assert forked(prepare, lambda: launch(script.main, script.Config, "", arguments)) == status
    assert {path.name for path in (place / "new").iterdir()} >= FILES
    for name in ("model.pt", "tokenizer.json"):   # to the byte as with somebody who reads
        assert (place / "new" / name).read_bytes() == (place / stage / name).read_bytes()
    rows = [json.loads(line) for line in (place / "new/metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == list(range(len(rows))) and rows


def test_a_file_of_a_run_never_gets_the_number_of_a_closed_stream(tmp_path):
    def main(config):
        with open(tmp_path / "model.pt", "w"):
            os.write(2, b"stopping")   # as the note of a signal

    assert forked(close(0, 1, 2), lambda: launch(main, StageConfig, "", [])) == 2   # EBADF
    assert (tmp_path / "model.pt").read_bytes() == b""


@pytest.mark.slow
@pytest.mark.parametrize("redirections, status", [
    ("2>&1 >&-", 4), (">&- 2>&-", 4), pytest.param("> /dev/full 2> /dev/full", 4, marks=needs_full)])
def test_the_interpreter_s_own_end_adds_no_traceback_and_no_other_status(place, redirections, status):
    command = [sys.executable, str(ROOT / "pretrain.py"), *arguments_of("pretrain", "new")]
    done = subprocess.run(["sh", "-c", f'"$@" {redirections}', "sh", *command], cwd=place, text=True,
                          capture_output=True, env=environment())
    assert done.returncode == status and "Traceback" not in done.stdout + done.stderr
    assert "Exception ignored" not in done.stdout + done.stderr
    assert (place / "new/model.pt").read_bytes() == (place / "pretrain/model.pt").read_bytes()


# ---------------------------------------------------------------- a terminal that goes away

LONG = [*arguments_of("ppo", "new"), "--iterations", "100000", "--save-every", "1000"]


def wait_for(path):
    end = time.monotonic() + 60
    while not (path.exists() and path.stat().st_size):
        assert time.monotonic() < end, "it does not begin"
        time.sleep(0.02)


def train_on_a_terminal(ignored):
    """A long run of stage 3 in a process that leads a terminal of its own: its pid, and our end of it."""
    pid, terminal = pty.fork()
    if pid == 0:
        status = 99
        try:
            signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
            sys.stdout, sys.stderr = opened(1), opened(2)
            launch(finetune_ppo.main, finetune_ppo.Config, "", LONG)
        except SystemExit as left:
            status = left.code
        finally:
            os._exit(status)
    return pid, terminal


def test_a_run_whose_terminal_is_closed_saves_and_stops(place):
    pid, terminal = train_on_a_terminal(ignored=False)
    wait_for(place / "new/metrics.jsonl")
    os.close(terminal)   # the system sends SIGHUP, and nothing can be written any more
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert (place / "new/state.pt").exists()


def test_a_run_under_nohup_goes_on_without_its_terminal(place):
    pid, terminal = train_on_a_terminal(ignored=True)
    record = place / "new/metrics.jsonl"
    wait_for(record)
    os.close(terminal)
    before = record.stat().st_size
    end = time.monotonic() + 60
    while record.stat().st_size < before + 20_000:   # dozens of iterations later
        assert time.monotonic() < end and os.waitpid(pid, os.WNOHANG)[0] == 0
        time.sleep(0.02)
    os.kill(pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130


# ---------------------------------------------------------------- texts that would command a terminal

EVIL = "\x1b]0;evil\x07\x9b2J\u202e"
LETTERS = r"\x1b]0;evil\x07\x9b2J\u202e"


def shown(capsys, script, arguments):
    """What a command prints, both streams; it may end well or not."""
    try:
        launch(script.main, script.Config, "", arguments)
    except SystemExit:
        pass
    text = "".join(capsys.readouterr())
    assert not set(text) & set(EVIL) - set("]0;evil2J"), text
    return text


def test_a_prompt_and_what_a_model_makes_of_it_are_shown_in_letters(place, capsys):
    text = shown(capsys, generate, ["--model", "ppo", "--prompt", EVIL, "--n", "3", "--device", "cpu",
                                    "--length", "8"])
    assert text.count(LETTERS) == 3 and text.count("\n") == 3   # a line a text


def test_settings_of_a_file_are_shown_in_letters(place, capsys):
    path = place / "pretrain/config.json"
    about = json.loads(path.read_text())
    about["settings"]["data"] = EVIL
    path.write_text(json.dumps(about))
    assert f"--data {LETTERS}" in shown(capsys, train_reward, arguments_of("reward", "new"))


def test_names_of_files_and_columns_are_shown_in_letters(place, capsys):
    assert LETTERS in shown(capsys, pretrain, ["--data", EVIL + ".csv"])
    head, *rows = (place / "data.csv").read_text().splitlines()
    lines = [f"{head},{EVIL}", *(f"{row},x" for row in rows)]
    (place / "columns.csv").write_text("\n".join(lines), encoding="utf-8")
    text = shown(capsys, pretrain, [*arguments_of("pretrain", "new"), "--data", "columns.csv"])
    assert LETTERS.lower() in text   # names of columns are compared in lower case


def test_texts_that_a_model_has_learned_are_shown_in_letters(place, capsys):
    lines = [f"{EVIL} {EVIL} {i}" for i in range(300)]
    (place / "evil.txt").write_text("\n".join(lines), encoding="utf-8")
    text = shown(capsys, pretrain, [*arguments_of("pretrain", "new"), "--data", "evil.txt", "--samples", "9"])
    assert r"\x1b" in text   # of the prompts at least
