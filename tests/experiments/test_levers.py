"""Levers: runs with one thing changed, the weights averaged and mixed, and the tables."""

import math
from dataclasses import fields
from pathlib import Path

import pytest
import torch

import finetune_ppo
from minippo import data
from minippo.corpora.toy import toy
from minippo.experiments import levers, trials
from minippo.experiments.levers import (
    BASE,
    BEST,
    LEVERS,
    PRICES,
    Config,
    chosen,
    frontier,
    gain,
    gains,
    main,
    path,
)
from minippo.experiments.trials import (
    Bench,
    Trial,
    fit_values,
    measured,
    mixed,
    move,
    price,
    references,
    train,
)
from minippo.memory import PPOMemory
from minippo.ppo import collect
from minippo.run.errors import UserError
from tests.experiments.untrained import models_of_seed_5


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """Flags of a small run with untrained models of seed 5."""
    return models_of_seed_5(tmp_path_factory.mktemp("models")) | dict(best_of="1,4", prompts=8, responses=100)


@pytest.fixture(scope="module")
def bench(flags):
    config = Config(**flags | {"best_of": [1, 4]})
    return Bench(config, *(flags[name].replace("{seed}", "5") for name in ("model", "reward")), 5,
                 data.split(toy()))


def short(**changes):
    return Trial(**{"iterations": 3, "rollout_size": 16, "minibatch_size": 8} | changes)


def silent(i, stats):
    pass


# ---------------------------------------------------------------- one run

def test_a_trial_has_the_settings_of_stage_3():
    stage_3 = {field.name: field.default for field in fields(finetune_ppo.Config)}
    mine = {field.name: field.default for field in fields(Trial)}
    assert {name for name in mine if name in stage_3 and mine[name] != stage_3[name]} == {"kl_coef"}
    assert set(mine) - set(stage_3) == {"epsilon", "last_kl_coef", "values_first", "follow"}


def test_every_lever_changes_settings_of_a_trial_and_samples_as_many_responses():
    for name, changes in (PRICES | LEVERS).items():
        trial = Trial(**changes)
        assert (trial.iterations + trial.values_first) * trial.rollout_size == 60 * 256, name


def test_the_score_and_its_judges_learned_from_other_ratings(bench):
    parts = data.split(toy())
    assert bench.judge.bag.texts == bench.world.comparisons.texts == [row.text for row in parts["judge"]]


def test_the_price_of_kl_moves_in_equal_steps_to_the_last_one():
    falling = short(kl_coef=0.3, last_kl_coef=0.1)
    assert [price(falling, i) for i in range(3)] == pytest.approx([0.3, 0.2, 0.1])
    assert [price(short(kl_coef=0.3), i) for i in range(3)] == [0.3] * 3


def test_values_alone_learn_before_the_others(bench, monkeypatch):
    kls, seen = [], []
    true = trials.collect

    def watched(policy, reference, *given):
        rollout, stats = true(policy, reference, *given)
        kls.append((rollout.logprobs - rollout.reference_logprobs).abs().max().item())
        seen.append(rollout.values.abs().max().item())
        return rollout, stats

    monkeypatch.setattr(trials, "collect", watched)
    logged = []
    train(bench, short(values_first=2, lr=1e-2), lambda i, stats: logged.append(i))
    assert logged == [0, 1, 2] and len(kls) == 5
    assert max(kls[:3]) < 1e-5 < kls[3]          # the policy has not moved before its own first update
    assert seen[0] == 0 < seen[1] < seen[2]      # and the values have


