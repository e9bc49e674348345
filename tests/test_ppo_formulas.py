"""The formulas of PPO against numbers worked out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from minippo.memory import explained_variance
from minippo.ppo import AdaptiveKL, gae, kl_estimates, penalized_rewards, policy_loss, value_loss, whiten
from minippo.tokens import masked_mean


def tensor(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def close(actual, *rows, **tolerance):
    return torch.allclose(actual, tensor(*rows), **({"atol": 1e-6} | tolerance))


def ones(*lengths):
    """Mask of rows of these lengths."""
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


# ---------------------------------------------------------------- rewards and KL

LOGPROBS, MASK = tensor([-1.0, -2.0, -0.5], [-3.0, -1.0, 0.0]), ones(3, 2)
REFERENCE = tensor([-1.5, -1.0, -0.5], [-4.0, -1.5, 0.0])


def test_d19_every_token_pays_for_its_kl_and_the_last_real_one_gets_the_score():
    rewards = penalized_rewards(tensor(7.0, -2.0), LOGPROBS, REFERENCE, MASK, 0.1)
    # log pi - log pi_ref = (0.5, -1, 0) and (1, 0.5); times -0.1, and 7 or -2 on the last
    assert close(rewards, [-0.05, 0.1, 7.0], [-0.1, -2.05, 0.0])
    # a row sums to score - 0.1 KL, with KL -0.5 and 1.5
    assert close(rewards.sum(1), 7.05, -2.15)


def test_d19_scores_per_token_are_added_token_by_token_and_not_at_pad():
    score = tensor([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    rewards = penalized_rewards(score, LOGPROBS, REFERENCE, MASK, 0.1)
    assert close(rewards, [0.95, 2.1, 3.0], [3.9, 4.95, 0.0])


def test_responses_without_tokens_have_neither_rewards_nor_advantages():
    none, score = torch.zeros(2, 0, dtype=torch.float64), tensor(7.0, -2.0).squeeze(0)
    rewards = penalized_rewards(score, none, none, none.bool(), 0.1)
    assert rewards.shape == (2, 0)
    assert [x.shape for x in gae(rewards, none, 1.0, 0.95)] == [(2, 0), (2, 0)]
    one_of_two = penalized_rewards(score, LOGPROBS, REFERENCE, ones(3, 0), 0.1)
    assert close(one_of_two, [-0.05, 0.1, 7.0], [0.0, 0.0, 0.0])


def test_rewards_leave_their_inputs_as_they_were():
    before = [x.clone() for x in (LOGPROBS, REFERENCE)]
    penalized_rewards(tensor(7.0, -2.0), LOGPROBS, REFERENCE, MASK, 0.1)
    assert torch.equal(before[0], LOGPROBS) and torch.equal(before[1], REFERENCE)


def test_d21_k1_and_k3_are_unbiased_and_k2_is_what_it_says_by_exact_enumeration():
    pi, ref = tensor(0.5, 0.3, 0.2), tensor(0.2, 0.3, 0.5)
    means = [(pi * k).sum().item() for k in kl_estimates(pi.log(), ref.log())]
    # KL = 0.5 ln 2.5 + 0.3 ln 1 + 0.2 ln 0.4 = 0.458145 - 0.183258
    # k2 = (0.5 (ln 2.5)^2 + 0.2 (ln 0.4)^2) / 2 = 0.35 * 0.839589
    assert means == pytest.approx([0.274887, 0.293856, 0.274887], abs=1e-6)


def test_d21_k3_is_never_negative_and_has_its_ratio_the_right_way_up():
    x = torch.linspace(-12, 12, 24_001, dtype=torch.float64)
    logprobs, reference = (-(x - mean).square() / 2 - math.log(2 * math.pi) / 2 for mean in (0, 1))
    k1, k2, k3 = kl_estimates(logprobs, reference)
    assert (k3 >= 0).all() and (k1 < 0).any()
    # KL of N(0,1) from N(1,1) is 1/2; k3 upside down: e - 3/2 = 1.22. k2: E (x - 1/2)^2 / 2 = 5/8
    means = [(logprobs.exp() * k).sum().item() / 1000 for k in (k1, k2, k3)]
    assert means == pytest.approx([0.5, 0.625, 0.5])


def test_d22_the_kl_coefficient_follows_the_error_clipped_at_a_fifth():
    def fresh():
        return AdaptiveKL(0.15, 6, 10_000)

    assert fresh().update(12, 512) == pytest.approx(0.151536)    # 0.15 (1 + 0.2 * 0.0512)
    assert fresh().update(0, 512) == pytest.approx(0.148464)     # 0.15 (1 - 0.2 * 0.0512)
    assert fresh().update(6.6, 512) == pytest.approx(0.150768)   # 0.15 (1 + 0.1 * 0.0512)
    steering = fresh()
    steering.update(12, 512)
    assert steering.update(6, 512) == steering.kl_coef == pytest.approx(0.151536)    # kept


def test_a_kl_target_of_0_leaves_the_coefficient_as_it_is():
    steering = AdaptiveKL(0.15, 0.0, 10_000)
    assert [steering.update(kl, 512) for kl in (12.0, 0.0, -1.0)] == [0.15, 0.15, 0.15]
    assert steering.kl_coef == 0.15


# ---------------------------------------------------------------- advantages

def test_d25_gae_by_hand():
    advantages, returns = gae(tensor([0.0, 0.0, 1.0]), tensor([0.5, 0.5, 0.5]), 1.0, 0.95)
    assert close(advantages, [0.45125, 0.475, 0.5])   # 0.5, then times 0.95 per token back
    assert close(returns, [0.95125, 0.975, 1.0])


REWARDS, VALUES = tensor([1.0, 2.0, 3.0]), tensor([0.5, 1.0, 1.5])


def test_d26_lambda_1_is_the_monte_carlo_return_minus_the_value():
    assert close(gae(REWARDS, VALUES, 1.0, 1.0)[0], [5.5, 4.0, 1.5])   # returns 6, 5, 3
    # returns 1 + 0.5 * 3.5, 2 + 0.5 * 3, 3
    assert close(gae(REWARDS, VALUES, 0.5, 1.0)[0], [2.25, 2.5, 1.5])


def test_d26_lambda_0_is_the_one_step_error():
    # 1 + 1 - 0.5, 2 + 1.5 - 1, 3 + 0 - 1.5; discounted 1 + 0.5 - 0.5, 2 + 0.75 - 1, 3 - 1.5
    assert close(gae(REWARDS, VALUES, 1.0, 0.0)[0], [1.5, 2.5, 1.5])
    assert close(gae(REWARDS, VALUES, 0.5, 0.0)[0], [1.0, 1.75, 1.5])


def test_d26_the_recursion_is_the_double_sum():
    generator = torch.Generator().manual_seed(0)
    rewards, values = (torch.randn(4, 9, generator=generator, dtype=torch.float64)
                      for _ in range(2))
    gamma, lam = 0.9, 0.7
    next_values = torch.cat([values[:, 1:], torch.zeros(4, 1)], dim=1)
    for t in range(9):   # Schulman et al. 2016, eq. 16: sum over l of (gamma lam)^l delta_{t+l}
        delta = rewards + gamma * next_values - values
        direct = sum((gamma * lam) ** (s - t) * delta[:, s] for s in range(t, 9))
        assert torch.allclose(gae(rewards, values, gamma, lam)[0][:, t], direct)


def test_d09_pad_columns_change_no_reward_advantage_or_whitened_number():
    def pipeline(width):
        logprobs, reference, mask, values = (F.pad(x, (0, width)) for x in (
            LOGPROBS, REFERENCE, MASK, tensor([0.5, 0.25, 1.0], [2.0, 1.0, 0.0])))
        rewards = penalized_rewards(tensor(7.0, -2.0), logprobs, reference, mask, 0.1)
        advantages, returns = gae(rewards, values, 0.9, 0.95)
        whitened = whiten(advantages, mask) * mask
        return [F.pad(x, (0, 5 - width)) for x in (rewards, advantages, returns, whitened)]
    for narrow, wide in zip(pipeline(0), pipeline(5)):
        assert torch.allclose(narrow, wide) and not wide[:, 3:].any() and wide[1, 2] == 0


def test_masked_mean_looks_at_real_tokens_alone_and_is_0_without_any():
    x, mask = tensor([1.0, 2.0], [6.0, 100.0]), ones(2, 1)
    assert masked_mean(x, mask) == 3
    assert masked_mean(x, torch.zeros_like(mask)) == 0


def test_d24_whitened_rewards_keep_their_mean():
    x = tensor([1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0])
    whitened = whiten(x, ones(9), shift_mean=False)
    # population deviation 0.1 sqrt(60 / 9) = 0.2582: 1.6 -+ 0.4 / 0.2582
    assert whitened[0, 0].item() == pytest.approx(0.0508, abs=5e-5)
    assert whitened[0, 8].item() == pytest.approx(3.1492, abs=5e-5)
    assert whitened.mean().item() == pytest.approx(1.6)


def test_d24_whitening_equal_numbers_gives_zeros_and_no_nan():
    assert close(whiten(tensor([2.0, 2.0]), ones(2)), [0.0, 0.0])
    # eps 1e-8 stands beside the variance, here also 1e-8: half of the deviation, 1 / sqrt(2)
    assert close(whiten(tensor([1e-4, -1e-4]), ones(2)), [0.707107, -0.707107])


def test_d27_advantages_are_whitened_over_real_tokens_with_the_mean_removed():
    whitened = whiten(tensor([1.0, 3.0], [5.0, 1000.0]), ones(2, 1))
    # (1, 3, 5): mean 3, variance 8/3; 2 / sqrt(8/3)
    assert close(whitened[ones(2, 1)], -1.224745, 0.0, 1.224745)
    assert whitened[1, 1] == 0   # a pad, whatever stood there


# ---------------------------------------------------------------- losses

@pytest.mark.parametrize("advantage, ratio, loss, gradient, clipped", [
    (1, 1.5, -1.2, 0.0, 1),     # already moved further than pays: no gradient
    (1, 0.5, -0.5, -0.5, 0),    # moved the wrong way: pulled back; d loss / d log pi = -A rho
    (-1, 1.5, 1.5, 1.5, 0),
    (-1, 0.5, 0.8, 0.0, 1),
])
def test_d28_the_clipped_surrogate_by_hand(advantage, ratio, loss, gradient, clipped):
    logprobs = tensor([math.log(ratio) - 1]).requires_grad_()
    actual, fraction = policy_loss(logprobs, tensor([-1.0]), tensor([advantage]), ones(1), 0.2)
    actual.backward()
    assert actual.item() == pytest.approx(loss)
    assert logprobs.grad.item() == pytest.approx(gradient)
    assert fraction == clipped


@pytest.mark.parametrize("value, target, loss, gradient", [
    (1.0, 0.5, 0.125, 0.5),      # max(0.5^2, 0.3^2) / 2: the unclipped one counts
    (0.5, 0.6, 0.08, 0.0),       # max(0.1^2, (0.2 - 0.6)^2) / 2: far enough from the old value 0
    (-0.5, -0.6, 0.08, 0.0),
    (-1.0, -0.5, 0.125, -0.5),
    (0.1, 0.5, 0.08, -0.4),      # within the clip: 0.4^2 / 2
])
def test_d29_the_clipped_value_loss_by_hand(value, target, loss, gradient):
    values = tensor([value]).requires_grad_()
    actual = value_loss(values, tensor([0.0]), tensor([target]), ones(1), 0.2)
    actual.backward()
    assert actual.item() == pytest.approx(loss)
    assert values.grad.item() == pytest.approx(gradient, abs=1e-9)


def test_d31_losses_are_means_over_tokens_not_over_responses():
    zeros, mask = torch.zeros(2, 3, dtype=torch.float64), ones(3, 1)
    loss, _ = policy_loss(zeros, zeros, tensor([0.0, 0.0, 0.0], [1.0, 9.0, 9.0]), mask, 0.2)
    assert loss.item() == -0.25           # one of four tokens; a mean of the means would be -0.5
    loss = value_loss(zeros, zeros, tensor([0.0, 0.0, 0.0], [2.0, 9.0, 9.0]), mask, 0.2)
    assert loss.item() == 0.5             # 2^2 / 4 / 2


def test_d30_clip_fraction_counts_real_tokens_only():
    logprobs = tensor([1.5, 1.1, 0.5], [0.5, 1.5, 1.5]).log()
    zeros, advantages = torch.zeros_like(logprobs), torch.ones_like(logprobs)
    _, fraction = policy_loss(logprobs, zeros, advantages, ones(3, 1), 0.2)
    assert fraction.item() == 0.25   # 1.5, 1.1, 0.5 | 0.5: the first one's clipped branch is larger


def test_d43_explained_variance_is_1_for_the_truth_0_for_a_constant_and_negative_for_worse():
    returns, mask = tensor([1.0, 2.0, 3.0], [6.0, 50.0, 50.0]), ones(3, 1)
    assert explained_variance(returns, returns, mask).item() == 1
    constant = torch.full_like(returns, 2.5)
    assert explained_variance(constant, returns, mask).item() == pytest.approx(0)
    assert explained_variance(returns / 2, returns, mask).item() == pytest.approx(0.75)   # 1 - 1/4
    assert explained_variance(-returns, returns, mask).item() == pytest.approx(-3)        # 1 - 2^2


WIDE, NARROW = torch.zeros(2, 3), torch.zeros(2, 1)


@pytest.mark.parametrize("formula, inputs", [
    (penalized_rewards, (torch.zeros(2), WIDE, NARROW, WIDE.bool(), 0.1)),
    (penalized_rewards, (torch.zeros(2), WIDE, WIDE, NARROW.bool(), 0.1)),
    (penalized_rewards, (NARROW, WIDE, WIDE, WIDE.bool(), 0.1)),
    (gae, (WIDE, NARROW, 1.0, 0.95)),
    (masked_mean, (WIDE, NARROW.bool())),
    (whiten, (WIDE, NARROW.bool())),
    (policy_loss, (WIDE, NARROW, WIDE, WIDE.bool(), 0.2)),
    (policy_loss, (WIDE, WIDE, NARROW, WIDE.bool(), 0.2)),
    (value_loss, (WIDE, NARROW, WIDE, WIDE.bool(), 0.2)),
    (value_loss, (WIDE, WIDE, NARROW, WIDE.bool(), 0.2)),
    (explained_variance, (WIDE, WIDE, NARROW.bool())),
    (kl_estimates, (WIDE, NARROW)),
])
def test_shapes_that_would_broadcast_are_errors_that_name_both(formula, inputs):
    with pytest.raises(ValueError) as error:
        formula(*inputs)
    assert "(2, 3)" in str(error.value) and "(2, 1)" in str(error.value)
