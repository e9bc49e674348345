"""A few hundred made-up inputs for each target of tests/robustness/fuzz.py, and the hunt itself."""

import time

import pytest

from minippo.run.errors import UserError
from tests.robustness.posix import posix

pytest.importorskip("hypothesis")
pytestmark = posix   # the hunt's patience is an alarm
fuzz = pytest.importorskip("tests.robustness.fuzz")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return fuzz.prepared(tmp_path_factory.mktemp("world"))


CHEAP = (".txt", ".csv", ".tsv", ".jsonl", "command line", "encode", "decode", "state.pt")


@pytest.mark.parametrize("target", list(fuzz.TARGETS))
def test_made_up_input_is_accepted_or_refused_and_nothing_else(place, target):
    examples = 200 if target in CHEAP else 60
    counts = fuzz.hunt(target, place, examples, number=0)
    assert sum(counts.values()) >= examples and counts["refused"] > 0


@pytest.fixture
def target(monkeypatch):
    """A target of one's own: a function that makes it of a trial."""
    def make(trial):
        monkeypatch.setitem(fuzz.TARGETS, "mine", (fuzz.st.integers(0, 99), trial))
        return "mine"
    return make


def refuse_odd(place, number):
    if number % 2:
        raise UserError("odd")


def test_the_hunt_counts_what_is_accepted_and_refused_the_same_for_a_seed(target):
    counts = [fuzz.hunt(target(refuse_odd), None, 50, number) for number in (1, 1)]
    assert counts[0] == counts[1] and set(counts[0]) == {"accepted", "refused"}
    assert sum(counts[0].values()) == 50


def fail_at_7(place, number):
    assert number != 7


def two_lines(place, number):
    error = UserError("one")
    error.args = ("one\ntwo",)
    raise error


@pytest.mark.parametrize("trial, error", [(fail_at_7, AssertionError), (two_lines, AssertionError),
                                          (lambda place, number: 1 / number, ZeroDivisionError)])
def test_the_hunt_ends_at_a_bug(target, trial, error):
    with pytest.raises(error):
        fuzz.hunt(target(trial), None, 1000, 0)


def test_what_takes_too_long_is_a_bug(target, monkeypatch):
    monkeypatch.setattr(fuzz, "PATIENCE", 1)
    with pytest.raises(fuzz.Hang, match="no answer in 1 s"):
        fuzz.hunt(target(lambda place, number: time.sleep(9)), None, 5, 0)


def test_the_report_has_a_line_a_target(capsys):
    fuzz.main(["--examples", "20", "--only", "decode", ".txt"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all("20 inputs" in line for line in lines)
    assert lines[0].split(":")[0].strip() == "decode"
