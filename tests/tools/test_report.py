"""The page about PPO runs: what it shows, what it leaves out, and what it refuses in one line."""

import json
import os
import re
import sys
from types import SimpleNamespace

import pytest

import finetune_ppo
from minippo.run.commands import COMMANDS
from minippo.run.errors import UserError
from minippo.run.exits import launch
from minippo.run.flags import settings
from minippo.tools import report
from minippo.tools.report import Config, add_to, main
from minippo.tools.shared import curves
from tests.robustness.posix import posix
from tests.tools.test_page import DARK, HOSTILE, LIGHT, SHOWN, Read, contrast

ROWS = [dict.fromkeys(curves.KEYS, 0.5) | {"iteration": i, "objective/scores": score, "objective/kl": kl}
        for i, (score, kl) in enumerate([(0.1, 0.0), (0.4, 1.5), (0.9, 2.5)])]
FIGURES = {
    "reference": {"score": 0.113, "kl": 0.0, "distinct_2": 0.709, "length": 14.96, "ended": 0.816,
                  "judged_positive": 0.518},
    "policy": {"score": 1.312, "kl": 3.398, "distinct_2": 0.6685, "length": 10.7, "ended": 0.992,
               "judged_positive": 0.879},
    "best_of_n": {"n": 64, "prompts": 63, "score": 1.74, "kl": 3.175, "distinct_2": 0.871, "length": 13.7,
                  "ended": 1.0, "judged_positive": 0.891, "policy": {"distinct_2": 0.812, "score": 1.25}},
    "judge_accuracy": 0.747,
    "samples": [{"prompt": "the movie is", "reference": {"score": -0.96, "text": " a woman."},
                 "policy": {"score": 1.456, "text": " a comedy. "}}]}
CALIBRATION = {"pairs": 100, "texts": 40, "accuracy": 0.739, "bag_of_words": 0.7365, "ceiling": 0.887,
               "calibration_error": 0.08, "by_margin": [[0.0, 0.54, 0.15], [2.0, 0.87, 0.45]],
               "bins": [[0.55, 0.5, 0.4], [0.9, 0.8, 0.6]]}


