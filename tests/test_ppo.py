"""Collecting and learning: made-up policies whose every number is known, and both architectures."""

import copy
import inspect
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

import finetune_ppo
from minippo.memory import PPOMemory, Rollout
from minippo.policy import ActorCritic, entropy_of, frozen, log_softmax
from minippo.ppo import PPOConfig, collect, losses, pay, ppo_loss, update
from minippo.tokens import PAD, pad_right
from minippo.transformer import TransformerConfig, build

CONFIG = PPOConfig(
    response_length=4, kl_coef=0.1, gamma=1.0, lam=0.95, clip=0.2, value_clip=0.2, value_coef=0.1,
    entropy_coef=0.0, epochs=1, minibatch_size=4, microbatch_size=4, max_grad_norm=1.0,
    missing_end_score=0.0, early_stop_kl=0.0, max_ratio=0.0)
QUERY = torch.zeros(2, 1, dtype=torch.long)


class Scripted:
    """A policy that says what it is told to; token 0 is the end."""
    end = 0

    def __init__(self, response, logprobs, values):
        self.response = torch.tensor(response)
        self.outputs = [torch.tensor(x) for x in (logprobs, values, values)]

    def generate(self, query, length, generator):
        return self.response

    def __call__(self, query, response):
        return self.outputs


