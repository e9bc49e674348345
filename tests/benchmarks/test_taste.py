"""The experiment with scripted labellers: what it counts, and what it does not do twice."""

import json
import os
from dataclasses import replace

import pytest

from benchmarks import taste
from minippo.run.errors import UserError
from minippo.run.exits import launch

FIGURES = {"labeller": "actors", "seed": 1, "answers": 200, "preferences": 90, "seconds": [60, 90, 150],
           "wins": 0.825, "error": 0.0125, "ties": 0.25, "kl": 4.04, "samples": []}


@pytest.fixture
def config(place):
    return taste.Config(model="pretrain", data="data.csv", out="runs", responses=16)


def test_a_duel_counts_wins_and_ties_half_and_knows_its_error(config):
    said = iter([1] * 4 + [0] * 8 + [-1] * 4 + [1] * 12 + [0] * 4)
    drawn = taste.duel(config, lambda ours, theirs: next(said), "ppo", 0)
    assert (drawn["wins"], drawn["ties"]) == (0.5, 0.5)
    # 1, 0, -1 with shares 1/4, 1/2, 1/4: deviation sqrt(1/2); of (x + 1) / 2 half of it; of a mean of 16 a
    # fourth of that
    assert drawn["error"] == pytest.approx(0.5 ** 0.5 / 2 / 4)
    won = taste.duel(config, lambda ours, theirs: next(said), "ppo", 0)
    assert (won["wins"], won["ties"]) == (0.875, 0.25)   # 12 wins, 4 ties of 16


def test_a_duel_is_of_the_policy_against_the_reference_in_that_order(config, monkeypatch):
    def generate(self, query, length, generator):
        return query[:, :1] * 0 + (70 if self.critic_is_trained else 80)
    monkeypatch.setattr(taste.ActorCritic, "generate", generate)
    monkeypatch.setattr(taste.ActorCritic, "critic_is_trained", property(
        lambda self: bool(self.value_head.weight.any())), raising=False)
    seen = []
    taste.duel(config, lambda ours, theirs: seen.append((ours, theirs)) or 0, "ppo", 0)
    _, tokenizer = taste.checkpoint.load_lm("pretrain")
    assert set(seen) == {(tokenizer.decode([70]), tokenizer.decode([80]))}


def test_what_is_finished_is_not_done_again_and_has_a_row(config, place, monkeypatch, capsys):
    monkeypatch.setattr(taste, "command", lambda *words: pytest.fail())
    (place / "runs/actors-0").mkdir(parents=True)
    settings = {"model": "pretrain", "data": "data.csv", "count": 200, "responses": 16,
                "reward_flags": taste.REWARD, "ppo_flags": taste.PPO}
    (place / "runs/actors-0/result.json").write_text(json.dumps(FIGURES | {"settings": settings}))
    config.labellers, config.seed_count = "actors", 1
    taste.main(config)
    assert capsys.readouterr().out.splitlines()[2] == (
        "| actors | 1 | 90 of 200 | 82.5% ± 1.2% | 25% | 4.0 | 1.0 | 1.5 | 2.5 | 5.0 |")
    with pytest.raises(UserError, match="result.json was made with other settings"):
        taste.main(replace(config, count=100))


def test_a_stage_is_timed_once_and_one_that_was_stopped_has_no_minutes(tmp_path, monkeypatch):
    said = []

    def stage(*words):
        said.append(words)
        if words == ("stopped",):
            raise KeyboardInterrupt
        return 90.0
    monkeypatch.setattr(taste, "command", stage)
    assert taste.timed(tmp_path, "label", "one") == taste.timed(tmp_path, "label", "one") == 90.0
    with pytest.raises(KeyboardInterrupt):
        taste.timed(tmp_path, "reward", "stopped")
    assert taste.timed(tmp_path, "reward", "two") is None and said == [("one",), ("stopped",), ("two",)]
    assert "| 1.5 | - | 1.5 | - |" in taste.table([FIGURES | {"seconds": [90.0, None, 90.0]}])


def test_the_labeller_is_asked_and_both_stages_run_on_its_file(config, monkeypatch):
    lines = []

    def note(*words):
        lines.append(list(map(str, words)))
        taste.Path("runs/noisy-2").mkdir(parents=True, exist_ok=True)
        taste.Path("runs/noisy-2/labels.jsonl").write_text("{}\n{}\n")
        return 1.0
    monkeypatch.setattr(taste, "command", note)
    rules = []
    monkeypatch.setattr(taste, "duel", lambda config, rule, folder, seed: rules.append(rule) or {"wins": 1.0})
    found = taste.run(config, "noisy", 2)
    assert (found["preferences"], found["wins"], found["seconds"]) == (2, 1.0, [1.0] * 3)
    assert rules == [taste.MEANT["noisy"]] and rules != [taste.RULES["noisy"]]
    label, reward, ppo = lines
    assert label[:3] == ["-m", "minippo", "label"] and label[label.index("--labeller") + 1] == "noisy"
    assert label[label.index("--out") + 1] == reward[reward.index("--data") + 1]
    assert reward[reward.index("--out") + 1] == ppo[ppo.index("--reward") + 1]
    assert all(line[line.index("--seed") + 1] == "2" for line in lines)


def test_a_mistake_is_named_and_a_stage_that_fails_ends_the_experiment(config, monkeypatch):
    config.labellers = "actors,nobody"
    with pytest.raises(UserError, match="--labellers nobody: there is shorter"):
        taste.main(config)
    with open(os.devnull, "w") as nowhere, pytest.raises(SystemExit) as left:
        monkeypatch.setattr(taste.sys, "stderr", nowhere)
        launch(taste.main, taste.Config, "", "--model nothing --labellers noisy --seed-count 1".split())
    assert left.value.code == 2
