"""A stage's folder: what it holds, who may write there, and what it was made from."""

import json
import os
from dataclasses import dataclass, replace

import pytest

from minippo.run.errors import UserError
from minippo.run.flags import StageConfig, settings
from minippo.run.folder import (
    FINISHED,
    UNFINISHED,
    check_free,
    claim,
    finished_at,
    held_by,
    note_other_data,
    read_from,
)
from tests.robustness.posix import posix


def filled(folder, names):
    """A folder with these files; "metrics.jsonl" is empty, "metrics" is one with a line."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names.split():
        path = folder / ("metrics.jsonl" if name == "metrics" else name)
        path.write_text("" if name == "metrics.jsonl" else "x\n")
    return folder


WHOLE = "config.json model.pt tokenizer.json"


@pytest.mark.parametrize("names, found", [
    ("", ""), ("metrics.jsonl", ""), ("notes.txt", ""),          # as good as new
    ("metrics", UNFINISHED), ("metrics state.pt", UNFINISHED), (f"metrics state.pt {WHOLE}", UNFINISHED),
    (f"metrics {WHOLE}", FINISHED), (WHOLE, FINISHED), (f"{WHOLE} comparison.json", FINISHED),
    (f"metrics {WHOLE} calibration.json report.html", FINISHED),
    ("metrics model.pt tokenizer.json", "model.pt"), ("tokenizer.json", "tokenizer.json"),
    ("comparison.json model.pt", "comparison.json")])            # somebody's: the first by name
def test_what_a_folder_holds(tmp_path, names, found):
    assert held_by(filled(tmp_path, names)) == found


def test_a_folder_that_is_not_there_holds_nothing(tmp_path):
    assert held_by(tmp_path / "none") == "" and held_by(tmp_path / ("a" * 300)) == ""


@pytest.mark.parametrize("names, resume, overwrite, refused", [
    ("", False, False, None), ("", True, False, None), (WHOLE, False, True, None),
    ("metrics", True, False, None), ("metrics", False, True, None), ("model.pt", False, True, None),
    (WHOLE, False, False, "holds a finished run: keep it with --resume, delete it with --overwrite, or"),
    ("metrics", False, False, "holds an unfinished run: go on with --resume, delete it with --overwrite"),
    ("model.pt", False, False, "holds model.pt: delete it with --overwrite, or name another --out"),
    ("model.pt", True, False, "holds model.pt: delete it with --overwrite, or name another --out")])
def test_a_run_may_write_where_none_is_or_where_it_was_asked_to(tmp_path, names, resume, overwrite, refused):
    config = StageConfig(out=str(filled(tmp_path, names)), resume=resume, overwrite=overwrite)
    if refused is None:
        check_free(tmp_path, config)
    else:
        with pytest.raises(UserError, match=refused):
            check_free(tmp_path, config)


FILES = ["metrics.jsonl", "state.pt", "model.pt", "config.json", "tokenizer.json", "comparison.json",
         "calibration.json", "report.html", "model.pt.part", "state.pt.part"]


@pytest.mark.parametrize("kind", ["link", "hard link", "folder"])
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("flag", ["", "resume", "overwrite"])
def test_a_link_or_folder_where_a_file_is_to_be_is_refused_before_anything(tmp_path, name, kind, flag):
    far, near = tmp_path / "far", filled(tmp_path / "run", "metrics state.pt mine.txt")
    far.write_text("far")
    (near / name).unlink(missing_ok=True)
    {"link": lambda: (near / name).symlink_to(far), "hard link": lambda: os.link(far, near / name),
     "folder": (near / name).mkdir}[kind]()
    config = StageConfig(out=str(near), **{flag: True} if flag else {})
    before = sorted((path.name, path.is_dir() or path.read_text()) for path in near.iterdir())
    with pytest.raises(UserError, match=f"run.{name}: a .*; move it away, or name another folder"):
        check_free(near, config)
    assert sorted((path.name, path.is_dir() or path.read_text()) for path in near.iterdir()) == before


@pytest.mark.parametrize("left", ["mine.txt", "model.pt.part"])
def test_what_is_no_file_of_a_run_and_what_a_kill_left_is_no_obstacle(tmp_path, left):
    near = filled(tmp_path / "run", f"metrics state.pt {left}")
    (tmp_path / "far").write_text("far")
    (near / "model.pt.old").symlink_to(tmp_path / "far")
    (tmp_path / "link").symlink_to(near)   # the folder itself may be somewhere else
    for flags in ({"resume": True}, {"overwrite": True}):
        check_free(tmp_path / "link", StageConfig(out=str(tmp_path / "link"), **flags))


@pytest.mark.parametrize("kind", ["link", "hard link"])
def test_a_record_that_is_a_link_is_not_opened_for_writing(tmp_path, kind):
    (tmp_path / "far").write_text("far")
    (tmp_path / "run").mkdir()
    record = tmp_path / "run/metrics.jsonl"
    record.symlink_to(tmp_path / "far") if kind == "link" else os.link(tmp_path / "far", record)
    with pytest.raises(UserError, match="metrics.jsonl: a .*link"):
        claim(tmp_path / "run")


@pytest.mark.parametrize("out", ["", "  "])
def test_an_empty_name_is_no_folder(tmp_path, out):
    with pytest.raises(UserError, match="--out is empty; name a folder"):
        check_free(tmp_path, StageConfig(out=out))


@dataclass
class FromModels(StageConfig):
    model: str = "model"
    reward: str = "reward"


@pytest.mark.parametrize("name", ["model", "./model", "new/../reward"])
def test_a_folder_that_is_read_from_is_not_written_to(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert read_from(FromModels()) == ["model", "reward"] and read_from(StageConfig()) == []
    with pytest.raises(UserError, match="is also read from; name another folder"):
        check_free(tmp_path / name, FromModels(out=name, overwrite=True))


def finished(folder, config, when):
    """A finished run with the settings of a config, of that many seconds since 1970."""
    filled(folder, WHOLE)
    about = {"stage": "ppo", "model": {}, "settings": settings(config)}
    (folder / "config.json").write_text(json.dumps(about))
    os.utime(folder / "config.json", (when, when))
    return folder


def test_a_finished_run_with_the_same_flags_is_kept_and_the_script_leaves_well(
        tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = FromModels(out="new", resume=True)
    for name, when in (("new", 2000), ("model", 1000), ("reward", 3000)):
        finished(tmp_path / name, config, when)
    with pytest.raises(SystemExit) as left:
        check_free(tmp_path / "new", config)
    out, err = capsys.readouterr()
    assert left.value.code == 0 and out == f"{tmp_path / 'new'}: finished already\n"
    assert err == f"note: reward is newer than {tmp_path / 'new'}; --overwrite makes it anew\n"
    with pytest.raises(UserError, match="--seed was 0, now 1"):
        check_free(tmp_path / "new", replace(config, seed=1))


def test_a_finished_run_may_have_links_to_it_nothing_is_written(tmp_path, capsys):
    config = StageConfig(out=str(tmp_path / "new"), resume=True)
    finished(tmp_path / "new", config, 1000)
    os.link(tmp_path / "new/model.pt", tmp_path / "backup.pt")
    with pytest.raises(SystemExit):
        check_free(tmp_path / "new", config)
    assert "finished already" in capsys.readouterr().out


def test_when_a_run_was_finished(tmp_path):
    assert finished_at(finished(tmp_path / "new", FromModels(), 1234)) == 1234
    assert finished_at(tmp_path / "none") == 0


@pytest.mark.parametrize("before, note", [
    ("movies", ""), ("toy", "note: {0} was trained on --data toy, not on movies; unless you mean that, give "
                            "the same\n")])
def test_a_model_of_other_data_is_noted(tmp_path, capsys, before, note):
    model = str(finished(tmp_path, FromModels(data=before), 1000))
    note_other_data(FromModels(model=model, data="movies"))
    assert capsys.readouterr().err == note.format(model)


@posix
def test_a_folder_is_one_run_s_until_what_claims_it_is_closed(tmp_path):
    folder = tmp_path / "a" / "b"
    with claim(folder):
        with pytest.raises(UserError, match="b/metrics.jsonl: another run is writing it at this moment"):
            claim(folder)
        with claim(tmp_path / "other"):   # which is nobody's
            pass
    with claim(folder):
        pass
    assert (folder / "metrics.jsonl").read_bytes() == b""


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="file: cannot be written .*; name another folder"):
        claim(tmp_path / "file")
