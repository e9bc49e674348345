"""The figure of score and KL over the iterations, drawn from the records of runs."""

import json
import os
import sys
from pathlib import Path

import pytest

from minippo.run.commands import COMMANDS
from minippo.run.errors import UserError
from minippo.run.exits import launch
from minippo.tools import curve
from minippo.tools.curve import Config, main, record
from tests.robustness.posix import posix

ROWS = [{"iteration": i, "objective/scores": score, "objective/kl": kl, "ppo/loss/total": 0.5}
        for i, (score, kl) in enumerate([(0.1, 0.0), (0.4, 1.5), (0.9, 2.5)])]


def put(folder, rows):
    """A run's folder with this record: dicts, or text as it is."""
    folder.mkdir(parents=True)
    text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    return str(folder)


@pytest.fixture
def drawn(monkeypatch):
    """Collects the lines that are drawn: (x, y, label)."""
    axes = pytest.importorskip("matplotlib.axes").Axes
    found = []

    def plot(self, x, y, label, right=axes.plot):
        found.append((x, y, label))
        return right(self, x, y, label=label)
    monkeypatch.setattr(axes, "plot", plot)
    return found


def test_a_line_of_scores_and_one_of_kl_go_into_the_file(tmp_path, drawn):
    main(Config(runs=put(tmp_path / "run", ROWS), out=str(tmp_path / "curve.svg")))
    name = str(tmp_path / "run")
    assert drawn == [([1, 2, 3], [0.1, 0.4, 0.9], name), ([1, 2, 3], [0.0, 1.5, 2.5], name)]
    text = (tmp_path / "curve.svg").read_text(encoding="utf-8")
    assert text.rstrip().endswith("</svg>")
    for title in curve.PANELS.values():   # letters are paths in the file, and comments say what they spell
        assert f"<!-- {title} -->" in text
    assert f"<!-- {name} -->" not in text   # one run needs no legend


def test_two_runs_are_two_lines_in_each_panel_and_a_legend(tmp_path, drawn):
    one, other = put(tmp_path / "one", ROWS), put(tmp_path / "other", ROWS[:1])
    main(Config(runs=f"{one},{other}", out=str(tmp_path / "curve.svg")))
    assert [(len(x), label) for x, _, label in drawn] == [(3, one), (1, other)] * 2
    text = (tmp_path / "curve.svg").read_text(encoding="utf-8")
    assert f"<!-- {one} -->" in text and f"<!-- {other} -->" in text


def test_the_ending_says_the_format(tmp_path, drawn):
    run = put(tmp_path / "run", ROWS)
    main(Config(runs=run, out=str(tmp_path / "curve.png")))
    assert (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"


def test_a_number_that_was_not_finite_leaves_a_gap(tmp_path, drawn):
    rows = [ROWS[0], ROWS[1] | {"objective/kl": None}, ROWS[2]]   # as metrics.jsonl writes infinity
    main(Config(runs=put(tmp_path / "run", rows), out=str(tmp_path / "curve.svg")))
    assert drawn[1][1] == [0.0, None, 2.5] and (tmp_path / "curve.svg").exists()


@pytest.mark.parametrize("rows, message", [
    ("", "no record of finetune_ppo.py; name a folder that it wrote"),                  # just begun
    ([{"iteration": 0, "loss/train": 2.0}], "no record of finetune_ppo.py; name a folder"),   # of pretrain.py
    ([{"iteration": 0, "objective/scores": 2.0}], "no record of finetune_ppo.py"),      # half of it
    ([dict.fromkeys(curve.PANELS, 0.0)], "no record of finetune_ppo.py"),                 # without a number
    ("[1]\n", "no record of finetune_ppo.py"),
    (json.dumps(ROWS[0]) + '\n{"iteration": 1, "objec', "cannot be read .*; name the folder of a run"),
    ("[" * 100_000, "cannot be read .*; name the folder of a run")],
    ids=["empty", "pretraining", "half a row", "no iteration", "no rows", "half-written", "deep"])
def test_what_is_no_record_of_stage_3_is_named(tmp_path, rows, message):
    with pytest.raises(UserError, match=f"metrics.jsonl: {message}"):
        record(Path(put(tmp_path / "run", rows)))


def test_a_folder_that_is_not_there_and_one_that_is_no_text_are_named(tmp_path):
    put(tmp_path / "run", "")
    (tmp_path / "run/metrics.jsonl").write_bytes(b"\xff\xfe\x00")
    for name in ("none", "run"):
        with pytest.raises(UserError, match=f"{name}.metrics.jsonl: cannot be read"):
            record(tmp_path / name)


@posix
@pytest.mark.parametrize("make", [lambda path: os.mkfifo(path), lambda path: path.symlink_to("/dev/zero")],
                         ids=["fifo", "device"])
def test_a_record_that_is_a_pipe_or_a_device_is_not_waited_for(tmp_path, make):
    make(tmp_path / "metrics.jsonl")
    with pytest.raises(UserError, match="metrics.jsonl: cannot be read .*no regular file but a pipe"):
        record(tmp_path)


@pytest.mark.parametrize("out", ["nowhere/curve.svg", "curve.xyz"])
def test_a_file_that_cannot_be_written_is_named(tmp_path, monkeypatch, drawn, out):
    monkeypatch.chdir(tmp_path)
    run = put(tmp_path / "run", ROWS)
    with pytest.raises(UserError, match=f"--out {out}: cannot be written"):
        main(Config(runs=run, out=out))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_without_matplotlib_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    assert "curve" in COMMANDS
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    run = put(tmp_path / "run", ROWS)
    with pytest.raises(SystemExit) as left:
        launch(main, Config, "", ["--runs", run, "--out", str(tmp_path / "curve.svg")])
    assert left.value.code == 2 and not (tmp_path / "curve.svg").exists()
    assert capsys.readouterr() == ("", "error: this needs matplotlib: pip install matplotlib\n")
