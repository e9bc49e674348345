"""A stopped run goes on to the very bytes of one that was not stopped."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from minippo.ppo import AdaptiveKL
from minippo.run import resume
from minippo.run.checkpoint import load_tensors
from minippo.run.errors import UserError
from minippo.run.resume import digest
from minippo.run.signals import deferred_signals
from minippo.training import NonFiniteError
from tests.outside import ROOT, environment
from tests.robustness.kills import trial
from tests.robustness.posix import posix
from tests.run.walk import corpus, interrupt_at, values, walk


@pytest.fixture(autouse=True)
def rows(tmp_path):
    return corpus(tmp_path)


@pytest.fixture
def clean(tmp_path, rows):
    """Where a walk of 6 steps ends, and its record."""
    folder = tmp_path / "clean"
    return walk(folder, 6, data=rows), values(folder)


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


def test_the_walk_depends_on_all_that_a_state_keeps(tmp_path, rows):
    def moved(**state):   # where it ends with this of an earlier state
        with pytest.raises(RuntimeError):
            walk(tmp_path, 6, stop=interrupt_at(3), overwrite=True)
        kept = load_tensors(tmp_path / "state.pt")
        new = kept | {name: x for name, x in state.items() if name in kept}
        new["training"] = kept["training"] | {name: x for name, x in state.items() if name not in kept}
        torch.save(new, tmp_path / "state.pt")
        return walk(tmp_path, 6, resume=True)
    early = walk(tmp_path / "early", 1, data=rows)
    assert len(early) == 4
    first = load_tensors(tmp_path / "early/state.pt")
    names = ["model", "optimizer", "schedule", "steering"]
    assert {*names, "metrics"} == first["training"].keys()
    ends = [moved(), *(moved(**{name: first["training"][name]}) for name in names),
            *(moved(**{name: first[name]}) for name in ("generator", "torch"))]
    assert all(one != other for i, one in enumerate(ends) for other in ends[:i])


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_iteration_end_and_saves(tmp_path, clean, number, capfd):
    def stop(iteration):
        if iteration == 2:
            os.kill(os.getpid(), number)
    with pytest.raises(KeyboardInterrupt):
        walk(tmp_path, 6, stop=stop, save_every=1e9)
    assert "stopping after this iteration; once more stops at once, without saving" in capfd.readouterr().err
    assert load_tensors(tmp_path / "state.pt")["iteration"] == 3
    assert (walk(tmp_path, 6, resume=True), values(tmp_path)) == clean


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_last_state_is_written_stops_the_run_and_loses_nothing(
        tmp_path, clean, number, monkeypatch):
    def save(path, about, done, *others, right=resume.save):
        right(path, about, done, *others)
        if done == 6:
            os.kill(os.getpid(), number)
    monkeypatch.setattr(resume, "save", save)
    with pytest.raises(KeyboardInterrupt):
        walk(tmp_path, 6)
    monkeypatch.undo()
    assert load_tensors(tmp_path / "state.pt")["iteration"] == 6
    assert (walk(tmp_path, 6, resume=True), values(tmp_path)) == clean


@posix
def test_the_second_signal_acts_at_once():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), deferred_signals() as noted:
        os.kill(os.getpid(), signal.SIGINT)
        assert noted == [signal.SIGINT]
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@posix
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
    with pytest.raises(UserError, match="--seed was 0, now 1; --precision was fp32, now bf16"):
        walk(tmp_path, 6, resume=True, precision="bf16", seed=1)


def test_a_run_may_be_moved_and_saved_less_often(tmp_path, rows, clean):
    with pytest.raises(RuntimeError):
        walk(tmp_path / "here", 6, stop=interrupt_at(3), data=rows)
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert walk(tmp_path / "there", 6, resume=True, save_every=5.0, data=rows) == clean[0]


@pytest.mark.parametrize("other", ["rows", "a weight"])
def test_another_origin_is_refused(tmp_path, clean, other):
    with pytest.raises(RuntimeError):
        walk(tmp_path, 6, stop=interrupt_at(3))
    if other == "rows":
        corpus(tmp_path, "movie")
    with pytest.raises(UserError, match="or device that this run began with have changed"):
        walk(tmp_path, 6, resume=True, start=0.0 if other == "rows" else 1e-9)
    corpus(tmp_path)
    assert (walk(tmp_path, 6, resume=True), values(tmp_path)) == clean   # nothing was lost


def test_overwrite_begins_again(tmp_path, clean):
    with pytest.raises(RuntimeError):
        walk(tmp_path, 6, seed=9, stop=interrupt_at(3))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "mine.txt").write_text("kept")
    assert (walk(tmp_path, 6, overwrite=True), values(tmp_path)) == clean
    assert {path.name for path in tmp_path.iterdir()} == {
        "clean", "mine.txt", "rows.txt", "metrics.jsonl", "state.pt"}


@pytest.mark.parametrize("damage", [
    lambda state: [1], lambda state: {}, lambda state: state | {"iteration": "3"},
    lambda state: state | {"iteration": -2}, lambda state: state | {"iteration": 7},
    lambda state: state | {"settings": 3},
    lambda state: state | {"training": {}},
    lambda state: state | {"generator": torch.zeros(3)},
    lambda state: state | {"training": state["training"] | {"model": {}}},
    lambda state: state | {"training": state["training"] | {"steering": [1]}},
    lambda state: {name: x for name, x in state.items() if name != "training"} | {"parts": {}},
    lambda state: {"settings": state["settings"], "origin": state["origin"], "iteration": 3},
    lambda state: state | {"iteration": 3.0}, lambda state: state | {"iteration": True},
    *(lambda state, name=name: state | {name: doubled(40)}
      for name in ("settings", "origin", "iteration", "generator", "training", "more")),
    lambda state: state | {"settings": state["settings"] | {"seed": doubled(40)}},
    lambda state: state | {"training": state["training"] | {"steering": {"scale": doubled(40)}}},
    lambda state: state | {"training": state["training"] | {
        "optimizer": state["training"]["optimizer"] | {"state": {0: {"exp_avg": doubled(40)}}}}}])
def test_a_damaged_state_is_refused(tmp_path, damage):
    with pytest.raises(RuntimeError):
        walk(tmp_path, 6, stop=interrupt_at(3))
    path = tmp_path / "state.pt"
    torch.save(damage(load_tensors(path)), path)
    with pytest.raises(UserError, match="state.pt"):
        walk(tmp_path, 6, resume=True)


def doubled(times):
    """[x, x], where x is [y, y], and so on: to print or to compare it takes 2 ** times steps."""
    x = [0.0]
    for _ in range(times):
        x = [x, x]
    return x


def test_a_state_of_gigabytes_is_refused_unread(tmp_path):
    with pytest.raises(RuntimeError):
        walk(tmp_path, 6, stop=interrupt_at(3))
    os.truncate(tmp_path / "state.pt", 2**34)   # 16 GiB, hardly any of them on the disk
    start = time.monotonic()
    with pytest.raises(UserError, match="state.pt: damaged, or of another program; begin again with"):
        walk(tmp_path, 6, resume=True)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("layers, width", [(1, 1), (100, 8), (2, 512)])
def test_a_state_is_no_larger_than_its_modules_allow(tmp_path, layers, width):
    model = torch.nn.Sequential(*(torch.nn.Linear(width, width) for _ in range(layers)))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(width)).sum().backward()
    optimizer.step()
    training = {"model": model, "optimizer": optimizer, "steering": AdaptiveKL(0.3, 4.0, 50.0)}
    resume.save(tmp_path / "state.pt", {}, 1, torch.Generator(), training)
    size = (tmp_path / "state.pt").stat().st_size
    # the weights and two averages, 4 bytes each: three times them; four times them and 16 MiB are allowed
    assert 3 * 4 * layers * (width + 1) * width < size <= resume.largest(training) < 4 * size + 2**24


def test_nan_or_infinity_keeps_the_last_good_state_and_says_where(tmp_path):
    def stop(iteration):
        if iteration == 3:
            raise NonFiniteError("rollout: scores is not finite")
    with pytest.raises(NonFiniteError, match="iteration 3: rollout: scores is not finite; .*state"):
        walk(tmp_path, 6, stop=stop)
    assert load_tensors(tmp_path / "state.pt")["iteration"] == 3


@pytest.mark.parametrize("last", [0, 5])
def test_the_iteration_is_named_from_the_first_to_the_last(tmp_path, last):
    def stop(iteration):
        if iteration == last:
            raise NonFiniteError("loss is not finite")
    kept = "" if last == 0 else f"; {tmp_path / 'state.pt'} holds an earlier state"
    with pytest.raises(NonFiniteError) as caught:
        walk(tmp_path, 6, stop=stop)
    assert str(caught.value) == f"iteration {last}: loss is not finite{kept}"


def test_plain_attributes_are_kept_as_those_of_modules_are(tmp_path):
    about, generator = {"settings": {}, "origin": ""}, torch.Generator()
    resume.save(tmp_path / "state.pt", about, 2, generator, {"steering": AdaptiveKL(0.3, 4.0, 50.0)})
    steering = AdaptiveKL(0.1, 4.0, 50.0)
    assert resume.restore(tmp_path / "state.pt", about, 9, generator, {"steering": steering}) == 2
    assert vars(steering) == {"kl_coef": 0.3, "target": 4.0, "horizon": 50.0}


def test_a_fingerprint_depends_on_every_weight_and_row():
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    other.load_state_dict(one.state_dict())
    assert digest(one, ["a"]) == digest(other, ["a"]) != digest(other, ["b"])
    with torch.no_grad():
        other.bias[1] += 1e-6
    assert digest(one) != digest(other)


@posix
@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["decoder", "seq2seq"])
def test_d42_killed_runs_of_all_stages_end_with_the_bytes_of_clean_ones(tmp_path, architecture):
    kills = 0
    for _, hit, _, different, same in trial(tmp_path, architecture, kills=2, seed=0):
        kills += hit
        assert different == [] and same > 5_000
    assert kills >= 3


def script(folder, *words, **options):
    return subprocess.Popen([sys.executable, str(ROOT / "pretrain.py"), *words], cwd=folder,
                            env=environment(), stderr=subprocess.PIPE, text=True, **options)


TINY = "--data toy --passes 1000 --width 16 --heads 2 --layers 1 --vocab-size 300 --device cpu"


@posix
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
