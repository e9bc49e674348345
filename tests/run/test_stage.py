"""What a Run gives a stage's loop, and what it puts back when the loop ends."""

import json
import re
import signal
from contextlib import suppress
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from minippo import data
from minippo.corpora.read import read
from minippo.policy import ActorCritic
from minippo.run import stage
from minippo.run.checkpoint import load_lm, load_tensors
from minippo.run.errors import UserError
from minippo.run.flags import StageConfig
from minippo.run.stage import Run
from minippo.tokenizer import Tokenizer
from minippo.training import NonFiniteError
from minippo.transformer import TransformerConfig, build
from tests.robustness.posix import posix
from tests.run.walk import corpus, flags_of, interrupt_at, values, walk


@pytest.fixture(autouse=True)
def rows(tmp_path):
    return corpus(tmp_path)


def test_a_run_has_device_precision_rows_by_part_and_folder(tmp_path, rows):
    with Run(flags_of(tmp_path / "a/b", data=rows, precision="bf16"), {}) as run:
        assert run.device == torch.device("cpu") and run.bf16 is True
        assert run.rows == data.split(read(rows)) and set(run.rows) == set(data.SHARES)
        assert run.folder == tmp_path / "a/b" and run.folder.is_dir()
        assert run.generator.device == torch.device("cpu")


def test_the_seed_is_that_of_torch_and_of_the_run_s_own_generator(tmp_path):
    with Run(flags_of(tmp_path, seed=7), {}) as run:
        assert torch.initial_seed() == run.generator.initial_seed() == 7
        assert torch.equal(torch.rand(3), torch.rand(3, generator=run.generator))


@pytest.mark.parametrize("flags, message", [
    ({"out": ""}, "--out is empty"), ({"device": "cuda"}, "--device cuda")])
def test_what_can_be_told_at_once_is_told_before_the_data_is_read(tmp_path, monkeypatch, flags, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(stage, "read", lambda name: pytest.fail("read"))
    with pytest.raises(UserError, match=message):
        Run(flags_of(tmp_path / "new", **flags), {})
    assert not (tmp_path / "new").exists()


def test_data_that_cannot_be_used_makes_no_folder(tmp_path):
    (tmp_path / "few.txt").write_text("one\ntwo\n")
    with pytest.raises(data.DataError, match="2 usable rows, too few"):
        Run(flags_of(tmp_path / "new", data=str(tmp_path / "few.txt")), {})
    assert not (tmp_path / "new").exists()


# ---------------------------------------------------------------- the folder is the run's until it ends

@posix
def test_two_runs_in_one_folder_are_kept_apart_until_the_first_one_s_block_ends(tmp_path):
    def refused(**flags):
        with pytest.raises(UserError, match="metrics.jsonl: another run is writing it at this moment"):
            walk(tmp_path, 2, **flags)
    with Run(flags_of(tmp_path), {}) as run:
        refused()                                             # from the beginning
        for iteration in run.iterations(2, model=torch.nn.Linear(1, 1)):
            run.log({"x": float(iteration)}, 1)
            refused(resume=True), refused(overwrite=True)     # while it goes on
        refused(resume=True)                                  # and until all is written
        walk(tmp_path / "other", 2, data=str(tmp_path / "rows.txt"))
    assert values(tmp_path) == [0, 1]   # of the first run: none of the others has cut its record
    assert walk(tmp_path, 2, overwrite=True)


@posix
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, NonFiniteError])
def test_the_folder_is_free_again_after_an_error(tmp_path, error):
    def stop(iteration):
        raise error("stop")
    with pytest.raises(error):
        walk(tmp_path, 2, stop=stop)
    assert walk(tmp_path, 2, resume=True)


# ---------------------------------------------------------------- iterations

def test_iterations_are_numbered_from_0_and_go_on_with_the_first_that_is_not_done(tmp_path):
    seen = []

    def note(iteration):
        seen.append(iteration)
        interrupt_at(2)(iteration)
    with pytest.raises(RuntimeError):
        walk(tmp_path, 4, stop=note)
    walk(tmp_path, 4, stop=seen.append, resume=True)
    assert seen == [0, 1, 2, 2, 3]
    record = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in record] == [0, 1, 2, 3]


def test_the_state_is_written_when_its_time_has_come_and_at_the_end(tmp_path, monkeypatch):
    clock = iter([0, 4, 9, 10, 12, 18, 19, 20])   # when it begins, after each iteration and each saving
    monkeypatch.setattr(stage, "time", SimpleNamespace(monotonic=clock.__next__))
    kept = []

    def look(iteration):
        path = tmp_path / "state.pt"
        kept.append(load_tensors(path)["iteration"] if path.exists() else 0)
    # after 1 it is 4, after 2 it is 9, after 3 it is 10: saved, at 12; after 4 it is 18; 5 is the last
    walk(tmp_path, 5, stop=look, save_every=10.0)
    assert kept == [0, 0, 0, 3, 3] and load_tensors(tmp_path / "state.pt")["iteration"] == 5


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt, NonFiniteError])
def test_the_handlers_of_signals_are_the_run_s_in_the_loop_and_as_before_afterwards(tmp_path, error):
    before, inside = handlers(), []

    def stop(iteration):
        inside.append(handlers())
        if error:
            raise error("stop")
    with suppress(error or ()):
        walk(tmp_path, 2, stop=stop)
    assert handlers() == before
    assert all(now != then for now, then in zip(inside[0], before))


