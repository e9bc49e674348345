"""What the stages share: loss, learning rate, one step; device, seed and folder of a run."""

import contextlib

import pytest
import torch
import torch.nn.functional as F

from minippo.run.devices import pick_device, use_bf16
from minippo.run.errors import UserError
from minippo.run.flags import StageConfig
from minippo.run.stage import Run
from minippo.tokens import PAD, pad_right
from minippo.training import SCHEDULES, cross_entropy, linear_decay, step


def rates(steps, schedule=linear_decay, **settings):
    """The learning rate of each step and after the last, beginning from 8."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 8.0)
    schedule = schedule(optimizer, steps, **settings)
    found = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps):
        optimizer.step()
        schedule.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_d36_the_rate_of_step_t_is_lr_times_1_minus_t_minus_1_over_n():
    assert rates(4) == pytest.approx([8, 6, 4, 2, 0])


def test_d15_the_rate_reaches_0_after_the_last_step_whatever_their_number():
    for steps in (1, 3, 10):
        found = rates(steps)
        assert found[-1] == 0 and all(rate > 0 for rate in found[:-1])


def test_with_a_warmup_the_rate_rises_to_its_peak_and_falls_to_0():
    assert rates(6, warmup=1 / 3) == pytest.approx([4, 8, 8, 6, 4, 2, 0])
    assert rates(2, warmup=1.0) == pytest.approx([4, 8, 0])


def test_half_a_cosine_falls_to_0_and_a_constant_rate_stays():
    # 4 (1 + cos(pi n / 4)): 8, 4 + 2.828, 4, 4 - 2.828, 0
    assert rates(4, SCHEDULES["cosine"]) == pytest.approx([8, 6.828427, 4, 1.171573, 0], abs=1e-6)
    assert rates(4, SCHEDULES["constant"]) == [8] * 5
    assert rates(4, SCHEDULES["linear"]) == rates(4)


class Echo:
    """A language model whose states are its logits."""
    autocast = contextlib.nullcontext

    def logits(self, states):
        return states


def test_the_loss_of_a_language_model_is_the_mean_over_real_tokens():
    states = torch.tensor([[[1.0, 3.0]] * 4]).log().requires_grad_()
    loss = cross_entropy(Echo(), states, torch.tensor([[1, 0, PAD]]))
    loss.backward()
    assert loss.item() == pytest.approx(0.836988, abs=1e-5)   # (ln 4/3 + ln 4) / 2
    assert (states.grad[0, :2] != 0).all() and (states.grad[0, 2:] == 0).all()


@pytest.mark.parametrize("lengths", [[5, 2, 9], [30, 40, 20], [64], [200, 90, 7]])
def test_the_loss_is_that_of_all_logits_at_once(lengths):
    torch.manual_seed(0)
    response = pad_right([torch.randint(7, (length,)).tolist() for length in lengths])
    states = torch.randn(len(lengths), response.shape[1] + 1, 7)
    expected = F.cross_entropy(states[:, :-1].flatten(0, 1), response.flatten(), ignore_index=PAD)
    assert torch.allclose(cross_entropy(Echo(), states, response), expected, atol=1e-6)


def test_d39_a_step_clears_old_gradients_clips_new_ones_and_returns_the_norm_before():
    model = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    model.weight.grad = torch.full((1, 2), 100.0)
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    loss = (model.weight * torch.tensor([[3.0, -4.0]])).sum()   # its gradient has norm 5
    schedule = linear_decay(optimizer, 2)
    assert step(model, optimizer, schedule, loss, max_grad_norm=1.0) == pytest.approx(5)
    assert model.weight.tolist() == [pytest.approx([-0.6, 0.8], abs=1e-5)]
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_a_device_that_is_not_there_is_a_user_s_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name in ("cuda", "mps"):
        with pytest.raises(UserError, match=f"--device {name}"):
            pick_device(name)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")


def test_the_precision_asked_for_is_the_one_used():
    assert use_bf16("bf16", torch.device("cpu")) is True
    assert use_bf16("fp32", torch.device("cpu")) is False


def test_d42_a_seed_fixes_initialisation_draws_and_parts(tmp_path):
    def drawn(seed):
        config = StageConfig(seed=seed, device="cpu", data="toy", out=str(tmp_path / "a/b"))
        with Run(config, {}) as run:
            assert run.folder.is_dir() and run.folder == tmp_path / "a/b"
            own = torch.rand(3, generator=run.generator).tolist()
            return torch.rand(3).tolist(), own, run.rows["test"]
    one, same, other = drawn(1), drawn(1), drawn(2)
    assert one == same and one[0] != other[0] and one[1] != other[1]
    assert one[2] == other[2]   # the parts do not depend on the seed: a judge stays independent


def test_an_output_folder_that_cannot_be_made_is_a_user_s_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        Run(StageConfig(device="cpu", data="toy", out=str(tmp_path / "file")), {})
