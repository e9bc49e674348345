"""The benchmarks' checks in the environment of a peer: both sides compute the same. Skipped without one."""

from importlib import metadata

import pytest
import torch

from benchmarks import iteration, memory, models
from minippo.run.errors import UserError
from minippo.transformer import build


def release():
    try:
        return f"trl-{metadata.version('trl')}"
    except metadata.PackageNotFoundError:
        return None


PEER = release()
needs_trl = pytest.mark.skipif(PEER not in models.RELEASES, reason="no TRL that is compared with")
TINY = dict(shape="tiny", batch=8, response=10, minibatches=2)


def test_weights_go_to_gpt2_and_back():
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    lm = build(models.config("tiny")).eval()
    theirs = models.as_gpt2(lm)
    back = models.decoder(theirs, lm.config)
    assert all(torch.equal(x, back.state_dict()[name]) for name, x in lm.state_dict().items())


def test_a_temperature_in_the_last_norm_divides_the_logits():
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    lm = build(models.config("tiny")).eval()
    text = models.queries(2, 6, 64)
    warm, cold = (models.as_gpt2(lm, temperature)(text).logits for temperature in (1.0, 0.5))
    assert torch.allclose(cold, 2 * warm, atol=1e-5)


@needs_trl
def test_one_step_of_both_is_the_same():
    found = iteration.agreement(iteration.Config(peer=PEER, **TINY))
    assert "change of all weights" in found and max(found.values()) < iteration.TOLERANCE


@needs_trl
def test_a_side_that_does_not_learn_is_noticed(monkeypatch):
    monkeypatch.setattr(iteration.Ours, "update", lambda side, rollout: {"ppo/loss/value": 0.0})
    with pytest.raises(UserError, match="nothing was timed"):
        iteration.agreement(iteration.Config(peer=PEER, **TINY))


@needs_trl
@pytest.mark.parametrize("kind", ["fixed", "varied"])
def test_both_sample_the_lengths_that_were_asked_for(kind):
    ours, theirs = iteration.build(iteration.Config(peer=PEER, lengths=kind, **TINY))(checked=False)
    for side in (ours, theirs):
        side.iteration()
    iteration.check_lengths(ours, theirs)


@needs_trl
@pytest.mark.slow
def test_memory_is_measured_in_processes_of_their_own(capsys):
    memory.main(memory.Config(peer=PEER, shape="tiny", pairs=1))
    assert '"benchmark": "memory"' in capsys.readouterr().out
