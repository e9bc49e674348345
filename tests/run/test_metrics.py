"""The record of a run, under a clock that the test turns."""

import io
import json
import math
import sys
from types import SimpleNamespace

import pytest

from minippo.run import metrics
from minippo.run.metrics import Metrics, clock
from minippo.run.terminal import Screen

TIMES = [100, 104, 113, 115, 120]   # the start, then the end of each of four iterations


@pytest.fixture
def turned_clock(monkeypatch):
    monkeypatch.setattr(metrics, "time", SimpleNamespace(perf_counter=iter(TIMES).__next__))


def record(folder):
    """Four iterations of 40 tokens, scores 0.5, 1.5, 2.5, 3.5; returns metrics.jsonl's lines."""
    log = Metrics(folder, 4, {"score": "objective/scores"})
    for iteration in range(4):
        log.log(iteration, {"objective/scores": iteration + 0.5, "objective/kl": 0.25}, tokens=40)
    log.close()
    return (folder / "metrics.jsonl").read_text().splitlines()


def test_each_iteration_is_one_json_object(tmp_path, turned_clock):
    lines = [json.loads(line) for line in record(tmp_path)]
    assert lines[2] == {"iteration": 2, "objective/scores": 2.5, "objective/kl": 0.25,
                        "time/seconds": 15, "time/tokens_per_second": 20}
    assert [line["iteration"] for line in lines] == [0, 1, 2, 3]
    assert [line["time/seconds"] for line in lines] == [4, 13, 15, 20]


def test_lines_are_on_disk_while_the_run_goes_on(tmp_path, turned_clock):
    log = Metrics(tmp_path, 4, {})
    log.log(0, {"objective/kl": 0.25}, tokens=40)
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["objective/kl"] == 0.25
    log.close()


def test_a_pipe_gets_plain_lines_the_first_the_last_and_one_every_ten_seconds(
        tmp_path, turned_clock, capsys):
    record(tmp_path)
    assert capsys.readouterr().err == (
        "     1/4  score 0.500  10 tokens/s  0:12 left\n"    # 4 seconds an iteration, three to come
        "     3/4  score 2.500  20 tokens/s  0:05 left\n"    # 11 s later (the 2nd: 9); 15 / 3 * 1
        "     4/4  score 3.500  8 tokens/s  0:00 left\n")


def test_a_terminal_gets_one_line_that_is_rewritten(tmp_path, turned_clock, monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", screen)
    record(tmp_path)
    assert screen.getvalue().count("\r\033[K") == 4
    assert screen.getvalue().count("\n") == 1 and screen.getvalue().endswith("0:00 left\n")


def test_on_a_screen_the_line_is_rewritten_too(tmp_path, turned_clock, monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", Screen(screen, stops=False))
    record(tmp_path)
    assert screen.getvalue().count("\r\033[K") == 4 and "\\x1b" not in screen.getvalue()


def test_a_line_that_cannot_be_shown_stops_no_run(tmp_path, turned_clock, monkeypatch):
    monkeypatch.setattr("sys.stderr", Screen(None, stops=False))
    assert len(record(tmp_path)) == 4
    assert sys.stderr.lost
    sys.stderr.stream.close()


def test_a_clock_shows_minutes_and_seconds():
    assert [clock(s) for s in (0, 59.9, 60, 3725)] == ["0:00", "0:59", "1:00", "62:05"]


def test_what_is_not_finite_is_null_for_json_has_no_infinity(tmp_path):
    log = Metrics(tmp_path, 1, {})
    log.log(0, {"ppo/policy/ratio": math.inf}, tokens=40)
    log.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["ppo/policy/ratio"] is None
