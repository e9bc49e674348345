"""Several processes train as one: the same numbers, one writer, and none that waits for one that is gone."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from minippo.corpora.toy import toy
from minippo.run import parallel
from minippo.run.checkpoint import load_tensors
from minippo.run.errors import UserError
from tests.outside import ROOT
from tests.robustness.world import without_times
from tests.run.processes import Processes

STAGES = ("pretrain", "reward", "ppo")
FLAGS = {   # batches that cannot be dealt out evenly; microbatches of fewer rows than processes
    "pretrain": "--passes 1 --width 16 --heads 2 --layers 1 --vocab-size 300 --samples 2 --batch-size 30",
    "reward": "--passes 1 --normalize-samples 256 --group-size 33",
    "ppo": "--iterations 5 --rollout-size 22 --minibatch-size 9 --microbatch-size 3 --response-length 8 "
           "--separate-critic --kl-horizon 50",
}
UNSEEN = ("head.bias", "critic.head.bias", "shift")   # no preference tells them: Adam enlarges rounding


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "data.jsonl"
    path.write_text("".join(json.dumps({"text": row.text, "votes": row.votes}) + "\n" for row in toy()[:400]))
    return path


def start(stage, count, folder, corpus, begin=None, more=""):
    """A stage's Processes, writing to folder/STAGE; it begins with the models in the folder `begin`."""
    folder.mkdir(parents=True, exist_ok=True)
    models = {"pretrain": [], "reward": ["--model", begin / "pretrain"] if begin else [],
              "ppo": ["--model", begin / "pretrain", "--reward", begin / "reward"] if begin else []}
    flags = [*"--device cpu --precision fp32".split(), "--data", corpus, "--out", folder / stage,
             *FLAGS[stage].split(), *models[stage], *more.split()]
    return Processes(stage, count, folder, *map(str, flags))


@pytest.fixture(scope="module", params=["decoder", "seq2seq"])
def runs(request, tmp_path_factory, corpus):
    """A folder with the three stages of 1, 2 and 4 processes; all begin with the models of one process."""
    folder = tmp_path_factory.mktemp(request.param)
    for stage in STAGES:
        more = f"--dropout 0 --architecture {request.param}" if stage == "pretrain" else ""
        for count in (1, 2, 4):
            here = start(stage, count, folder / str(count), corpus, folder / "1", more)
            assert here.wait() == [0] * count, here.said()
    return folder


def weights(folder):
    found = load_tensors(folder / "model.pt")
    constant = {name: found[name] for name in ("shift",) if name in found}
    if constant:   # what is added to every score
        found["constant"] = found["gain"] * found["head.bias"] / 2 + found["shift"]
    return {name: x for name, x in found.items() if name not in UNSEEN}


def record(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: x for key, x in row.items() if not key.startswith(("time/", "memory/"))} for row in rows]


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("stage", STAGES)
def test_several_processes_train_as_one(runs, stage, count):
    one, several = runs / "1" / stage, runs / str(count) / stage
    for mine, theirs in zip(record(one), record(several), strict=True):
        assert theirs == pytest.approx(mine, abs=1e-5, rel=1e-5)
    found, expected = weights(several), weights(one)
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.allclose(found[name], expected[name], rtol=1e-5, atol=1e-5), name


def test_the_first_process_alone_speaks_and_all_end_well(runs):
    for stage in STAGES:
        first, *others = [file.read_text() for file in sorted((runs / "4").glob(f"{stage}-*.txt"))]
        assert "written:" in first and not any(others)


# What goes wrong