def put(folder, rows=ROWS, figures=None, stage="ppo", **changed):
    """A run's folder with this record: dicts, or text as it is; finished if there are figures."""
    folder.mkdir(parents=True)
    text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    if figures is not None:
        usual = settings(finetune_ppo.Config())
        about = {"stage": stage, "model": {}, "settings": usual | changed, "defaults": usual}
        (folder / "config.json").write_text(json.dumps(about))
        (folder / "comparison.json").write_text(json.dumps(figures))
    return str(folder)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Writes the page of folders in tmp_path and reads it; .text is the file, .bodies its rows of cells."""
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)

    def make(*names):
        main(Config(runs=names))
        text = (tmp_path / "report.html").read_text(encoding="utf-8")
        found = Read(text)
        found.text = text
        found.rows = [Read(row).texts for row in re.findall("<tr>.*?</tr>", text)]
        found.rows = [[cell for _, cell in row] for row in found.rows]
        return found
    return make


@pytest.fixture
def drawn(monkeypatch):
    """Collects the lines that are drawn: (x, y, dashes, colour)."""
    axes = pytest.importorskip("matplotlib.axes").Axes
    found = []

    def plot(self, x, y, dashes, right=axes.plot, **how):
        found.append((x, y, dashes, how["color"]))
        return right(self, x, y, dashes, **how)
    monkeypatch.setattr(axes, "plot", plot)
    return found


@pytest.fixture
def quick(monkeypatch):
    """No curves are drawn: for what stands beside them."""
    monkeypatch.setattr(curves, "panel", lambda *given: "")


# ---------------------------------------------------------------- what the page shows

def test_every_quantity_is_a_panel_with_a_line_per_run(tmp_path, made, drawn):
    put(tmp_path / "one", figures=FIGURES), put(tmp_path / "other", ROWS[:2])
    page = made("one", "other")
    assert page.tags.count("figure") == len(curves.KEYS) == 11
    assert [len(x) for x, *_ in drawn] == [3, 2] * 11
    by_key = dict(zip(curves.KEYS, zip(drawn[::2], drawn[1::2])))
    (x, y, solid, colour), (_, _, dashed, another) = by_key["objective/scores"]
    assert (x, y) == ([1, 2, 3], [0.1, 0.4, 0.9])   # the first iteration is 1
    assert by_key["objective/kl"][1][:2] == ([1, 2], [0.0, 1.5])
    assert solid != dashed and colour != another    # no run is told by its colour alone
    titles = ["Score", "Paid", "KL from the reference", "Total loss", "Mean reward", "Entropy",
              "Clip fraction", "Ratio", "Explained variance", "Length", "Ended"]
    assert [x for x in page.of("b") if x in titles] == titles
    assert "A falling loss is not success" in page.text


def test_the_legend_names_the_runs_and_how_far_they_are(tmp_path, made, quick):
    put(tmp_path / "one", figures=FIGURES), put(tmp_path / "other", ROWS[:2])
    page = made("one", "other", "one")   # named twice, it is one run
    assert page.of("h1") == ["PPO: 2 runs"]
    assert [text for text in page.of("li") if text.strip()] == [
        " 3 iterations; in the last one score +0.90, KL 2.50 nats",
        " 2 iterations so far, the run has not ended; in the last one score +0.40, KL 1.50 nats"]
    dashes = [value for key, value in page.attributes if key == "stroke-dasharray"]
    assert dashes == ["", "6 3"]
    alone = made("one")
    assert alone.of("h1") == ["PPO: one"] and 'class="key"' not in alone.text


def test_the_figures_and_the_samples_stand_before_and_after(tmp_path, made, quick):
    put(tmp_path / "run", figures=FIGURES)
    page = made("run")
    for row in (["score", "judged positive", "KL, nats", "distinct word pairs", "length, tokens", "ended"],
                ["before (reference)", "+0.11", "52%", "0.00", "0.71", "15.0", "82%"],
                ["after (policy)", "+1.31", "88%", "3.40", "0.67", "10.7", "99%"],
                ["best of 64 by the reference, 63 prompts", "+1.74", "89%", "3.17", "0.87", "13.7", "100%"],
                ["after (policy), on these prompts", "+1.25", "-", "-", "0.81", "-", "-"],
                ["prompt", "before (reference)", "after (policy)"],
                ["the movie is ...", "-0.96  a woman.", "+1.46  a comedy."]):
        assert row in page.rows
    assert "It is right on 75% of held-out texts" in page.text


def test_settings_that_differ_are_marked_by_words_and_stand_apart(tmp_path, made, quick):
    put(tmp_path / "usual", figures={}), put(tmp_path / "other", figures={}, kl_coef=0.05, target="negative")
    page = made("usual", "other")
    marked, folded = page.text.split("<details>")
    assert ["--kl-coef", "0.2", "0.05 (default 0.2)"] in page.rows
    assert ["--target", "positive", "negative (default positive)"] in page.rows
    assert page.text.count("(default ") == 2
    assert "--kl-coef" in marked and "--kl-coef" not in folded
    assert "--gamma" in folded and "--gamma" not in marked
    number = len(settings(finetune_ppo.Config())) - 2
    assert page.of("summary") == [f"The other {number} settings"]
    assert "Nothing differs from the defaults." in made("usual").text


def test_what_differs_from_run_to_run_stands_apart_though_nobody_kept_the_defaults(tmp_path, made, quick):
    for name, beta in (("one", 0.1), ("other", 0.2)):
        put(tmp_path / name, figures={}, kl_coef=beta)
        about = json.loads((tmp_path / name / "config.json").read_text())
        del about["defaults"]   # as an earlier version wrote it
        (tmp_path / name / "config.json").write_text(json.dumps(about))
    page = made("one", "other")
    assert ["--kl-coef", "0.1", "0.2"] in page.rows and "(default " not in page.text
    assert "--kl-coef" in page.text.split("<details>")[0]
    assert "The version that made other kept no defaults, so nothing is marked." in page.text
    assert "Nothing differs" not in made("one").text


def test_the_reward_model_is_shown_as_stage_2_measured_it(tmp_path, made, drawn, quick):
    put(tmp_path / "run", figures={}, reward="judged")
    (tmp_path / "judged").mkdir()
    (tmp_path / "judged/calibration.json").write_text(json.dumps(CALIBRATION))
    page = made("run")
    for row in (["accuracy on pairs of held-out texts", "0.739"], ["people's ceiling", "0.887"],
                ["expected calibration error", "0.080"], ["scores differ by", "right", "of pairs"],
                ["from 0", "54%", "15%"], ["from 2", "87%", "45%"]):
        assert row in page.rows
    assert "two raters agree" not in page.text   # nobody measured it
    assert drawn[-1][:2] == ([0.55, 0.9], [0.5, 0.8])   # how sure, how often right


def test_a_reward_model_that_is_not_there_is_one_sentence(tmp_path, made, quick):
    put(tmp_path / "run", figures={}, reward="gone")
    assert "<code>gone</code>: from here no calibration.json is seen in it" in made("run").text
    (tmp_path / "file").write_text("")
    put(tmp_path / "odd", figures={}, reward="file")
    assert "<code>file</code>: from here no" in made("odd").text


def test_over_optimisation_is_shown_where_its_folder_is_given(tmp_path, made, quick):
    put(tmp_path / "run", figures={})
    (tmp_path / "measured").mkdir()
    (tmp_path / "measured/points.json").write_text("{}")
    (tmp_path / "measured/table.md").write_text(
        "|  | KL | learned score |\n| --- | --- | --- |\n| best of 4 | 0.64 | 1.02 |\n\nPPO: turns <b>.\n")
    page = made("run", "measured")
    assert [" best of 4 ", " 0.64 ", " 1.02 "] in page.rows
    assert " PPO: turns <b>." in page.of("p") and page.of("h1") == ["PPO: run"]
    assert "Over-optimisation" not in made("run").text
    (tmp_path / "measured/table.md").unlink()
    with pytest.raises(UserError, match="table.md: cannot be read .*; run `overoptimization` again"):
        made("run", "measured")
    with pytest.raises(UserError, match="no run to report on; name the folder of a run of finetune_ppo.py"):
        made("measured")


# ---------------------------------------------------------------- a page like any other of ours

def test_the_page_needs_nothing_but_itself_and_each_id_is_there_once(tmp_path, made):
    put(tmp_path / "run", figures=FIGURES)
    page = made("run")
    ids = [value for key, value in page.attributes if key == "id"]
    assert len(ids) > 100 and len(ids) == len(set(ids))
    uses = re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', page.text)
    assert len(uses) > 50 and {one or other for one, other in uses} <= set(ids)
    assert "script" not in page.tags and "metadata" not in page.tags
    links = re.findall(r'(?:href|src)="([^"]*)"', page.text)
    assert all(link.startswith("#") for link in links)
    labels = [value for key, value in page.attributes if key == "aria-label"]
    assert labels[:2] == ["Score over the iterations", "Paid over the iterations"]


def test_the_same_run_gives_the_same_page_to_the_byte(tmp_path, made):
    put(tmp_path / "run", figures=FIGURES)
    assert made("run").text == made("run").text


def test_each_line_can_be_seen_on_both_grounds():
    for colour in curves.COLOURS:
        for theme in (LIGHT, DARK):
            assert contrast(colour, theme["ground"]) >= 3, colour
    assert len({curves.style(i) for i in range(12)}) == 12


@posix   # Windows has no such names of folders
def test_hostile_texts_names_and_settings_are_shown_as_text(tmp_path, made, quick):
    bad = HOSTILE.replace("/", "").replace("\0", "")   # which no name of a folder can hold
    figures = FIGURES | {"samples": [{"prompt": HOSTILE, "reference": {"score": "<b>", "text": HOSTILE},
                                      "policy": {"score": 10 ** 400, "text": "\ud800"}}, 7]}
    put(tmp_path / bad, figures=figures, model=HOSTILE, **{HOSTILE: [HOSTILE]})
    page = made(bad, put(tmp_path / "other"))
    assert page.tags.count("script") == 0 and page.tags.count("b") == 11 + 2   # panels and runs
    assert [f"{SHOWN} ...", f"-  {SHOWN}", "-  ?"] in page.rows
    name = SHOWN.replace("/", "").replace("\\x00", "")
    assert name in page.of("b") and name in page.of("h3")
    assert ["--model", f"{SHOWN} (default runs/pretrain)", "-"] in page.rows


@pytest.mark.parametrize("text", ["[]", "{}", '{"policy": 3, "reference": [], "samples": {}}',
                                  '{"policy": {"score": "x"}, "judge_accuracy": {}, "samples": [[]]}'])
def test_figures_of_any_shape_make_a_page_or_a_line(tmp_path, made, text, quick):
    put(tmp_path / "run", figures={})
    (tmp_path / "run/comparison.json").write_text(text)
    if text == "[]":
        with pytest.raises(UserError, match="comparison.json: no figures by name; run the stage again"):
            made("run")
    else:
        assert "Before and after" in made("run").text


@pytest.mark.parametrize("bins", [None, 3, [1, [2]], [["a", None, 0.1]], [[10 ** 400, 0.5, 0.5]]])
def test_a_calibration_of_any_shape_makes_a_page(tmp_path, made, bins, quick):
    put(tmp_path / "run", figures={}, reward="reward")
    (tmp_path / "reward").mkdir()
    (tmp_path / "reward/calibration.json").write_text(json.dumps(
        {"accuracy": "<b>", "raters": None, "by_margin": bins, "bins": bins}))
    assert ["accuracy on pairs of held-out texts", "-"] in made("run").rows


# ---------------------------------------------------------------- records

def test_a_number_that_is_none_leaves_a_gap(tmp_path, made, drawn):
    values = [1.5, 2.5, None]   # None, as metrics.jsonl writes infinity
    put(tmp_path / "run", [row | {"objective/kl": x} for row, x in zip(ROWS, values)])
    assert "KL - nats" in made("run").text
    assert [y == y for y in drawn[2][1]] == [True, True, False]


def test_a_run_of_one_iteration_is_a_point(tmp_path, made):
    put(tmp_path / "run", ROWS[:1])
    assert made("run").tags.count("figure") == 11


def test_a_last_line_that_is_still_being_written_is_left_out(tmp_path, made, drawn):
    put(tmp_path / "run", "".join(json.dumps(row) + "\n" for row in ROWS[:2]) + '{"iteration": 2, "obj')
    assert "2 iterations so far, the run has not ended" in made("run").text
    assert drawn[0][1] == [0.1, 0.4]


OLD = {key: x for key, x in ROWS[0].items() if key != "objective/paid"}


@pytest.mark.parametrize("rows, message", [
    ("", "no iteration yet; wait for the first, or name another run"),
    ([{"iteration": 0, "loss/train": 2.0}],                                # of pretrain.py
     "iteration 0 has no objective/scores: no record of finetune_ppo.py, or of another version of it"),
    ([OLD], "iteration 0 has no objective/paid: no record of finetune_ppo.py, or of another version of it"),
    ([{key: x for key, x in ROWS[0].items() if key != "iteration"}], "iteration None has no iteration"),
    ("[1]\n", "line 1 is no row of numbers"), ('{"iteration": 1, "objec\n', "line 1 is no row of numbers"),
    ("[" * 100_000 + "\n", "line 1 is no row of numbers")],
    ids=["empty", "pretraining", "old", "no iteration", "no rows", "damaged", "deep"])
def test_what_is_no_record_of_stage_3_is_named(tmp_path, monkeypatch, rows, message):
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "run", rows)
    with pytest.raises(UserError, match=f"run.metrics.jsonl: {re.escape(message)}"):
        main(Config(runs=("run",)))
    assert not (tmp_path / "report.html").exists()


def test_a_folder_that_is_not_there_and_one_that_is_no_text_are_named(tmp_path):
    put(tmp_path / "run", "")
    (tmp_path / "run/metrics.jsonl").write_bytes(b"\xff\xfe\x00")
    for name in ("none", "run", "a" * 300, "x\0y"):
        with pytest.raises(UserError, match=r"metrics.jsonl: cannot be read .*; name the folder of a run"):
            main(Config(runs=(str(tmp_path / name),)))
    with pytest.raises(UserError, match="no run to report on"):
        main(Config(runs=()))


@posix
@pytest.mark.parametrize("make", [lambda path: os.mkfifo(path), lambda path: path.symlink_to("/dev/zero")],
                         ids=["fifo", "device"])
def test_a_record_that_is_a_pipe_or_a_device_is_not_waited_for(tmp_path, make):
    make(tmp_path / "metrics.jsonl")
    with pytest.raises(UserError, match="metrics.jsonl: cannot be read .*no regular file but a pipe"):
        main(Config(runs=(str(tmp_path),)))


# ---------------------------------------------------------------- score and KL alone

def test_score_and_kl_alone_go_into_a_file_and_no_page_is_written(tmp_path, monkeypatch, drawn, capsys):
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "run", [{key: row[key] for key in ("iteration", *curves.ALONE)} for row in ROWS])
    main(Config(runs=("run",), png="curve.svg"))
    assert [line[:2] for line in drawn] == [([1, 2, 3], [0.1, 0.4, 0.9]), ([1, 2, 3], [0.0, 1.5, 2.5])]
    text = (tmp_path / "curve.svg").read_text(encoding="utf-8")
    assert text.rstrip().endswith("</svg>") and "<!-- run -->" not in text   # one run needs no legend
    for title in curves.ALONE.values():   # letters are paths in the file, and comments say what they spell
        assert f"<!-- {title} -->" in text
    assert capsys.readouterr().out == "written: curve.svg\n" and not (tmp_path / "report.html").exists()
    main(Config(runs=("run",), png="again.svg"))
    assert (tmp_path / "again.svg").read_text(encoding="utf-8") == text   # no date is in it


def test_two_runs_are_two_lines_in_each_and_a_legend_whatever_their_names(tmp_path, monkeypatch, drawn):
    monkeypatch.chdir(tmp_path)
    name = "a$^^b&$"   # a formula to matplotlib, and one that is wrong; the other name is hidden to it
    put(tmp_path / "_one", ROWS), put(tmp_path / name, ROWS[:1])
    main(Config(runs=("_one", name), png="curve.svg"))
    assert [len(x) for x, *_ in drawn] == [3, 1] * 2
    text = (tmp_path / "curve.svg").read_text(encoding="utf-8")
    assert "<!-- _one -->" in text and "<!-- a$^^b&amp;$ -->" in text


@pytest.mark.parametrize("name, begin", [("curve.png", b"\x89PNG"), ("curve.pdf", b"%PDF")])
def test_the_ending_says_the_format(tmp_path, drawn, name, begin):
    main(Config(runs=(put(tmp_path / "run"),), png=str(tmp_path / name)))
    assert (tmp_path / name).read_bytes()[:4] == begin


@pytest.mark.parametrize("png, message", [("nowhere/curve.svg", "--png nowhere/curve.svg: there is no such"),
                                          ("curve.xyz", "--png curve.xyz: the name has to end in .svg")])
def test_a_file_that_cannot_be_written_is_named(tmp_path, monkeypatch, drawn, png, message):
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "run")
    with pytest.raises(UserError, match=message):
        main(Config(runs=("run",), png=png))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


# ---------------------------------------------------------------- the page of a run that ends

def ending(folder, **flags):
    """What the end of a run of stage 3 knows of its Run: config.json is not there yet."""
    put(folder)
    (folder / "comparison.json").write_text(json.dumps(FIGURES))
    return SimpleNamespace(folder=folder, config=finetune_ppo.Config(out=str(folder), **flags))


def test_a_run_that_ends_leaves_a_page_that_does_not_say_where_it_stands(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    for name in ("here", "there"):
        add_to(ending(tmp_path / name / "ppo", lr=0.5))
    text = (tmp_path / "here/ppo/report.html").read_text(encoding="utf-8")
    assert Read(text).of("h1") == ["PPO: ppo"] and "0.5 (default 0.0001)" in text
    assert "has not ended" not in text and str(tmp_path) not in text
    assert (tmp_path / "there/ppo/report.html").read_text(encoding="utf-8") == text   # a folder may move
    assert capsys.readouterr() == ("", "")


def test_whatever_a_drawing_raises_a_run_ends_well_with_a_note(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")

    def no_latex(*given):
        raise RuntimeError("latex could not be found")
    monkeypatch.setattr(report, "html", no_latex)
    add_to(ending(tmp_path / "run"))
    assert capsys.readouterr().err.startswith("note: no page of this run: latex could not be found; then: ")


def test_without_matplotlib_the_command_is_an_error_and_a_run_ends_well_with_a_note(
        tmp_path, monkeypatch, capsys):
    assert "report" in COMMANDS and "curve" not in COMMANDS
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    add_to(ending(tmp_path / "run"))
    assert capsys.readouterr() == ("", "note: no page of this run: this needs matplotlib: pip install "
                                       f"matplotlib; then: python -m minippo report {tmp_path / 'run'}\n")
    for flags in ([], ["--png", "curve.svg"]):
        with pytest.raises(SystemExit) as left:
            launch(main, Config, "", ["run", *flags])
        assert left.value.code == 2
        assert capsys.readouterr() == ("", "error: this needs matplotlib: pip install matplotlib\n")
    assert not (tmp_path / "run/report.html").exists() and not (tmp_path / "report.html").exists()
