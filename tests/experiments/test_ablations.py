"""Faults made from outside: each changes the run, none the judgement, and all are undone."""

import math
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
import torch

from minippo import ppo
from minippo.experiments import optimum
from minippo.experiments.ablations import (
    ABLATIONS,
    Ablation,
    Config,
    interval,
    main,
    patched,
    row,
    run,
)
from minippo.run.commands import COMMANDS
from minippo.run.errors import UserError
from minippo.run.flags import parse
from minippo.tokens import PAD
from minippo.training import NonFiniteError

FAULTS = [name for name in ABLATIONS if name != "baseline"]
# large steps, so that ratios, values and gradients pass their limits within two iterations
CONFIG = Config(vocabulary=4, response_length=3, iterations=3, rollout_size=24, minibatch_size=8,
                lr=0.05, seed_count=2)


def trained(name, config=CONFIG):
    """The weights after a short run with this fault."""
    ablation = ABLATIONS[name]
    task = optimum.make_task(config, "decoder", 0)
    with patched(ablation.patches):
        *_, policy = optimum.train(task, replace(config, **ablation.settings), 0)
    return torch.cat([p.flatten() for p in policy.parameters()])


@pytest.fixture(scope="module")
def sound():
    """The weights of the baseline."""
    return trained("baseline")


def everything():
    """All attributes that the faults replace, as they are now."""
    return {place: getattr(*place) for ablation in ABLATIONS.values() for place in ablation.patches}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_changes_what_is_learned_and_is_undone(name, sound):
    before = everything()
    weights = trained(name)
    assert weights.isfinite().all() and (weights - sound).abs().max() > 1e-5
    assert everything() == before


def test_the_baseline_repeats_itself_after_all_faults(sound):
    assert torch.equal(trained("baseline"), sound)


@pytest.mark.parametrize("name", FAULTS)
def test_no_fault_touches_the_judgement(name):
    # nothing is learned at lr 0: J and KL must be the reference's, computed without the fault
    still = replace(CONFIG, lr=0.0, iterations=2, seed_count=1)
    right, = run(ABLATIONS["baseline"], still)
    judged, = run(ABLATIONS[name], still)
    assert judged.reference == right.reference and judged.best == right.best
    assert judged.gap == pytest.approx(100, abs=1e-4)
    assert judged.curve == pytest.approx(right.curve, abs=1e-6)


def test_what_is_replaced_comes_back_after_an_error():
    before = everything()
    with pytest.raises(ZeroDivisionError), patched({(ppo, "gae"): lambda gae: None}):
        assert ppo.gae is None
        raise ZeroDivisionError
    assert ppo.gae is not None and everything() == before


def test_a_misspelt_detail_cannot_pass_as_one_that_makes_no_difference():
    with pytest.raises(AttributeError), patched({(ppo, "gea"): lambda gae: None}):
        pass
    with pytest.raises(TypeError):
        run(Ablation("x", "y", {"lamda": 0.0}), CONFIG)
    settings = {name for ablation in ABLATIONS.values() for name in ablation.settings}
    assert settings <= {field.name for field in fields(ppo.PPOConfig)}
    with pytest.raises(UserError, match="no-clup: no such row; there is baseline, no-whitening"):
        main(replace(CONFIG, only="no-clip,no-clup"))


# ---------------------------------------------------------------- what the faults do

MASK = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
ZEROS = torch.zeros(3, 3)


def rewards(name, logprobs=ZEROS, reference_logprobs=ZEROS, beta=0.5):
    with patched(ABLATIONS[name].patches):
        return ppo.penalized_rewards(torch.tensor([3.0, 2.0, 1.0]), logprobs, reference_logprobs,
                                     MASK, beta).tolist()