@pytest.mark.parametrize("apart", [False, True])
def test_fitted_values_come_nearer_to_the_returns(bench, apart):
    trial = short(rollout_size=64, epochs=8, separate_critic=apart)
    policy, generator = bench.policy(trial), torch.Generator().manual_seed(0)
    query = bench.world.prompts.sample(64, generator)
    rollout, _ = collect(policy, bench.reference, bench.score, query, trial, generator)
    memory = PPOMemory()
    memory.store(rollout)
    before = {name: x.clone() for name, x in policy.lm.named_parameters()}
    fit_values(policy, memory, trial, generator)
    now = policy(rollout.query, rollout.response)[1].detach()
    error = [((values - rollout.returns)[rollout.mask] ** 2).mean() for values in (rollout.values, now)]
    assert error[1] < error[0]
    assert all(torch.equal(x, before[name]) for name, x in policy.lm.named_parameters())


def test_a_reference_that_follows_makes_kl_look_smaller(bench):
    seen = {follow: [] for follow in (0.0, 1.0)}
    for follow, kls in seen.items():
        train(bench, short(follow=follow, lr=1e-2), lambda i, stats: kls.append(stats["objective/kl"]))
    assert seen[0.0][0] == pytest.approx(0, abs=1e-4) and abs(seen[0.0][2]) > 0.01
    assert seen[1.0][2] == pytest.approx(0, abs=1e-4)   # it is the policy of the last iteration


def test_a_trial_is_the_loop_of_stage_3(bench, flags, monkeypatch):
    """The same numbers as finetune_ppo.py's first iterations, in which only its own generator differs."""
    logged = []
    policy, averages = train(bench, short(), lambda i, stats: logged.append((i, stats["objective/kl_coef"])))
    assert logged == [(0, 0.15), (1, 0.15), (2, 0.15)]
    weight = "lm.embedding.weight"
    start = dict(bench.reference.named_parameters())[weight]
    moved = {name: (dict(x.named_parameters())[weight] - start).norm().item()
             for name, x in {"policy": policy, **averages}.items()}
    # an average over three of its steps lags behind: of decay .97 more than of .9
    assert 0 < moved[0.97] < moved[0.9] < moved["policy"]


# ---------------------------------------------------------------- weights

def test_weights_move_the_share_of_the_way(bench):
    one, other = bench.policy(short()), bench.policy(short())
    with torch.no_grad():
        for weight in other.lm.parameters():
            weight += 1.0
    move(one, other, 0.25)
    start = dict(bench.reference.lm.named_parameters())
    assert all(torch.allclose(x, start[name] + 0.25, atol=1e-6) for name, x in one.lm.named_parameters())


def test_mixed_weights_lie_between_and_leave_both_models_as_they_were(bench):
    policy = bench.policy(short())
    with torch.no_grad():
        for weight in policy.lm.parameters():
            weight += 1.0
    before = bench.reference.lm.norm.weight.clone()
    found = mixed(policy, bench.reference, 0.75)
    assert torch.allclose(found.lm.norm.weight, before + 0.75)
    assert torch.equal(bench.reference.lm.norm.weight, before)
    assert torch.equal(policy.lm.norm.weight, before + 1.0)


# ---------------------------------------------------------------- what it is worth

def test_the_reference_is_at_kl_0_and_the_best_of_more_scores_more(bench):
    found = references(bench)
    assert list(found) == ["1", "4"]
    assert found["1"]["kl"] == pytest.approx(0, abs=1e-5)
    assert found["4"]["kl"] == pytest.approx(0.636, abs=1e-3)   # ln 4 - 3/4
    assert found["4"]["score"] > found["1"]["score"]


def test_what_is_measured_of_a_run(bench):
    found = measured(bench, short(iterations=1), True, silent)
    assert list(found) == ["", "average 0.9", "average 0.97", "weights 0.75", "weights 0.5"]
    assert set(found[""]) == {"score", "gold", "judged_positive", "ended", "kl", "distinct_2"}
    assert list(measured(bench, short(iterations=1), False, silent)) == [""]


# ---------------------------------------------------------------- tables

def figures(kl, gold, positive=0.5, **others):
    return {"kl": kl, "gold": gold, "judged_positive": positive, "distinct_2": 0.6, "ended": 1.0} | others