class Shift(nn.Module):
    """Log-probability = value = one weight, at every token."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, query, response):
        same = self.weight * (response != PAD)
        return same, same, torch.zeros_like(same)


def count_threes(query, response):
    return (response == 3).sum(1).float()


def memory_of(rollout):
    memory = PPOMemory()
    memory.store(rollout)
    return memory


def rollout_of(lengths, advantage=1.0):
    """Responses of these lengths; old log-probs, values and returns 0, all advantages the same."""
    response = pad_right([[5] * n for n in lengths])
    mask = response != PAD
    zeros = torch.zeros(response.shape)
    return Rollout(torch.zeros(len(lengths), 1).long(), response, mask, zeros, zeros, zeros, zeros,
                   advantage * mask, zeros)


# ---------------------------------------------------------------- collect

RESPONSE = [[5, 0, PAD], [6, 7, 8]]   # ended, cut off
POLICY = Scripted(RESPONSE, [[-1.0, -2.0, 0.0], [-1.0, -1.0, -1.0]],
                  [[1.0, 1.0, 0.0], [0.5, 0.5, 0.5]])
REFERENCE = Scripted(RESPONSE, [[-1.5, -2.0, 0.0], [-1.0, -2.0, -1.5]],
                     [[9.0, 9.0, 0.0], [9.0, 9.0, 9.0]])


def judged(config=CONFIG):
    return collect(POLICY, REFERENCE, lambda query, response: torch.tensor([2.0, 3.0]), QUERY,
                   replace(config, missing_end_score=-1.0))


def test_d08_a_response_without_an_end_scores_minus_the_penalty_whatever_it_says():
    rollout, stats = judged()
    # log pi - log pi_ref = (0.5, 0) and (0, 1, 0.5); scores 2, and -1 in the place of 3
    assert torch.allclose(rollout.rewards, torch.tensor([[-0.05, 2.0, 0.0], [0.0, -0.1, -1.05]]))
    assert stats["objective/scores"] == 2.5   # as judged
    assert stats["objective/paid"] == 0.5     # (2 - 1) / 2


def test_d08_without_a_penalty_the_score_stands():
    score = torch.tensor([2.0, 3.0])
    rollout, stats = collect(POLICY, REFERENCE, lambda query, response: score, QUERY, CONFIG)
    assert torch.allclose(rollout.rewards, torch.tensor([[-0.05, 2.0, 0.0], [0.0, -0.1, 2.95]]))
    assert stats["objective/paid"] == stats["objective/scores"] == 2.5


@pytest.mark.parametrize("fixed", [-1.0, 0.5])
def test_a_cut_off_response_is_paid_the_fixed_number_in_place_of_its_score(fixed):
    zeros, mask = torch.zeros(3, 2), torch.tensor([[1, 1], [1, 1], [1, 0]]).bool()
    scores, ended = torch.tensor([2.0, 3.0, -4.0]), torch.tensor([True, False, True])
    paid, rewards = pay(scores, ended, zeros, zeros, mask, replace(CONFIG, missing_end_score=fixed))
    assert paid.tolist() == [2.0, fixed, -4.0]
    assert rewards.tolist() == [[0.0, 2.0], [0.0, fixed], [-4.0, 0.0]]   # at the last token
    assert scores.tolist() == [2.0, 3.0, -4.0]   # the scores stay


PER_TOKEN = torch.tensor([[0.5, 2.0, 9.0], [1.0, 0.25, 4.0]])   # the 9 stands at a pad


def test_scores_of_tokens_are_paid_token_by_token_and_their_sum_is_what_the_record_shows():
    rollout, stats = collect(POLICY, REFERENCE, lambda query, response: PER_TOKEN, QUERY, CONFIG)
    # log pi - log pi_ref = (0.5, 0) and (0, 1, 0.5), at 0.1 a nat
    assert torch.allclose(rollout.rewards, torch.tensor([[0.45, 2.0, 0.0], [1.0, 0.15, 3.95]]))
    assert stats["objective/scores"] == stats["objective/paid"] == 3.875   # (2.5 + 5.25) / 2
    assert stats["objective/scores_std"] == 1.375


def test_of_a_cut_off_response_no_token_keeps_its_score_and_the_last_gets_the_fixed_number():
    zeros, mask = torch.zeros(2, 3), torch.tensor([[1, 1, 0], [1, 1, 0]]).bool()
    paid, rewards = pay(PER_TOKEN, torch.tensor([True, False]), zeros, zeros, mask,
                        replace(CONFIG, missing_end_score=-2.0))
    assert paid.tolist() == [2.5, -2.0] and rewards.tolist() == [[0.5, 2.0, 0.0], [0.0, -2.0, 0.0]]


def test_with_a_fixed_number_of_0_every_response_is_paid_its_score():
    zeros, mask = torch.zeros(2, 1), torch.ones(2, 1).bool()
    scores, ended = torch.tensor([2.0, 3.0]), torch.tensor([True, False])
    paid, rewards = pay(scores, ended, zeros, zeros, mask, CONFIG)
    assert paid.tolist() == [2.0, 3.0] and rewards.tolist() == [[2.0], [3.0]]


def test_whitening_changes_the_rewards_and_not_what_is_paid():
    zeros, mask = torch.zeros(2, 1), torch.ones(2, 1).bool()
    scores = torch.tensor([2.0, 6.0])
    paid, rewards = pay(scores, scores > 0, zeros, zeros, mask, replace(CONFIG, whiten_rewards=True))
    assert paid.tolist() == [2.0, 6.0]
    # mean 4, deviation 2: 4 -+ 1
    assert rewards.flatten().tolist() == pytest.approx([3.0, 5.0])


@pytest.mark.parametrize("scores", [
    [2, 3], np.array([2.0, 3.0]), torch.tensor([2, 3]), torch.tensor([2.0, 3.0]).double(),
], ids=["list", "numpy", "whole", "double"])
def test_scores_may_be_any_numbers(scores):
    rollout, stats = collect(POLICY, REFERENCE, lambda query, response: scores, QUERY, CONFIG)
    assert stats["objective/scores"] == 2.5
    assert rollout.rewards.dtype == rollout.advantages.dtype == torch.float32
    assert rollout.rewards[0, 1] == 2


def test_a_score_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"scores \(2, 1\), responses \(2, 3\)"):
        collect(POLICY, REFERENCE, lambda query, response: torch.ones(2, 1), QUERY, CONFIG)


def test_an_output_of_another_shape_is_refused_where_it_would_fit_by_broadcasting():
    summed = Scripted(RESPONSE, [[-3.5], [-3.0]], [[1.0], [0.5]])
    with pytest.raises(ValueError, match=r"output \(2, 1\), tokens \(2, 3\)"):
        collect(POLICY, summed, lambda query, response: torch.ones(2), QUERY, CONFIG)


def test_d27_returns_are_advantages_and_values_before_whitening():
    rollout, _ = judged()
    # advantages: 2 - 1 = 1, before it -0.05 + 0.95 = 0.9;
    # -1.05 - 0.5 = -1.55, -0.1 + 0.95 (-1.55) = -1.5725, 0.95 (-1.5725) = -1.493875
    returns = torch.tensor([[1.9, 2.0, 0.0], [-0.993875, -1.0725, -1.05]])
    assert torch.allclose(rollout.returns, returns)
    # whitened: mean -0.543275, variance 1.488236, deviation 1.219933 of five; 0 at PAD
    expected = torch.tensor([[1.18308, 1.26505, 0.0], [-0.77922, -0.84367, -0.82523]])
    assert torch.allclose(rollout.advantages, expected, atol=1e-4)


def test_d23_kl_is_logged_per_response_and_the_other_figures_by_hand():
    _, stats = judged()
    expected = {
        "objective/kl": 1.0,            # sums 0.5 and 1.5; a mean over tokens would be 0.4
        "objective/scores": 2.5,
        "objective/scores_std": 0.5,
        "objective/paid": 0.5,          # (2 - 1) / 2: the second one was cut off
        "objective/entropy": 1.75,      # Scripted gives its values as entropies: (2 + 1.5) / 2
        "objective/rlhf_reward": 0.4,   # rows sum to 2 - 0.1 * 0.5 and -1 - 0.1 * 1.5
        "objective/kl_coef": 0.1,
        "ppo/returns/mean": 0.156725,   # 0.783625 / 5
        "ppo/val/mean": 0.7,            # 3.5 / 5
        "tokens/responses_len_mean": 2.5,
        "tokens/ended": 0.5,
    }
    assert {name: stats[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_d24_whitened_rewards_are_off_by_default_and_keep_mean_and_pads():
    assert PPOConfig().whiten_rewards is False
    rewards = judged(replace(CONFIG, whiten_rewards=True))[0].rewards
    # (-0.05, 2, 0, -0.1, -1.05): mean 0.16, variance 0.9974; (2 - 0.16) / 0.99870 + 0.16
    assert rewards[0, 1].item() == pytest.approx(2.00240, abs=1e-4)
    assert rewards.sum().item() / 5 == pytest.approx(0.16) and rewards[0, 2] == 0


def test_d06_the_policy_trained_is_the_policy_sampled(lm, query):
    policy = ActorCritic(lm, temperature=0.7)
    many = query[:1].repeat(3000, 1)
    config, generator = replace(CONFIG, response_length=1), torch.Generator().manual_seed(0)
    rollout, _ = collect(policy, frozen(policy), count_threes, many, config, generator)
    probabilities = (lm(query[:1], torch.tensor([[0]])) / 0.7).softmax(-1).flatten()
    tokens = rollout.response.flatten()
    expected = 3000 * probabilities
    chi_square = ((tokens.bincount(minlength=11) - expected).square() / expected).sum()
    assert chi_square < 29.6   # 10 degrees of freedom: p = 0.001
    assert torch.allclose(rollout.logprobs.flatten(), probabilities.log()[tokens], atol=1e-5)
    assert torch.allclose(rollout.reference_logprobs, rollout.logprobs, atol=1e-6)


def test_d23_the_kl_of_two_different_models_is_positive(lm, query):
    policy = ActorCritic(lm)
    reference = frozen(policy)
    torch.manual_seed(1)
    for parameter in reference.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    _, stats = collect(policy, reference, count_threes, query.repeat(200, 1), CONFIG)
    assert stats["objective/kl"] > 0.05


# ---------------------------------------------------------------- the loss

def padded(rollout, columns):
    """The same rollout with so many more PAD columns on both sides."""
    def wide(name):
        sides = (columns, 0) if name == "query" else (0, columns)
        fill = PAD if name in ("query", "response") else 0
        return F.pad(getattr(rollout, name), sides, value=fill)
    return Rollout(**{field.name: wide(field.name) for field in fields(rollout)})


@pytest.fixture
def policy(lm):
    """An actor-critic whose value head has something to say."""
    policy = ActorCritic(lm).eval()
    nn.init.normal_(policy.value_head.weight, std=0.3)
    return policy


@pytest.fixture
def collected(policy, query):
    """Six episodes of `policy`, and then a policy that has moved on."""
    rollout, _ = collect(policy, frozen(policy), count_threes, query.repeat(2, 1), CONFIG,
                         torch.Generator().manual_seed(0))
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return rollout


def gradients(policy, compute):
    """What `compute` returns, and the gradient it leaves, as one vector."""
    policy.zero_grad()
    result = compute()
    return result, torch.cat([p.grad.flatten() for p in policy.parameters()])


def test_d09_pad_columns_change_no_loss_gradient_or_metric(policy, collected):
    config = replace(CONFIG, entropy_coef=0.1)

    def compute(rollout):
        loss, stats = ppo_loss(policy, rollout, config)
        loss.backward()
        return {name: x.item() for name, x in stats.items()}
    stats, gradient = gradients(policy, lambda: compute(collected))
    wide_stats, wide_gradient = gradients(policy, lambda: compute(padded(collected, 3)))
    assert stats["ppo/policy/clipfrac"] > 0 and gradient.norm() > 0.1
    assert wide_stats == pytest.approx(stats, abs=1e-5)
    assert torch.allclose(gradient, wide_gradient, atol=1e-5)


def learned_in_parts(policy, minibatch, config):
    """The statistics of a minibatch, whose gradients are left in the policy."""
    stats = {}
    for loss in losses(policy, minibatch, config, stats):
        loss.backward()
    return stats


@pytest.mark.parametrize("size", [1, 2, 4])
def test_d33_microbatches_add_up_to_the_gradient_of_the_whole(policy, collected, size):
    config = replace(CONFIG, entropy_coef=0.1)
    assert collected.mask.sum(1).unique().numel() > 1   # lengths: a mean of means would not do
    (whole, gradient), (parts, summed) = (
        gradients(policy, lambda: learned_in_parts(
            policy, collected, replace(config, microbatch_size=n)))
        for n in (6, size))
    assert parts == pytest.approx(whole, abs=1e-5)
    assert torch.allclose(gradient, summed, atol=1e-5)


def test_d33_collecting_in_microbatches_changes_no_number_of_a_rollout(policy, query):
    whole, parts = (
        collect(policy, frozen(policy), count_threes, query.repeat(2, 1),
                replace(CONFIG, microbatch_size=size), torch.Generator().manual_seed(0))
        for size in (6, 4))
    for field in fields(Rollout):
        one, other = (getattr(rollout, field.name) for rollout, _ in (whole, parts))
        assert one.shape == other.shape and torch.allclose(one.float(), other.float(), atol=1e-5)
    assert parts[1] == pytest.approx(whole[1], abs=1e-5)


def test_d30_the_total_loss_and_its_figures_by_hand():
    rollout = replace(rollout_of([2, 1]), returns=torch.tensor([[0.5, 0.0], [0.0, 0.0]]))
    logprobs = torch.tensor([[1.5, 0.5], [1.0, 1.0]]).log()
    values = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    entropies = torch.tensor([[0.3, 0.6], [0.9, 0.0]])
    _, stats = ppo_loss(lambda query, response: (logprobs, values, entropies), rollout,
                        replace(CONFIG, entropy_coef=0.01))
    expected = {
        "ppo/loss/policy": -0.9,             # -(1.2 + 0.5 + 1) / 3
        "ppo/loss/value": 0.0416667,         # max(0.5^2, 0.3^2) / 2 / 3
        "ppo/policy/entropy": 0.6,
        "ppo/loss/total": -0.9018333,        # -0.9 + 0.1 * 0.0416667 - 0.01 * 0.6
        "ppo/policy/clipfrac": 1 / 3,
        "ppo/policy/approxkl": 0.1074755,    # ((ln 1.5)^2 + (ln 0.5)^2) / 3 / 2
        "ppo/policy/ratio": 1.0,             # (1.5 + 0.5 + 1) / 3
    }
    assert {name: x.item() for name, x in stats.items()} == pytest.approx(expected, abs=1e-6)


def test_d30_the_ratio_and_the_value_clip_begin_at_the_policy_that_sampled():
    rollout = replace(rollout_of([1]), logprobs=torch.tensor([[-1.0]]),
                      reference_logprobs=torch.tensor([[-3.0]]), returns=torch.tensor([[0.6]]))
    outputs = torch.tensor([[-1.0]]), torch.tensor([[0.5]]), torch.zeros(1, 1)
    _, stats = ppo_loss(lambda query, response: outputs, rollout, CONFIG)
    assert stats["ppo/policy/ratio"] == 1 and stats["ppo/policy/approxkl"] == 0   # not e^2, 2
    # the value began at 0: max(0.1^2, (0.2 - 0.6)^2) / 2; from 0.5 on it would be 0.005
    assert stats["ppo/loss/value"].item() == pytest.approx(0.08)


def test_d30_entropy_of_a_categorical():
    # 0.5, 0.25, 0.25 (logits shifted by 3): 0.5 ln 2 + 0.5 ln 4 = 1.5 ln 2
    logits = torch.tensor([0.5, 0.25, 0.25]).log() + 3
    assert entropy_of(log_softmax(logits)).item() == pytest.approx(1.0397208)


def test_d45_defaults_are_not_those_of_games():
    config = PPOConfig()   # there: 0.01, 0.5, 0.5, 0.99 and an orthogonal start
    assert config.entropy_coef < 0.01 and config.value_coef < 0.5
    assert config.max_grad_norm != 0.5 and config.gamma == 1
    weight = build(TransformerConfig(11, 0, width=16, heads=2, layers=1)).blocks[0].expand.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.2)   # normal, not orthogonal


# ---------------------------------------------------------------- update

def test_d20_kl_0_and_ratio_1_on_every_token_before_the_first_update_and_after_one_without_a_step(
        lm, query):
    policy = ActorCritic(lm, temperature=0.7).eval()
    rollout, stats = collect(policy, frozen(policy), count_threes, query.repeat(4, 1), CONFIG)
    assert abs(stats["objective/kl"]) < 1e-5
    optimizer = torch.optim.Adam(policy.parameters(), 0.0, eps=1e-5)
    config = replace(CONFIG, epochs=3, minibatch_size=5)
    learned = update(policy, optimizer, memory_of(rollout), config)
    assert learned["ppo/policy/ratio"] == pytest.approx(1, abs=1e-5)
    assert learned["ppo/policy/approxkl"] < 1e-9 and learned["ppo/policy/clipfrac"] == 0
    for part in memory_of(rollout).minibatches(5):
        ratio = (policy(part.query, part.response)[0] - part.logprobs).exp()
        assert (ratio - 1).abs().max() < 1e-5


def test_d32_an_update_sees_every_episode_once_an_epoch():
    seen = []

    class Watched(Shift):
        def forward(self, query, response):
            seen.append(query[:, 0].tolist())
            return super().forward(query, response)
    rollout = replace(rollout_of([1] * 6), query=torch.arange(6)[:, None])
    policy = Watched(0.0)
    update(policy, torch.optim.SGD(policy.parameters(), 0.0), memory_of(rollout),
           replace(CONFIG, epochs=3, minibatch_size=4, microbatch_size=4),
           torch.Generator().manual_seed(0))
    assert [len(batch) for batch in seen] == [4, 2] * 3
    epochs = [seen[i] + seen[i + 1] for i in (0, 2, 4)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) > 1


def one_step(weight, config, advantage=1.0):
    """The weight after one update by plain gradient descent at rate 1, and the statistics."""
    policy = Shift(weight)
    policy.weight.grad = torch.tensor(1000.0)   # left over: must not count
    optimizer = torch.optim.SGD(policy.parameters(), 1.0)
    stats = update(policy, optimizer, memory_of(rollout_of([2, 1], advantage)), config)
    return policy.weight.item(), stats


def test_d39_gradients_are_cleared_clipped_before_the_step_and_logged_unclipped():
    # rho = 1, value error 0: the gradient is -A = -3
    weight, stats = one_step(0.0, replace(CONFIG, max_grad_norm=10.0), advantage=3.0)
    assert weight == pytest.approx(3.0) and stats["ppo/grad_norm"] == pytest.approx(3.0)
    weight, stats = one_step(0.0, replace(CONFIG, max_grad_norm=0.5), advantage=3.0)
    assert weight == pytest.approx(0.5, abs=1e-4) and stats["ppo/grad_norm"] == pytest.approx(3.0)
    weight, stats = one_step(0.0, replace(CONFIG, max_grad_norm=0.0), advantage=3.0)   # off
    assert weight == pytest.approx(3.0) and stats["ppo/grad_norm"] == pytest.approx(3.0)


def test_d39_each_minibatch_starts_from_no_gradient():
    policy = Shift(0.0)
    optimizer = torch.optim.SGD(policy.parameters(), 0.01)
    stats = update(policy, optimizer, memory_of(rollout_of([1, 1, 1])),
                   replace(CONFIG, minibatch_size=1, value_coef=0.0, max_grad_norm=10.0))
    # three steps of 0.01 rho, rho = 1, e^0.01, e^0.0201005; gradients added up: twice as far
    assert policy.weight.item() == pytest.approx(0.0303035, abs=1e-6)
    assert stats["ppo/grad_norm"] == pytest.approx(1.0101, abs=1e-3)


@pytest.mark.parametrize("limit, ratio, skipped", [(10.0, 9.9, 0), (10.0, 10.1, 1), (0.0, 10.1, 0)])
def test_d34_a_minibatch_too_far_away_is_skipped_and_counted_and_changes_no_weight(
        limit, ratio, skipped):
    config = replace(CONFIG, max_ratio=limit, max_grad_norm=100.0, epochs=2, value_coef=0.0)
    # advantages -1: the loss is rho, unclipped from above; a step not skipped goes down by rho
    weight, stats = one_step(math.log(ratio), replace(config, epochs=1), advantage=-1.0)
    assert stats["ppo/skipped"] == skipped and stats["ppo/early_stops"] == 0
    expected = math.log(ratio) if skipped else math.log(ratio) - ratio
    assert weight == pytest.approx(expected, abs=1e-4)
    if skipped:   # events are summed over the minibatches, not averaged
        assert one_step(math.log(ratio), config, advantage=-1.0)[1]["ppo/skipped"] == 2


@pytest.mark.parametrize("target, stopped", [(0.0132, 1), (0.0134, 0), (0.0, 0)])
def test_d34_an_update_ends_when_the_kl_passes_one_and_a_half_targets(target, stopped):
    config = replace(CONFIG, early_stop_kl=target, epochs=3, max_grad_norm=1e-6)
    # every log-ratio 0.2: KL 0.2^2 / 2 = 0.02; 1.5 * 0.0132 = 0.0198, 1.5 * 0.0134 = 0.0201
    weight, stats = one_step(0.2, config, advantage=-1.0)
    assert stats["ppo/early_stops"] == stopped and stats["ppo/skipped"] == 0
    assert stats["ppo/policy/approxkl"] == pytest.approx(0.02, abs=1e-4)
    assert (weight == pytest.approx(0.2, abs=1e-7)) is bool(stopped)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("changes, steps", [
    ({}, 2), ({"max_ratio": 1.1}, 1), ({"early_stop_kl": 0.01}, 1),
], ids=["taken", "skipped", "stopped"])
def test_a_minibatch_without_a_step_changes_no_weight_and_nothing_in_the_optimizer(
        changes, steps, fused):
    policy = Shift(0.21)
    optimizer = torch.optim.Adam(policy.parameters(), 0.01, weight_decay=0.1, fused=fused)
    policy.weight.grad = torch.tensor(1.0)
    optimizer.step()   # to 0.2, and running means that a step without a gradient would move
    weight, before = policy.weight.item(), copy.deepcopy(optimizer.state_dict()["state"])
    assert weight == pytest.approx(0.2)   # ratio e^0.2 = 1.22, KL 0.2^2 / 2 = 0.02 > 1.5 * 0.01
    stats = update(policy, optimizer, memory_of(rollout_of([2, 1])), replace(CONFIG, **changes))
    after = optimizer.state_dict()["state"]
    assert stats["ppo/skipped"] + stats["ppo/early_stops"] == 2 - steps
    assert after[0]["step"] == steps
    assert (after == before) is (policy.weight.item() == weight) is (steps == 1)


def test_d35_adam_s_epsilon_stands_beside_the_corrected_deviation():
    # g = 1e-4, rate 1e-5. PyTorch, used here: lr g / (|g| + eps) = 1e-5 * 1e-4 / 1.1e-4 = 9.09e-6.
    # TensorFlow: lr sqrt(1 - b2) / (1 - b1) * (1 - b1) g / (sqrt(1 - b2) |g| + eps)
    #             = 3.162e-6 * 1e-5 / (3.162e-6 + 1e-5) = 2.40e-6 with b1 = 0.9, b2 = 0.999:
    #             its eps weighs 31.6 times as much at first.
    weight = torch.zeros((), dtype=torch.float64, requires_grad=True)
    weight.grad = torch.tensor(1e-4, dtype=torch.float64)
    torch.optim.Adam([weight], 1e-5, eps=1e-5, fused=True).step()
    assert -weight.item() == pytest.approx(9.0909e-6, rel=1e-4)
    assert -weight.item() != pytest.approx(2.4025e-6, rel=0.5)
    used = "Adam(policy.parameters(), config.lr, eps=1e-5, fused=True)"
    assert used in inspect.getsource(finetune_ppo.main)


def trained(policy, score, query, iterations=1, lr=0.02, seed=0):
    """The mean scores of so many iterations."""
    reference, generator = frozen(policy), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(policy.parameters(), lr, eps=1e-5)
    config = replace(CONFIG, epochs=2, minibatch_size=32, microbatch_size=32)
    scores = []
    for _ in range(iterations):
        rollout, stats = collect(policy, reference, score, query, config, generator)
        update(policy, optimizer, memory_of(rollout), config, generator)
        scores.append(stats["objective/scores"])
    return scores


def contents(module):
    return {name: x.numpy().tobytes() for name, x in module.state_dict().items()}


def test_d40_reference_and_reward_stay_byte_identical_and_untrained(policy, query):
    score_lm = frozen(policy)
    reference = frozen(policy)
    assert all(p.requires_grad for p in policy.parameters())   # freezing the copy froze no original
    assert not any(p.requires_grad for p in reference.parameters())
    before = contents(reference)
    rollout, _ = collect(policy, reference, lambda q, r: score_lm(q, r)[1].sum(1), query, CONFIG)
    optimizer = torch.optim.Adam(policy.parameters(), 0.1)
    update(policy, optimizer, memory_of(rollout), CONFIG)
    assert contents(reference) == contents(score_lm) == before
    assert all(one != other for one, other in zip(before.values(), contents(policy).values()))
    optimized = {p.data_ptr() for group in optimizer.param_groups for p in group["params"]}
    others = [p for model in (reference, score_lm) for p in model.parameters()]
    assert not optimized & {p.data_ptr() for p in others}
    assert all(p.grad is None for model in (reference, score_lm) for p in model.parameters())
    assert not any(getattr(rollout, f.name).requires_grad for f in fields(rollout))


def test_d42_one_seed_gives_the_same_bytes(policy, query):
    twin, other = (frozen(policy).requires_grad_(True) for _ in range(2))
    runs = ((policy, 3), (twin, 3), (other, 4))
    results = [trained(model, count_threes, query, 2, seed=seed) for model, seed in runs]
    assert results[0] == results[1] != results[2]
    assert contents(policy) == contents(twin) != contents(other)


@pytest.mark.parametrize("architecture", ["decoder", "seq2seq"])
@pytest.mark.parametrize("score", [count_threes, lambda query, response: (response == 3).float()],
                         ids=["per response", "per token"])
def test_d44_a_score_is_driven_up_and_its_negation_down(architecture, score):
    query = torch.zeros(64, 1, dtype=torch.long)

    def counts(sign):
        torch.manual_seed(0)
        lm = build(TransformerConfig(6, 0, architecture, width=8, heads=1, layers=1, context=8))
        scores = trained(ActorCritic(lm).eval(), lambda q, r: sign * score(q, r), query, 25)
        return [sign * x for x in scores]
    up, down = counts(1), counts(-1)
    assert 0.2 < up[0] == down[0] < 0.8   # about a sixth of 2.6 tokens
    assert sum(up[-3:]) / 3 > 2.5 and sum(down[-3:]) / 3 < 0.1
