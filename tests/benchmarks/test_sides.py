"""What both sides of the benchmarks share, and what is computed of their times. No peer is needed."""

import runpy
import sys
from importlib import metadata

import pytest
import torch

from benchmarks import growth, iteration, models, peak, stage3
from benchmarks.ours import in_bf16
from minippo.generation import generate
from minippo.policy import ActorCritic
from minippo.reward import RewardModel
from minippo.run.errors import UserError
from minippo.tokens import PAD
from minippo.transformer import TransformerConfig, build
from tests.outside import ROOT


def test_responses_have_the_lengths_that_were_asked_for():
    lm = build(models.config("tiny")).eval()
    lengths = torch.tensor([3, 1, 6, 2, 6])
    with models.ends_after(lengths):
        response = generate(lm, models.queries(5, 4, 64), 6)
    assert (response != PAD).sum(1).tolist() == [3, 1, 6, 2, 6]
    assert (response == models.END).sum(1).tolist() == [1] * 5


def test_rows_that_have_ended_may_leave_the_batch(monkeypatch):
    monkeypatch.setattr(models.generation, "sample", lambda logits, *draws: torch.ones(len(logits)).long())
    with models.ends_after(torch.tensor([1, 2, 3])):
        sample = models.generation.sample
        assert sample(torch.zeros(3, 4)).tolist() == [0, 1, 1]
        assert sample(torch.zeros(2, 4)).tolist() == [0, 1]   # rows 1 and 2
        assert sample(torch.zeros(1, 4)).tolist() == [0]


def test_theirs_end_as_ours_do():
    processor = models.EndsAfter(torch.tensor([1, 2]), query=3)
    scores = processor(torch.ones(2, 3), torch.zeros(2, 4))
    assert scores[0].tolist() == [0.0] + [-torch.inf] * 3 and scores[1].tolist() == [-torch.inf] + [0.0] * 3


def test_varied_lengths_reach_from_8_to_the_longest():
    lengths = models.response_lengths("varied", 2000, 48)
    assert (lengths.min(), lengths.max()) == (8, 48)
    assert models.response_lengths("fixed", 2, 48).tolist() == [48, 48]


@pytest.mark.parametrize("settings, said", [
    ({"response": 57}, "--query 8 and --response 57 do not fit together into the context of 64"),
    ({"response": 9, "batch": 65}, "--minibatches 4 is no divisor of --batch 65"),
    ({"response": 9, "minibatches": 100}, "--minibatches 100 is no divisor of --batch 64")])
def test_settings_that_do_not_fit_together_are_one_line(settings, said):
    config = iteration.Config(shape="tiny", **settings)
    with pytest.raises(UserError, match=said):
        models.check(config)
    config.response, config.batch, config.minibatches = 9, 64, 4
    models.check(config)


def test_bfloat16_is_for_all_language_models_of_a_side():
    shape = models.config("tiny")
    policy = ActorCritic(build(shape), RewardModel(build(shape)))
    reference = policy.reference()
    in_bf16(True, policy, reference)
    assert policy.lm.bf16 and policy.critic.lm.bf16 and reference.lm.bf16


def test_the_score_is_the_share_of_even_tokens():
    query, response = torch.tensor([[2, 3], [PAD, 4]]), torch.tensor([[4, 6], [8, PAD]])
    assert models.even_share(query, response).tolist() == [0.5, 1.0]   # 3 of 4 even; 2 of 2


def test_a_missing_peer_is_named_with_what_to_install(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)
    monkeypatch.setattr(models.metadata, "version", missing)
    with pytest.raises(UserError, match=r"trl 1\.12\.0 \(not installed here\): pip install -r"):
        models.need("trl", "1.12.0")


def test_another_release_of_a_peer_is_no_peer(monkeypatch):
    monkeypatch.setattr(models.metadata, "version", lambda name: "0.9")
    with pytest.raises(UserError, match=r"trl 0\.11\.4 \(0\.9 here\)"):
        models.need("trl", "0.11.4")


@pytest.mark.parametrize("version", models.RELEASES.values())
def test_the_requirements_that_are_named_exist_and_pin_the_release(version):
    assert f"trl=={version}\n" in (ROOT / f"benchmarks/requirements-trl-{version}.txt").read_text()


def test_operations_of_a_forward_pass():
    shape = TransformerConfig(vocab_size=10, end=0, width=2, heads=1, layers=3)
    # a row of 2 + 3 tokens, 4 of them go in: 3 (24 x 4 x 4 + 2 x 2 x 4 x 5) + 2 x 2 x 10 x 3 = 1392 + 120
    assert peak.forward_flops(shape, 2, torch.tensor([3])) == 1512
    # one of 2 + 1, 2 go in: 3 (24 x 4 x 2 + 2 x 2 x 2 x 3) + 2 x 2 x 10 x 1 = 648 + 40
    assert peak.forward_flops(shape, 2, torch.tensor([3, 1])) == 1512 + 688


def test_phases_are_all_of_an_iteration():
    side = iteration.ours_alone(iteration.Config(shape="tiny", batch=4, response=6, minibatches=2))()
    seconds = peak.phases(side)
    assert list(seconds) == list(peak.PHASES) and all(second > 0 for second in seconds.values())


def test_time_that_grows_with_the_square_has_the_exponent_2():
    assert growth.exponent([1, 2, 4, 8], [3, 12, 48, 192]) == 2.0


@pytest.mark.parametrize("what, size", [("batch", 32), ("response", 24), ("width", 16), ("vocabulary", 32)])
def test_one_quantity_grows_at_a_time(what, size):
    found, side = growth.sized(what, 0.5, growth.Config(shape="tiny"))
    config = side.policy.lm.config
    seen = {"batch": len(side.query), "response": side.config.response_length, "width": config.width,
            "vocabulary": config.vocab_size}
    assert found == size
    assert seen == {"batch": 64, "response": 48, "width": 32, "vocabulary": 64} | {what: size}
    assert side.config.minibatch_size == growth.MINIBATCH


def test_a_score_is_reached_when_the_mean_of_five_iterations_is():
    records = [{"ours": {"seconds": 2.0, "score": score}} for score in (0, 0, 1, 1, 1, 1, 2, 0)]
    assert stage3.reached(records, "ours", 0.8) == 12.0   # iterations 1 to 5: (0 + 1 + 1 + 1 + 1) / 5
    assert stage3.reached(records, "ours", 0.6) == 10.0   # not before there are five
    assert stage3.reached(records, "ours", 1.3) is None


@pytest.mark.parametrize("name", ["iteration", "generation", "memory", "stage3", "peak", "growth"])
def test_a_wrong_setting_is_one_line(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--seed", "x"])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(ROOT / f"benchmarks/{name}.py", run_name="__main__")
    out, err = capsys.readouterr()
    assert left.value.code == 2 and len(err.splitlines()) == 1 and out == ""