def seed_of(rise):
    """PPO's gold is `rise` * sqrt(KL), at KL 1, 4, 6.25 and 9; best of n's twice that."""
    variants = [f"average {x:g}" for x in trials.AVERAGES] + [f"weights {x:g}" for x in trials.WEIGHTS]
    start = figures(0, 0, distinct_2=0.8)
    found = {name: {kind: figures(kl, rise * kl ** 0.5) for kind in ["", *variants]}
             for name, kl in zip(PRICES, (9, 6.25, 4, 1))}
    return found | {BEST: {"1": start, "4": figures(1, 2 * rise), "16": figures(4, 4 * rise)},
                    "one epoch": {"": figures(2.25, rise * 1.5 + 0.25, 0.75)}}


def test_between_points_a_figure_lies_on_a_line_over_the_root_of_kl():
    points = [figures(9, 6), figures(1, 2)]   # at sqrt(KL) 3 and 1
    assert path(points, "gold", 4) == pytest.approx(4)
    assert math.isnan(path(points, "gold", 9.1))


def test_the_frontier_by_hand():
    # rises of 1 and 3: at KL 1, 2, 4, 8 gold is 1, 1.41, 2, 2.83 and three times as much; best of n ends at 4
    rows = [line.split(" | ") for line in frontier({0: seed_of(1), 1: seed_of(3)}).splitlines()[2:]]
    assert rows[0][:5] == ["| best of n", "4.00 (2.00 to 6.00)", "5.66 (2.83 to 8.49)",
                           "8.00 (4.00 to 12.00)", ""]
    assert rows[1][:5] == ["| PPO, by its price of KL", "2.00 (1.00 to 3.00)", "2.83 (1.41 to 4.24)",
                           "4.00 (2.00 to 6.00)", "5.66 (2.83 to 8.49)"]
    assert [row[0] for row in rows[2:]] == [
        "| PPO, 0.75 of its weights, the rest the reference's",
        "| PPO, 0.5 of its weights, the rest the reference's",
        "| PPO, average of its weights, decay 0.9", "| PPO, average of its weights, decay 0.97"]


def test_a_lever_s_gain_is_its_distance_from_the_frontier_at_its_own_kl():
    # gold .25 above the line for both; judged positive .75 where the line is at .5; distinct-2 .6 / .8
    row = gains({0: seed_of(1), 1: seed_of(3)}, [BASE, "one epoch"]).splitlines()
    assert row[2].startswith("| as it is | 4.0 | 4.00 (2.00 to 6.00) | +0.00 (+0.00 to +0.00) | ")
    assert row[3] == ("| one epoch | 2.2 | 3.25 (1.75 to 4.75) | +0.25 (+0.25 to +0.25) | 0.75 "
                      "| +0.25 (+0.25 to +0.25) | 0.75 | 1.00 |")


def test_beyond_the_dearest_kl_there_is_no_frontier_to_compare_with():
    assert gain([0.1, math.nan]) == "beyond" and gain([-0.1, 0.3]) == "+0.10 (-0.10 to +0.30)"


# ---------------------------------------------------------------- the whole command

def test_a_lever_of_an_unknown_name_is_one_line():
    with pytest.raises(UserError, match="two epochs: there is none of that name; there are rollouts"):
        chosen("one epoch; two epochs")
    assert chosen("one epoch;as it is") == ["one epoch"] and chosen("") == list(LEVERS)


def test_what_is_finished_is_kept_and_the_table_is_the_same(flags, monkeypatch, capsys):
    given = flags | {"levers": "one epoch", "shorter": 60}
    main(Config(**given))
    table = (Path(flags["out"]) / "table.md").read_text()
    assert table == capsys.readouterr().out and "| one epoch | " in table
    monkeypatch.setattr(levers.trials, "train", None)   # nothing is trained again
    main(Config(**given))
    assert capsys.readouterr() == (table, "")
    with pytest.raises(UserError, match="was made with other flags or models; delete it, or name"):
        main(Config(**given | {"responses": 101}))
