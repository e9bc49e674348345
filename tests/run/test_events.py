"""--tensorboard: the record as event files; the package itself, where it is there, and a stand-in."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from minippo.run import events
from minippo.run.errors import UserError
from minippo.run.exits import launch
from minippo.run.flags import StageConfig, settings
from tests.run.walk import corpus, flags_of, interrupt_at, values, walk


@pytest.fixture(autouse=True)
def rows(tmp_path):
    return corpus(tmp_path)


class Writer:
    """Stands in for SummaryWriter: notes how it is called; flushed: scalars at each flush."""
    made = ()

    def __init__(self, log_dir, purge_step, filename_suffix):
        self.log_dir, self.purge_step = log_dir, purge_step
        self.scalars, self.flushed, self.closed = [], [], 0
        os.makedirs(log_dir, exist_ok=True)
        with open(f"{log_dir}/events.out.tfevents.{len(Writer.made)}{filename_suffix}", "w"):
            pass
        Writer.made += (self,)

    def add_scalar(self, tag, x, step):
        self.scalars.append((tag, x, step))

    def flush(self):
        self.flushed.append(len(self.scalars))

    def close(self):
        self.closed += 1


@pytest.fixture
def made(monkeypatch):
    """All writers that the test makes, a list that grows."""
    monkeypatch.setattr(Writer, "made", ())
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    return lambda: Writer.made


def of(writer, tag="x"):
    return [(step, x) for name, x, step in writer.scalars if name == tag]


def test_every_number_of_the_record_becomes_a_scalar_of_its_iteration(tmp_path, made):
    walk(tmp_path, 3, tensorboard=True)
    writer, = made()
    assert writer.log_dir == str(tmp_path / "tensorboard") and writer.purge_step == 0
    assert of(writer) == list(enumerate(values(tmp_path)))
    assert {tag for tag, _, _ in writer.scalars} == {"x", "time/seconds", "time/tokens_per_second",
                                                     "memory/peak_mb"}
    assert writer.closed == 1


def test_without_the_flag_nothing_is_written_and_nothing_is_asked_for(tmp_path, made):
    walk(tmp_path, 2)
    assert made() == () and not (tmp_path / "tensorboard").exists()


def test_the_run_is_the_same_with_the_flag_and_without(tmp_path, made):
    plain, watched = (walk(tmp_path / name, 3, data=str(tmp_path / "rows.txt"), tensorboard=flag)
                      for name, flag in (("plain", False), ("watched", True)))
    assert plain == watched
    assert settings(StageConfig(tensorboard=True)) == settings(StageConfig())   # one goes on as the other


def test_what_the_saved_state_counts_as_done_is_on_the_disk(tmp_path, made):
    walk(tmp_path, 3, tensorboard=True)   # the walk saves after every iteration; four scalars each
    assert made()[0].flushed == [4, 8, 12]


def test_a_run_that_goes_on_tells_tensorboard_to_drop_what_is_done_again(tmp_path, made):
    with pytest.raises(RuntimeError):
        walk(tmp_path, 4, stop=interrupt_at(2), tensorboard=True)
    walk(tmp_path, 4, tensorboard=True, resume=True)
    first, second = made()
    assert [step for step, _ in of(first)] == [0, 1, 2]    # 2 was not saved
    assert second.purge_step == 2 and [step for step, _ in of(second)] == [2, 3]
    assert first.closed == second.closed == 1
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2   # the first file is still needed


@pytest.mark.parametrize("flag", [True, False])
def test_overwrite_deletes_the_event_files_of_the_run_and_nothing_else(tmp_path, made, flag):
    folder, far = tmp_path / "tensorboard", tmp_path / "far"
    walk(tmp_path, 1, tensorboard=True)
    (folder / "events.out.tfevents.1.other").write_text("of another program")
    (folder / "notes.txt").write_text("mine")
    far.write_text("far")
    (folder / "events.out.tfevents.2.minippo").symlink_to(far)
    (folder / "events.out.tfevents.3.minippo").mkdir()
    walk(tmp_path, 1, tensorboard=flag, overwrite=True)
    left = {"events.out.tfevents.1.other", "notes.txt", "events.out.tfevents.2.minippo",
            "events.out.tfevents.3.minippo"}
    new = {"events.out.tfevents.1.minippo"} if flag else set()
    assert {path.name for path in folder.iterdir()} == left | new and far.read_text() == "far"


def test_a_link_to_a_folder_is_neither_emptied_nor_written_to(tmp_path, made):
    far = tmp_path / "far"
    far.mkdir()
    (far / "events.out.tfevents.1.minippo").write_text("of another run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/tensorboard").symlink_to(far)
    walk(tmp_path / "run", 1, data=str(tmp_path / "rows.txt"))
    with pytest.raises(UserError, match="run.tensorboard: no folder, but event files are to be"):
        walk(tmp_path / "run", 1, data=str(tmp_path / "rows.txt"), tensorboard=True, overwrite=True)
    assert [path.name for path in far.iterdir()] == ["events.out.tfevents.1.minippo"]
    assert values(tmp_path / "run") != []   # the run that was there: refused before it was deleted


def test_a_file_in_the_place_of_the_folder_is_refused_before_anything(tmp_path, made):
    (tmp_path / "tensorboard").write_text("mine")
    with pytest.raises(UserError, match="tensorboard: no folder, .*; move it away, or name another --out"):
        walk(tmp_path, 1, tensorboard=True)
    assert (tmp_path / "tensorboard").read_text() == "mine" and not (tmp_path / "metrics.jsonl").exists()


def test_without_the_package_one_line_says_what_to_install_before_anything_is_read(
        tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    arguments = ["--tensorboard", "--out", str(tmp_path / "new"), "--data", str(tmp_path / "none.txt")]
    with pytest.raises(SystemExit) as left:
        launch(lambda config: walk(Path(config.out), 1, data=config.data, tensorboard=config.tensorboard),
               StageConfig, "", arguments)
    out, err = capsys.readouterr()
    assert left.value.code == 2 and out == "" and err.count("\n") == 1
    assert err.startswith("error: --tensorboard needs the package tensorboard")
    assert "pip install tensorboard" in err and not (tmp_path / "new").exists()


def test_a_number_that_is_not_finite_is_a_gap(tmp_path, made):
    from minippo.run.stage import Run
    from tests.run.walk import Walk
    with Run(flags_of(tmp_path, tensorboard=True), {}) as run:
        for _ in run.iterations(1, model=Walk()):
            run.log({"x": float("inf")}, 1)
    (_, x), = of(made()[0])
    assert x != x   # NaN: TensorBoard draws none


# ---------------------------------------------------------------- the package itself

def read_back(folder, tag):
    """Steps and numbers that TensorBoard itself finds."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder / events.FOLDER))
    found.Reload()
    return [(event.step, event.value) for event in found.Scalars(tag)]


def test_tensorboard_reads_each_iteration_once_also_after_a_stop(tmp_path):
    pytest.importorskip("tensorboard")
    with pytest.raises(RuntimeError):
        walk(tmp_path, 4, stop=interrupt_at(2), tensorboard=True)
    assert [step for step, _ in read_back(tmp_path, "x")] == [0, 1, 2]
    walk(tmp_path, 4, tensorboard=True, resume=True)
    steps, numbers = zip(*read_back(tmp_path, "x"))
    assert steps == (0, 1, 2, 3) and numbers == pytest.approx(values(tmp_path), abs=1e-6)   # float32
    walk(tmp_path, 2, tensorboard=True, overwrite=True)
    assert [step for step, _ in read_back(tmp_path, "x")] == [0, 1]
