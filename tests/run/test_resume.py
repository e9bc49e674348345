"""A stopped run goes on to the very bytes of one that was not stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from minippo.run.checkpoint import load_tensors
from minippo.run.flags import StageConfig
from minippo.run.errors import UserError
from minippo.training import NonFiniteError
from minippo.run.metrics import Metrics
from minippo.run.resume import deferred_signals, digest, resumable
from tests.robustness.kills import trial

ROOT = Path(__file__).resolve().parents[2]


class Walk(torch.nn.Module):
    """A random walk: its weight, with steps from the stage's generator and from torch's."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))


def walk(folder, total, generator_seed=0, stop=None, origin=("rows",), **flags):
    """Run `total` iterations; `stop(iteration)` may raise or send a signal. Returns the walk."""
    config = StageConfig(**{"save_every": 0.0} | flags)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(generator_seed)
    model = Walk()
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1 / (n + 1))
    metrics = Metrics(folder, total, {})
    with resumable(config, folder, total, generator, origin, model=model, optimizer=optimizer,
                   schedule=schedule, metrics=metrics) as iterations:
        for iteration in iterations:
            draws = torch.rand(3, generator=generator) + torch.rand(3)
            optimizer.zero_grad()
            (model.weight * draws).sum().backward()
            optimizer.step()
            schedule.step()
            metrics.log(iteration, {"x": model.weight[0].item()}, 1)
            if stop:
                stop(iteration)
    metrics.close()
    return model.weight.tolist()


def values(folder):
    return [json.loads(line)["x"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def interrupt_at(last):
    def stop(iteration):
        if iteration == last:
            raise RuntimeError("power cut")
    return stop


@pytest.fixture
def clean(tmp_path):
    folder = tmp_path / "clean"
    folder.mkdir()
    return walk(folder, 6), values(folder)


@pytest.mark.parametrize("save_every", [0.0, 1e9])
@pytest.mark.parametrize("last", [0, 3, 5])
def test_a_run_that_broke_off_ends_as_one_that_did_not(tmp_path, clean, last, save_every):
    with pytest.raises(RuntimeError, match="power cut"):
        walk(tmp_path, 6, stop=interrupt_at(last), save_every=save_every)
    assert (walk(tmp_path, 6, resume=True), values(tmp_path)) == clean


def test_the_state_is_of_the_iteration_before_the_one_that_broke_off(tmp_path):
    with pytest.raises(RuntimeError):
        walk(tmp_path, 6, stop=interrupt_at(3))
    assert load_tensors(tmp_path / "state.pt")["iteration"] == 3
    assert len(values(tmp_path)) == 4   # the fourth line is cut back, and written again


def test_a_torn_line_is_cut_back(tmp_path, clean):
    with pytest.raises(RuntimeError):
        walk(tmp_path, 6, stop=interrupt_at(3))
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"iteration": 4, "x"')
    walk(tmp_path, 6, resume=True)
    assert values(tmp_path) == clean[1]


def test_a_record_shorter_than_the_state_is_refused(tmp_path):
    with pytest.raises(RuntimeError):
        walk(tmp_path, 6, stop=interrupt_at(3))
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="metrics.jsonl: shorter than state.pt says"):
        walk(tmp_path, 6, resume=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_iteration_end_and_saves(tmp_path, clean, number):
    def stop(iteration):
        if iteration == 2:
            os.kill(os.getpid(), number)
    with pytest.raises(KeyboardInterrupt):
        walk(tmp_path, 6, stop=stop, save_every=1e9)
    assert load_tensors(tmp_path / "state.pt")["iteration"] == 3
    assert (walk(tmp_path, 6, resume=True), values(tmp_path)) == clean


def test_the_second_signal_acts_at_once():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), deferred_signals() as noted:
        os.kill(os.getpid(), signal.SIGINT)
        assert noted == [signal.SIGINT]
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)   # as in `nohup` or a script's `&`
    try:
        with deferred_signals() as noted:
            os.kill(os.getpid(), signal.SIGINT)
            assert noted == []
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_settings_are_refused_and_named(tmp_path):
    with pytest.raises(RuntimeError):
        walk(tmp_path, 6, stop=interrupt_at(3))
    with pytest.raises(UserError, match="--seed was 0, now 1.*begin again with --overwrite"):
        walk(tmp_path, 6, resume=True, seed=1)
    walk(tmp_path, 6, resume=True, save_every=5.0, out="elsewhere")   # these change nothing


