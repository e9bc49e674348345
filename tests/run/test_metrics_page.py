"""docs/metrics.md and what the stages write agree, key by key; its snippets run."""

import json
import re
import sys
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.outside import ROOT

PAGE = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
SECTIONS = {title.split(":")[0]: text for title, text in
            re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", PAGE, re.MULTILINE)}
STAGES = {"Stage 1": "pretrain", "Stage 2": "reward", "Stage 3": "ppo"}   # folders of the small world


def rows_of(section):
    """The cells of each row of a section's table: key, unit, meaning, normal, computed in."""
    lines = [line for line in SECTIONS[section].splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def keys_of(section):
    return [row[0].strip("`") for row in rows_of(section)]


@pytest.mark.parametrize("section", STAGES)
def test_a_stage_writes_the_keys_that_the_page_has_and_no_others(made, section):
    listed = keys_of("Every stage") + keys_of(section)
    assert len(set(listed)) == len(listed)
    record = (made / STAGES[section] / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert record and all(set(json.loads(line)) == set(listed) for line in record)


ROWS = [row for section in ("Every stage", *STAGES) for row in rows_of(section)]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_every_key_has_a_unit_a_meaning_and_what_is_normal_and_stands_in_the_file_it_is_said_to(row):
    assert len(row) == 5 and all(row), row
    key, where = row[0].strip("`"), row[4].strip("`").split(".")
    is_script = where[0] in ("pretrain", "train_reward", "finetune_ppo")
    length = next(n for n in range(len(where) - 1, 0, -1)   # of the module's name; the rest is a function's
                  if (ROOT / ("" if is_script else "minippo") / f"{'/'.join(where[:n])}.py").exists())
    module = import_module(".".join(([] if is_script else ["minippo"]) + where[:length]))
    found = module
    for name in where[length:]:
        found = getattr(found, name)
    assert callable(found) and f'"{key}"' in Path(module.__file__).read_text(encoding="utf-8")


def snippet(word, path):
    """The block of Python on the page that imports `word`, its file replaced."""
    block, = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if f"{word}\n" in block]
    assert block.count("runs/ppo/metrics.jsonl") == 1
    return block.replace("runs/ppo/metrics.jsonl", path.as_posix())


RECORD = '{"iteration": 0, "objective/kl": 0.5}\n{"iteration": 1, "objective/kl": null}\n'


def test_pandas_reads_a_row_an_iteration(tmp_path):
    pytest.importorskip("pandas")
    (tmp_path / "metrics.jsonl").write_text(RECORD)
    names = {}
    exec(snippet("pandas", tmp_path / "metrics.jsonl"), names)
    table = names["table"]
    assert list(table.columns) == ["iteration", "objective/kl"] and list(table["iteration"]) == [0, 1]
    assert table["objective/kl"][0] == 0.5 and table["objective/kl"].isna()[1]


def test_the_lines_for_weights_and_biases_log_every_iteration(tmp_path, monkeypatch):
    (tmp_path / "metrics.jsonl").write_text(RECORD)
    logged = []

    @contextmanager
    def init(project):
        logged.append(project)
        yield
        logged.append("finished")
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, log=logged.append))
    exec(snippet("json, wandb", tmp_path / "metrics.jsonl"), {})
    assert logged == ["minippo", {"iteration": 0, "objective/kl": 0.5},
                      {"iteration": 1, "objective/kl": None}, "finished"]
