"""Your own data through the three stages: each kind of file gives a language model, a score and a policy."""

import csv
import json
import random
from pathlib import Path

import pytest

import finetune_ppo
import pretrain
import train_reward
from minippo.run import checkpoint
from minippo.run.exits import launch

RANDOM = random.Random(0)
NOUNS, TIMES = ("film", "plot", "cast", "music"), ("last year", "this week", "that day")
TEXTS = [f"the {RANDOM.choice(NOUNS)} of {RANDOM.choice(TIMES)} was {mood} number {i}"
         for i in range(150) for mood in ("good", "bad")]


def lines():
    Path("own.txt").write_text("\n".join(TEXTS))
    Path("rules.py").write_text('def goods(texts):\n    return [float("good" in text) for text in texts]\n')
    return "own.txt"


def table():
    with open("IMDB Dataset.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("review", "sentiment"), *(
            (text, "positive" if "good" in text else "negative") for text in TEXTS)])
    return "IMDB Dataset.csv"


def pairs():
    rows = [{"chosen": good, "rejected": bad} for good, bad in zip(TEXTS[::2], TEXTS[1::2])]
    Path("own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return "own.jsonl"


def folder():
    for i, text in enumerate(TEXTS):
        path = Path("aclImdb/train", "pos" if "good" in text else "neg", f"{i}.txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return "aclImdb"


@pytest.mark.parametrize("kind", [lines, table, pairs, folder], ids=lambda kind: kind.__name__)
def test_your_own_data_goes_through_all_stages(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = ["--data", kind(), "--device", "cpu", "--precision", "fp32"]

    def stage(script, flags):
        launch(script.main, script.Config, "", [*data, *flags.split()])
    stage(pretrain, "--width 16 --heads 2 --layers 1 --vocab-size 300 --context 64 --passes 1 --samples 1")
    if kind is lines:   # nobody rated them: a function does
        score = "--score rules:goods"
    else:
        stage(train_reward, "--passes 1 --normalize-samples 64")
        score = ""
    stage(finetune_ppo, f"--iterations 2 --rollout-size 16 --minibatch-size 8 {score}")
    assert checkpoint.read_config("runs/ppo")["settings"]["data"] == data[1]
    figures = json.loads(Path("runs/ppo/comparison.json").read_text())
    rated = kind in (table, folder)   # the judge learns from ratings; pairs and bare lines have none
    assert ("judge_accuracy" in figures) == rated and "score" in figures["policy"]
