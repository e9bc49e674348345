"""Reading a run's folder: its record, also while it is written, its flags and its comparison."""

import json

import pytest

from minippo.run.errors import UserError
from minippo.tools.shared.runs import figures, record, settings


def put(folder, name, text):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_a_record_is_its_rows_and_none_stands_for_what_is_not_finite(tmp_path):
    put(tmp_path, "metrics.jsonl", '{"iteration": 0, "a": 1.5}\n{"iteration": 1, "a": null}\n')
    assert record(tmp_path, "a") == [{"iteration": 0, "a": 1.5}, {"iteration": 1, "a": None}]


def test_a_last_line_without_its_end_is_left_out_even_if_it_can_be_read(tmp_path):
    put(tmp_path, "metrics.jsonl", '{"iteration": 0}\n{"iteration": 1}')   # perhaps of {"iteration": 1, ...
    assert record(tmp_path) == [{"iteration": 0}]


@pytest.mark.parametrize("text", ["", '{"iteration": 0}'], ids=["empty", "the first is being written"])
def test_a_record_without_a_row_is_waited_for(tmp_path, text):
    put(tmp_path, "metrics.jsonl", text)
    with pytest.raises(UserError, match="metrics.jsonl: no iteration yet; wait for the first"):
        record(tmp_path)


@pytest.mark.parametrize("line", ["", "{", "[1]", '{"a": "1"}', '{"a": true}', '{"a": [1]}', "[" * 100_000],
                         ids=["empty", "half", "list", "text", "truth", "nested", "deep"])
def test_a_line_that_is_no_row_of_numbers_is_named(tmp_path, line):
    put(tmp_path, "metrics.jsonl", f'{{"iteration": 0}}\n{line}\n{{"iteration": 2}}\n')
    with pytest.raises(UserError, match="line 2 is no row of numbers; the record is damaged"):
        record(tmp_path)


def test_a_key_that_is_missing_in_one_row_is_named_with_its_iteration_and_script(tmp_path):
    put(tmp_path, "metrics.jsonl", '{"iteration": 4, "a": 1}\n{"iteration": 5}\n')
    with pytest.raises(UserError, match="iteration 5 has no a: no record of pretrain.py, or of another"):
        record(tmp_path, "a", script="pretrain.py")
    put(tmp_path, "metrics.jsonl", '{"a": 1}\n')
    with pytest.raises(UserError, match="iteration None has no iteration: no record of finetune_ppo.py"):
        record(tmp_path, "a")


def test_a_folder_without_a_record_or_with_bytes_that_are_no_text_is_named(tmp_path):
    with pytest.raises(UserError, match="metrics.jsonl: cannot be read .*; name the folder of a run"):
        record(tmp_path / "none")
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff\n")
    with pytest.raises(UserError, match="metrics.jsonl: cannot be read .*; name the folder of a run"):
        record(tmp_path)


def test_settings_are_those_of_a_finished_run_and_none_before(tmp_path):
    assert settings(tmp_path) == {}
    put(tmp_path, "config.json", json.dumps({"stage": "ppo", "model": {}, "settings": {"lr": 0.5}}))
    assert settings(tmp_path) == {"lr": 0.5}
    put(tmp_path, "config.json", "{}")
    with pytest.raises(UserError, match="config.json: damaged"):
        settings(tmp_path)


def test_figures_are_those_of_the_comparison_and_none_without(tmp_path):
    assert figures(tmp_path) == {}
    put(tmp_path, "comparison.json", '{"policy": {"kl": 2.0}}')
    assert figures(tmp_path) == {"policy": {"kl": 2.0}}


@pytest.mark.parametrize("text, message", [
    ("[1]", "no figures by name"), ("{", "cannot be read"), ("[" * 100_000, "cannot be read")],
    ids=["list", "half", "deep"])
def test_figures_that_are_none_are_named(tmp_path, text, message):
    put(tmp_path, "comparison.json", text)
    with pytest.raises(UserError, match=f"comparison.json: {message}.*; run the stage again"):
        figures(tmp_path)