@pytest.fixture(scope="module")
def begun(tmp_path_factory, corpus):
    """The models that later stages begin with; dropout on, so that every process draws its own."""
    folder = tmp_path_factory.mktemp("begun")
    for stage in STAGES[:2]:
        assert start(stage, 1, folder, corpus, folder).wait() == [0]
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory, corpus, begun):
    """Each stage in two processes, never disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    for stage in STAGES:
        assert start(stage, 2, folder, corpus, begun).wait() == [0, 0]
    return folder


def same_bytes(folder, other):
    assert (folder / "model.pt").read_bytes() == (other / "model.pt").read_bytes()
    assert without_times(folder / "metrics.jsonl") == without_times(other / "metrics.jsonl")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_stops_the_other_within_seconds_and_the_run_goes_on(
        tmp_path, corpus, begun, whole, stage, killed):
    run = start(stage, 2, tmp_path, corpus, begun, "--save-every 0")
    run.after(2, tmp_path / stage)
    os.kill(run.pids[killed], signal.SIGKILL)
    begin = time.monotonic()
    left = run.wait()
    assert time.monotonic() - begin < 5
    assert left[killed] == -signal.SIGKILL and left[1 - killed] == 1
    last = run.said()[1 - killed].splitlines()
    assert [line for line in last if "error" in line] == last[-1:] and "another process is gone" in last[-1]
    assert start(stage, 2, tmp_path, corpus, begun, "--resume").wait() == [0, 0]
    same_bytes(tmp_path / stage, whole / stage)


def test_one_that_is_asked_to_stop_stops_all_after_the_same_iteration(tmp_path, corpus, begun, whole):
    run = start("ppo", 2, tmp_path, corpus, begun)
    run.after(2, tmp_path / "ppo")
    os.kill(run.pids[1], signal.SIGTERM)
    assert run.wait() == [130, 130]
    assert "error: stopped" in run.said()[0] and run.said()[1] == ""
    assert 2 <= load_tensors(tmp_path / "ppo/state.pt")["iteration"] < 5
    assert start("ppo", 2, tmp_path, corpus, begun, "--resume").wait() == [0, 0]
    same_bytes(tmp_path / "ppo", whole / "ppo")


def test_a_run_goes_on_with_as_many_processes_as_it_began_with(tmp_path, corpus, begun):
    run = start("reward", 2, tmp_path, corpus, begun, "--save-every 0")
    run.after(2, tmp_path / "reward")
    run.kill()
    again = start("reward", 1, tmp_path, corpus, begun, "--resume")
    assert again.wait() == [2]
    assert "of a run of 2 processes; go on with torchrun --nproc-per-node 2, or" in again.said()[0]


def test_each_process_has_dropout_of_its_own(tmp_path, corpus, begun):
    run = start("reward", 3, tmp_path, corpus, begun, "--save-every 0")   # 11 of 33 rows for each
    run.after(2, tmp_path / "reward")
    run.kill()
    states = load_tensors(tmp_path / "reward/state.pt")["torch"]
    assert len({bytes(state.tolist()) for state in states}) == 3


def test_a_finished_run_is_left_by_all(whole, corpus, begun):
    run = start("reward", 2, whole, corpus, begun, "--resume")
    assert run.wait(20) == [0, 0]
    assert "finished already" in run.said()[0] and run.said()[1] == ""


def test_a_mistake_is_told_once(tmp_path, corpus):
    run = start("reward", 2, tmp_path, corpus, tmp_path)   # there is no model
    assert run.wait() == [2, 2]
    first, second = run.said()
    assert first.startswith("error: ") and first.count("\n") == 1 and second == ""


def test_what_goes_wrong_in_one_process_alone_is_told_by_it(tmp_path, corpus, begun, monkeypatch):
    (tmp_path / "one_fails.py").write_text(
        "import os\n"
        "def rule(texts):\n"
        "    return [float('nan') if os.environ.get('RANK') == '1' else 0.5] * len(texts)\n")
    monkeypatch.chdir(tmp_path)
    run = start("ppo", 2, tmp_path, corpus, begun, "--score one_fails:rule")
    assert run.wait() == [1, 2]
    assert "another process is gone" in run.said()[0] and "gave NaN" in run.said()[1]


def test_processes_that_see_other_data_are_refused(tmp_path, corpus, begun):
    """As on two machines, each with a file of its own."""
    flags = ["--out", tmp_path / "out", "--model", begun / "pretrain", "--device", "cpu"]
    lines = corpus.read_text().splitlines(keepends=True)
    (tmp_path / "0.jsonl").write_text("".join(lines))
    (tmp_path / "1.jsonl").write_text("".join(lines[:-1]))
    run = Processes("reward", 2, tmp_path, *map(str, flags),
                    each=lambda rank: ["--data", f"{tmp_path}/{rank}.jsonl"])
    assert run.wait() == [2, 2]
    assert "the processes do not begin from the same data" in run.said()[0]


def test_compiling_in_several_processes_is_refused(tmp_path, corpus):
    run = start("pretrain", 2, tmp_path, corpus, more="--compile")
    assert run.wait() == [2, 2] and "--compile with several processes" in run.said()[0]


@pytest.mark.parametrize("more", ["--recompute", "--precision bf16"])
def test_other_ways_to_compute_work_in_two_processes(tmp_path, corpus, begun, more):
    run = start("ppo", 2, tmp_path, corpus, begun, f"--iterations 2 {more}")
    assert run.wait() == [0, 0], run.said()


def test_several_processes_on_a_gpu_are_refused(monkeypatch):
    monkeypatch.setattr(parallel, "count", lambda: 2)
    with pytest.raises(UserError, match="--device cuda: several processes compute on CPUs so far"):
        parallel.connect(torch.device("cuda"))


@pytest.mark.parametrize("total, rows", [(5, [[0, 3], [1, 4], [2]]), (2, [[0], [1], [0]])])
def test_rows_are_dealt_out_one_by_one_and_nobody_gets_none(monkeypatch, total, rows):
    monkeypatch.setattr(parallel, "count", lambda: 3)
    found = []
    for rank in range(3):
        monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
        found.append(parallel.mine(total).tolist())
    assert found == rows


def test_torchrun_begins_a_stage(tmp_path, corpus):
    flags = f"--device cpu --data {corpus} --out {tmp_path / 'pretrain'} {FLAGS['pretrain']}"
    torchrun = [sys.executable, *"-m torch.distributed.run --standalone --nproc-per-node 2".split()]
    done = subprocess.run([*torchrun, str(ROOT / "pretrain.py"), *flags.split()], capture_output=True,
                          text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written:") == 1 and (tmp_path / "pretrain/model.pt").exists()