def test_another_origin_is_refused(tmp_path):
    with pytest.raises(RuntimeError):
        walk(tmp_path, 6, stop=interrupt_at(3))
    with pytest.raises(UserError, match="models or device that this run began with have changed"):
        walk(tmp_path, 6, origin=("other rows",), resume=True)


def test_overwrite_begins_again(tmp_path, clean):
    with pytest.raises(RuntimeError):
        walk(tmp_path, 6, generator_seed=9, stop=interrupt_at(3))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "mine.txt").write_text("kept")
    assert (walk(tmp_path, 6, overwrite=True), values(tmp_path)) == clean
    assert {path.name for path in tmp_path.iterdir()} == {"clean", "mine.txt", "metrics.jsonl",
                                                          "state.pt"}


@pytest.mark.parametrize("damage", [
    lambda state: [1], lambda state: {}, lambda state: state | {"iteration": "3"},
    lambda state: state | {"iteration": -2}, lambda state: state | {"iteration": 7},
    lambda state: state | {"settings": 3},
    lambda state: state | {"parts": {}}, lambda state: state | {"generator": torch.zeros(3)},
    lambda state: state | {"parts": state["parts"] | {"model": {}}},
    lambda state: {"settings": state["settings"], "origin": state["origin"], "iteration": 3}])
def test_a_damaged_state_is_refused(tmp_path, damage):
    with pytest.raises(RuntimeError):
        walk(tmp_path, 6, stop=interrupt_at(3))
    path = tmp_path / "state.pt"
    torch.save(damage(load_tensors(path)), path)
    with pytest.raises(UserError, match="state.pt"):
        walk(tmp_path, 6, resume=True)


def test_a_number_that_is_none_keeps_the_last_good_state_and_says_where(tmp_path):
    def stop(iteration):
        if iteration == 3:
            raise NonFiniteError("rollout: scores is not finite")
    with pytest.raises(NonFiniteError, match="iteration 3: rollout: scores is not finite; .*state"):
        walk(tmp_path, 6, stop=stop)
    assert load_tensors(tmp_path / "state.pt")["iteration"] == 3


def test_a_fingerprint_depends_on_every_weight_and_row():
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    other.load_state_dict(one.state_dict())
    assert digest(one, ["a"]) == digest(other, ["a"]) != digest(other, ["b"])
    with torch.no_grad():
        other.bias[1] += 1e-6
    assert digest(one) != digest(other)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["decoder", "seq2seq"])
def test_d42_killed_runs_of_all_stages_end_with_the_bytes_of_clean_ones(tmp_path, architecture):
    kills = 0
    for _, hit, _, different, same in trial(tmp_path, architecture, kills=2, seed=0):
        kills += hit
        assert different == [] and same > 5_000
    assert kills >= 3


def script(folder, *words, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, str(ROOT / "pretrain.py"), *words], cwd=folder,
                            env=environment, stderr=subprocess.PIPE, text=True, **options)


TINY = "--data toy --passes 1000 --width 16 --heads 2 --layers 1 --vocab-size 300 --device cpu"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_script_says_how_to_go_on(tmp_path, number):
    run = script(tmp_path, *TINY.split())
    metrics = tmp_path / "runs" / "pretrain" / "metrics.jsonl"
    while run.poll() is None and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.05)
    run.send_signal(number)
    last = run.communicate()[1].splitlines()[-1]
    assert run.returncode == 130
    assert last.endswith("the same command with --resume, and no --overwrite, goes on")
    assert (metrics.parent / "state.pt").exists()
    again = script(tmp_path, *TINY.split())
    assert "holds an unfinished run: go on with --resume" in again.communicate()[1]
    assert again.returncode == 2
