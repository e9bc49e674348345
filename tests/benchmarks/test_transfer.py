"""Reward models on other kinds of text: whose accuracy stands where, and that seeds make one row."""

import json

import pytest
import torch

from benchmarks import transfer
from minippo.run.errors import UserError
from minippo.tokenizer import Tokenizer
from tests.tools.folders import put


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Two kinds of 400 texts, of which "good" is liked in one and "bad" in the other; three reward models."""
    monkeypatch.chdir(tmp_path)
    for name, liked in (("one", "good"), ("other", "bad")):
        lines = [{"text": f"{word} text {i}", "rating": int(word == liked)}
                 for i in range(200) for word in ("good", "bad")]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for folder, kind in (("a", "one.jsonl"), ("b", "one.jsonl"), ("c", "other.jsonl")):
        put(tmp_path / folder, "reward", Tokenizer.train([], 257))
        path = tmp_path / folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"settings": {"data": kind}}))
    return transfer.Config(rewards=("a", "b", "c"), data="one.jsonl,other.jsonl", count=500)


def test_seeds_of_a_kind_share_a_row_and_each_kind_of_text_has_a_column(config, monkeypatch, capsys):
    load = transfer.checkpoint.load_reward

    def loaded(folder):
        model, tokenizer = load(folder)
        model.likes = tokenizer.encode({"a": "good", "b": "bad", "c": "bad"}[folder])
        return model, tokenizer

    def score_all(reward, examples):
        return torch.tensor([float(reward.likes == tokens[:len(reward.likes)]) for _, tokens in examples])
    monkeypatch.setattr(transfer.checkpoint, "load_reward", loaded)
    monkeypatch.setattr(transfer.calibration, "score_all", score_all)
    transfer.main(config)
    lines = [[cell.strip() for cell in line.strip("|").split("|")]
             for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["reward model of", "one.jsonl", "other.jsonl"]
    # a and b learned from one, and b likes the wrong word there; c learned from the other
    assert lines[2] == ["one.jsonl (2)", "0.500 (0.000 to 1.000)", "0.500 (0.000 to 1.000)"]
    assert lines[3] == ["other.jsonl (1)", "0.000", "1.000"]
    assert lines[4] == ["bag of words of that kind", "1.000", "1.000"]
    assert lines[5] == ["people's ceiling", "-", "-"]   # one rating a text


def test_data_that_nobody_rated_is_one_line(config, tmp_path):
    (tmp_path / "plain.txt").write_text("\n".join(f"text {i}" for i in range(100)))
    config.data = "plain.txt"
    with pytest.raises((UserError, ValueError), match="no preferences"):
        transfer.main(config)
