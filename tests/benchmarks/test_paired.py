"""The stopwatch: which pairs count, what is reported of them, when two sides are the same."""

import json

import pytest
import torch

from benchmarks import paired
from benchmarks.paired import PairedConfig, agree, compare, crowding, moved, rounds, say, short, spread
from minippo.run.errors import UserError

QUIET = (100.0, 0.6)   # rate of products, crowding


@pytest.fixture
def looks(monkeypatch):
    """What the machine looks like, from the first look on; quiet after the last of the list."""
    coming = []
    monkeypatch.setattr(paired, "look", lambda: coming.pop(0) if coming else QUIET)
    return coming


def settings(**changes):
    return PairedConfig(**dict(pairs=5, warm_up=0, spare=3) | changes)


def test_every_second_pair_is_turned_round(looks):
    order = []
    compare(lambda: order.append("ours"), lambda: order.append("theirs"), settings())
    assert order[:4] == ["ours", "theirs", "theirs", "ours"] and len(order) == 10


def test_a_pair_during_which_the_machine_slowed_down_is_repeated(looks):
    looks += [QUIET, (84.0, 0.6), QUIET]   # 16 % below the others, the gate is 15 %
    found = compare(lambda: None, lambda: None, settings())
    assert found["thrown_away"] == 1 and found["pairs"] == 5


def test_a_pair_within_the_gate_counts(looks):
    looks += [QUIET, (86.0, 0.6), QUIET]
    assert compare(lambda: None, lambda: None, settings())["thrown_away"] == 0


def test_a_pair_that_is_slow_from_beginning_to_end_is_fair_and_counts(looks):
    looks += [QUIET] * 3 + [(50.0, 0.6)] * 3
    assert compare(lambda: None, lambda: None, settings())["thrown_away"] == 0


def test_a_steady_load_is_no_quiet_machine(looks):
    looks += [(50.0, 150.0)] * 100   # the rate does not move at all
    with pytest.raises(UserError, match="too noisy: 4 of 4 rounds"):
        compare(lambda: None, lambda: None, settings())


def test_warm_up_does_not_count(looks):
    calls = []
    good, _ = rounds([lambda: calls.append(1)], settings(warm_up=2))
    assert len(calls) == 7 and len(good) == 5


def test_times_faster_is_theirs_divided_by_ours_in_either_order(looks, monkeypatch):
    now = [0.0]

    def takes(seconds):
        now[0] += seconds
    monkeypatch.setattr(paired.time, "perf_counter", lambda: now[0])
    found = compare(lambda: takes(2), lambda: takes(6), settings())
    assert found["times_faster"] == {"median": 3.0, "min": 3.0, "max": 3.0}
    assert found["ours_seconds"]["max"] == 2.0 and found["theirs_seconds"]["min"] == 6.0


def test_crowding_is_1_on_one_thread():
    assert torch.get_num_threads() == 1 and crowding() == 1.0


@pytest.mark.parametrize("rates, share", [([100.0, 75.0], 0.25), ([80.0], 0.0)])
def test_moved_is_the_share_from_highest_to_lowest(rates, share):
    assert moved(rates) == share


def test_a_spread_is_median_smallest_largest_in_four_digits():
    assert spread([3.0, 1.23456, 2.0]) == {"median": 2.0, "min": 1.235, "max": 3.0}
    assert short(123456.0) == 123500.0


def test_sides_that_agree_give_their_largest_difference():
    found = agree({"x": (torch.tensor([1.0, 4.0]), torch.tensor([1.0, 5.0]))}, 0.25)
    assert found == {"x": 0.2}   # 1 of 5


@pytest.mark.parametrize("theirs", [torch.tensor([1.0, 5.0]), torch.tensor([1.0, torch.nan]), torch.ones(3)])
def test_sides_that_differ_are_not_timed(theirs):
    with pytest.raises(UserError, match="x: .*nothing was timed"):
        agree({"x": (torch.tensor([1.0, 4.0]), theirs)}, 0.1)


def test_a_result_is_one_line_of_json(capsys):
    say("x", PairedConfig(pairs=9), share=0.5)
    line, = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert (found["benchmark"], found["settings"]["pairs"], found["share"]) == ("x", 9, 0.5)