def test_the_handlers_of_signals_are_as_before_a_loop_that_is_left_early(tmp_path):
    before = handlers()
    with Run(flags_of(tmp_path), {}) as run:
        iterations = run.iterations(5, model=torch.nn.Linear(1, 1))
        assert handlers() == before   # restored or emptied by now, and not begun
        for _ in iterations:
            break
    assert handlers() == before   # though somebody still holds the generator


# ---------------------------------------------------------------- errors and the end

def test_a_number_that_is_not_finite_before_or_after_the_loop_is_of_no_iteration(tmp_path):
    with pytest.raises(NonFiniteError, match="^early is not finite$"), Run(flags_of(tmp_path), {}):
        raise NonFiniteError("early is not finite")
    with pytest.raises(NonFiniteError, match="^late is not finite$"), Run(flags_of(tmp_path), {}) as run:
        for _ in run.iterations(1, model=torch.nn.Linear(1, 1)):
            run.log({"x": 0.0}, 1)
        raise NonFiniteError("late is not finite")


def test_other_errors_are_those_that_were_raised(tmp_path):
    error = RuntimeError("power cut")
    with pytest.raises(RuntimeError) as caught, Run(flags_of(tmp_path), {}) as run:
        for _ in run.iterations(1, model=torch.nn.Linear(1, 1)):
            raise error
    assert caught.value is error


def test_a_model_is_placed_as_the_flags_say_whether_it_is_a_language_model_or_holds_one(tmp_path):
    lm = build(TransformerConfig(257, 0, width=8, heads=1, layers=1, context=16))
    with Run(flags_of(tmp_path, precision="bf16", recompute=True), {}) as run:
        policy = run.place(ActorCritic(lm))
        assert policy.lm is lm and lm.bf16 and lm.recompute
        assert run.place(lm) is lm


def test_the_end_says_on_stderr_how_long_it_took_and_how_much_memory(tmp_path, capsys):
    lm, tokenizer = build(TransformerConfig(257, 0, width=8, heads=1, layers=1)), Tokenizer.train(["a"], 257)
    with Run(flags_of(tmp_path), {}) as run:
        for _ in run.iterations(2, model=lm):
            run.log({"x": 0.0}, 1)
        run.finish("pretrain", lm, tokenizer)
    said = capsys.readouterr()
    assert re.search(r"^2 iterations in 0:00 minutes, at most \d[\d,]* MB of memory$", said.err, re.M)
    assert said.out == f"written: {tmp_path}\n"
    with Run(flags_of(tmp_path, overwrite=True), {}) as run:
        for _ in run.iterations(1, model=lm):
            run.log({"x": 0.0}, 1)
        (tmp_path / "report.html").write_text("a page")
        run.finish("pretrain", lm, tokenizer)
    page = tmp_path / "report.html"
    assert capsys.readouterr().out == f"written: {tmp_path}; open {page} in a browser\n"
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(50 < row["memory/peak_mb"] < 50_000 for row in rows)


def test_a_finished_run_holds_the_model_and_its_settings_and_no_state(tmp_path, capsys):
    tokenizer = Tokenizer.train(["a film"], 257)
    lm = build(TransformerConfig(257, tokenizer.end, width=8, heads=1, layers=1, context=16))
    with Run(flags_of(tmp_path, seed=3), {}) as run:
        for _ in run.iterations(1, model=lm):
            run.log({"x": 0.0}, 1)
        assert (tmp_path / "state.pt").exists()
        run.finish("pretrain", lm, tokenizer)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json", "metrics.jsonl", "model.pt", "rows.txt", "tokenizer.json"}
    assert json.loads((tmp_path / "config.json").read_text())["settings"] == {
        "seed": 3, "device": "cpu", "precision": "fp32", "data": str(tmp_path / "rows.txt"),
        "compile": False, "recompute": False}
    assert json.loads((tmp_path / "config.json").read_text())["defaults"] == {
        "seed": 0, "device": "auto", "precision": "auto", "data": "movies", "compile": False,
        "recompute": False}
    assert torch.equal(load_lm(tmp_path)[0].embedding.weight, lm.embedding.weight)
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        Run(flags_of(tmp_path, seed=3, resume=True), {})
    assert left.value.code == 0 and capsys.readouterr().out == f"{tmp_path}: finished already\n"


@dataclass
class FromModel(StageConfig):
    model: str = ""


@pytest.mark.parametrize("name", ["model.pt", "tokenizer.json"])
def test_a_run_does_not_go_on_from_another_model_than_it_began_with(tmp_path, rows, name):
    model = tmp_path / "model"
    model.mkdir()
    about = {"stage": "pretrain", "model": {}, "settings": {"data": rows}}
    (model / "config.json").write_text(json.dumps(about))
    (model / "model.pt").write_text("weights"), (model / "tokenizer.json").write_text("tokens")

    def go(**flags):
        config = FromModel(out=str(tmp_path / "new"), data=rows, device="cpu", model=str(model),
                           precision="fp32", save_every=0.0, **flags)
        torch.manual_seed(0)
        layer = torch.nn.Linear(1, 1)
        torch.nn.init.zeros_(layer.weight), torch.nn.init.zeros_(layer.bias)
        with Run(config, {}) as run:
            for iteration in run.iterations(3, layer=layer):
                run.log({"x": 0.0}, 1)
                interrupt_at(2)(iteration)
    with pytest.raises(RuntimeError):
        go()
    with pytest.raises(RuntimeError):   # again at the last iteration: the same model goes on
        go(resume=True)
    (model / name).write_text("others")
    with pytest.raises(UserError, match="or device that this run began with have changed"):
        go(resume=True)