def test_where_the_score_goes():
    assert rewards("score-first") == [[3, 0, 0], [2, 0, 0], [1, 0, 0]]
    assert rewards("score-early") == [[0, 3, 0], [2, 0, 0], [1, 0, 0]]
    assert rewards("score-late") == [[0, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert rewards("score-spread") == [[1, 1, 1], [1, 1, 0], [1, 0, 0]]


def test_what_the_penalty_becomes():
    # log pi - log pi_ref = ln 2 at the first token: k1 = ln 2, k3 = (1/2 - 1) + ln 2
    logprobs = torch.tensor([[math.log(2), 0, 0]] * 3)
    penalty = {name: rewards(name, logprobs)[0][0] for name in ABLATIONS
               if name.startswith("kl-") or name == "no-kl"}
    assert penalty == pytest.approx({"no-kl": 0, "kl-half": -0.25 * 0.693147,
                                     "kl-sign": 0.5 * 0.693147, "kl-k3": -0.5 * 0.193147}, abs=1e-6)
    assert rewards("scale-10", logprobs)[1] == pytest.approx([-5 * 0.693147, 20, 0], abs=1e-5)


def test_losses_with_min_and_max_swapped():
    one = torch.ones(1, 1, dtype=torch.bool)
    def tensor(x):
        return torch.tensor([[x]])
    # V 1, V_old 0, clip 0.2, R 0.5: errors 0.25 and 0.09; half the smaller
    with patched(ABLATIONS["value-min-max"].patches):
        loss = ppo.value_loss(tensor(1.0), tensor(0.0), tensor(0.5), one, 0.2)
    assert loss.item() == pytest.approx(0.045)
    # rho 1.5, A 1: gains 1.5 and 1.2, the larger
    with patched(ABLATIONS["policy-min-max"].patches):
        loss, fraction = ppo.policy_loss(tensor(math.log(1.5)), tensor(0.0), tensor(1.0), one, 0.2)
    assert loss.item() == pytest.approx(-1.5) and fraction == 1


# ---------------------------------------------------------------- the table

def test_the_interval_is_students():
    # mean 3, standard deviation sqrt(5/2), n 5: 2.776 * 1.581139 / 2.236068
    assert interval([1, 2, 3, 4, 5]) == pytest.approx((3, 1.962929), abs=1e-5)
    assert interval([1.0, 3.0]) == pytest.approx((2, 12.706))   # 12.706 sqrt(2) / sqrt(2)


def result(gap, half, end):
    return SimpleNamespace(gap=gap, curve=[1.0, half, end])


def test_a_row_says_by_how_much_and_whether_that_is_chance():
    baseline = [result(1.0, 0.2, 0.1), result(3.0, 0.4, 0.3)]
    fault = Ablation("clip", "off")
    assert row(fault, baseline, baseline) == "| clip | off | 2.00 ± 12.71 |  | 0.300 | 0.200 |"
    later = [result(6.0, 0.5, 0.5), result(8.0, 0.5, 0.5)]   # both by 5
    assert "| 7.00 ± 12.71 | **+5.00 ± 0.00** | 0.500 | 0.500 |" in row(fault, later, baseline)
    mixed = [result(0.5, 0.5, 0.5), result(4.5, 0.5, 0.5)]   # by -0.5 and 1.5
    assert "| +0.50 ± 12.71 |" in row(fault, mixed, baseline)
    assert "not finite on 1 of 2 seeds" in row(fault, [None, later[1]], baseline)


def test_a_run_whose_numbers_are_not_finite_is_counted_not_fatal(monkeypatch):
    def measure(config, architecture, seed, parts):
        if seed == 1:
            raise NonFiniteError("loss is not finite")
        return seed
    monkeypatch.setattr(optimum, "measure", measure)
    assert run(ABLATIONS["no-clip"], replace(CONFIG, seed_count=3)) == [0, None, 2]
    with pytest.raises(UserError, match="the baseline's numbers are not finite"):
        main(CONFIG)


def test_the_command_prints_the_table(capsys):
    assert "ablations" in COMMANDS
    main(parse(Config, "", "--only baseline,no-kl --vocabulary 3 --response-length 2 "
                           "--iterations 2 --rollout-size 8 --seed-count 2".split()))
    seen = capsys.readouterr()
    assert seen.out.startswith("decoder, 2 seeds from 0, each with 2 iterations of 8 responses; ")
    lines = [line for line in seen.out.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in lines] == [
        "detail", "---", "as shipped", "KL penalty"]
    assert [line.split(":")[0] for line in seen.err.splitlines()] == ["1/2  baseline", "2/2  no-kl"]


def test_pads_really_carry_values_into_gae():
    task = optimum.make_task(CONFIG, "decoder", 0)
    policy = task.reference
    torch.nn.init.normal_(policy.value_head.weight)
    response = torch.tensor([[1, 0, PAD], [0, PAD, PAD]])
    right = policy(task.queries, response)
    with patched(ABLATIONS["pads-in-gae"].patches):
        logprobs, values, _ = policy(task.queries, response)
    assert torch.equal(logprobs, right[0])
    assert right[1][1, 1:].tolist() == [0, 0] and values[1, 1:].abs().min() > 1e-3
