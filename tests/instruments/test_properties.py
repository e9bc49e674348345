"""What holds for every batch: claims that hypothesis tries to refute."""

import math
from dataclasses import fields, replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F

from minippo.generation import generate
from minippo.memory import PPOMemory, Rollout, explained_variance
from minippo.policy import ActorCritic, at_tokens, entropy_of, log_softmax
from minippo.ppo import (
    AdaptiveKL,
    PPOConfig,
    gae,
    kl_estimates,
    penalized_rewards,
    policy_loss,
    ppo_loss,
    value_loss,
    whiten,
)
from minippo.tokenizer import Tokenizer
from minippo.tokens import PAD, masked_mean, pad_left, pad_right
from minippo.transformer import TransformerConfig, build

hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")
given, assume = hypothesis.given, hypothesis.assume
tries = hypothesis.settings(max_examples=40, deadline=None, derandomize=True, database=None)
few = hypothesis.settings(tries, max_examples=12)

VOCABULARY, END = 11, 0
CONFIG = PPOConfig(entropy_coef=0.1)
NUMBERS = ("logprobs", "old_logprobs", "reference_logprobs", "advantages", "returns", "values",
           "old_values")

fractions = st.floats(0, 1)
clips = st.floats(0.01, 0.9)
seeds = st.integers(0, 2**32)
lengths = st.lists(st.integers(1, 5), min_size=1, max_size=4)
token_rows = st.lists(st.lists(st.integers(0, VOCABULARY - 1), max_size=5), max_size=5)
unicode = st.text(st.characters(exclude_categories=["Cs"]))   # but half surrogate pairs
texts = st.lists(unicode | st.just("<|endoftext|>")).map("".join)   # typed, it is text


class Batch:
    """Random (B, R) numbers under NUMBERS' names, 0 at PAD, responses of these lengths; score (B,).

    spread   how far the numbers lie apart
    """

    def __init__(self, lengths, seed, spread=1.0):
        generator = torch.Generator().manual_seed(seed)
        self.lengths = lengths
        self.mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        for name in NUMBERS:
            x = spread * torch.randn(self.mask.shape, generator=generator, dtype=torch.float64)
            setattr(self, name, x * self.mask)
        self.score = torch.randn(len(lengths), generator=generator, dtype=torch.float64)

    def changed(self, change):
        """A batch with every (B, R) tensor, and the mask, changed."""
        other = Batch(self.lengths, 0)
        for name in (*NUMBERS, "mask"):
            setattr(other, name, change(getattr(self, name)))
        other.score = self.score
        return other

    def rewards(self, kl_coef=0.3):
        return penalized_rewards(self.score, self.logprobs, self.reference_logprobs, self.mask,
                                 kl_coef)

    def policy_loss(self, clip=0.2):
        return policy_loss(self.logprobs, self.old_logprobs, self.advantages, self.mask, clip)

    def value_loss(self, clip=0.2):
        return value_loss(self.values, self.old_values, self.returns, self.mask, clip)


batches = st.builds(Batch, lengths, seeds, st.floats(0.05, 2))


def per_token(batch):
    """Everything that comes out as (B, R), with PAD columns as they are."""
    rewards = batch.rewards()
    return [rewards, *gae(rewards, batch.values, 0.9, 0.8), whiten(batch.advantages, batch.mask),
            whiten(batch.advantages, batch.mask, shift_mean=False)]


def per_batch(batch):
    """Everything that comes out as one number."""
    return torch.stack([*batch.policy_loss(), batch.value_loss(),
                        masked_mean(batch.values, batch.mask),
                        explained_variance(batch.values, batch.returns, batch.mask)])


def close(one, other, atol=1e-9):
    return torch.allclose(one, torch.as_tensor(other, dtype=one.dtype), rtol=1e-9, atol=atol)


# ---------------------------------------------------------------- padding, order, garbage

@tries
@given(batches, st.integers(1, 4))
def test_pad_columns_change_nothing_and_stay_0(batch, columns):
    wide = batch.changed(lambda x: F.pad(x, (0, columns)))
    for narrow, padded in zip(per_token(batch), per_token(wide)):
        assert close(F.pad(narrow, (0, columns)), padded) and not padded[~wide.mask].any()
    assert close(per_batch(batch), per_batch(wide))


@tries
@given(batches, st.randoms())
def test_the_order_of_the_episodes_is_that_of_the_results_and_changes_no_loss(batch, random):
    order = random.sample(range(len(batch.score)), len(batch.score))
    other = batch.changed(lambda x: x[order])
    other.score = batch.score[order]
    for one, permuted in zip(per_token(batch), per_token(other)):
        assert close(one[order], permuted)
    assert close(per_batch(batch), per_batch(other))


@tries
@given(batches, seeds)
def test_whatever_stands_at_pad_changes_nothing(batch, seed):
    generator = torch.Generator().manual_seed(seed)

    def littered(x):
        if x.dtype == torch.bool:
            return x
        litter = 20 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        return torch.where(batch.mask, x, litter)
    other = batch.changed(littered)
    assert close(per_batch(batch), per_batch(other))
    assert close(batch.rewards(), other.rewards())
    for keep in (True, False):
        assert close(whiten(batch.returns, batch.mask, keep),
                     whiten(other.returns, batch.mask, keep))
    scores = batch.values, other.values      # one per token
    one, two = (penalized_rewards(x, batch.logprobs, batch.reference_logprobs, batch.mask, 0.3)
                for x in scores)
    assert close(one, two)


@tries
@given(batches)
def test_numbers_at_pad_get_no_gradient(batch):
    for name, loss in (("logprobs", lambda b: b.policy_loss()[0]),
                       ("values", lambda b: b.value_loss())):
        x = getattr(batch, name).clone().requires_grad_()
        other = batch.changed(lambda y: y)
        setattr(other, name, x)
        loss(other).backward()
        assert not x.grad[~batch.mask].any()


# ---------------------------------------------------------------- rewards and KL

@tries
@given(batches, fractions)
def test_an_episode_earns_its_score_minus_the_price_of_its_kl(batch, kl_coef):
    kl = (batch.logprobs - batch.reference_logprobs).sum(1)
    assert close(batch.rewards(kl_coef).sum(1), batch.score - kl_coef * kl)
    at_end = batch.rewards(0.0)      # without a price the score is all there is, at the last token
    last = torch.tensor(batch.lengths)[:, None] - 1
    assert close(at_end.gather(1, last)[:, 0], batch.score)
    assert (at_end != 0).sum() == len(batch.score)
    per_token = penalized_rewards(batch.values, batch.logprobs, batch.reference_logprobs,
                                  batch.mask, kl_coef)
    assert close(per_token.sum(1), batch.values.sum(1) - kl_coef * kl)


@tries
@given(st.integers(2, 6), seeds, st.floats(0.1, 3))
def test_k1_and_k3_are_unbiased_and_k2_is_half_the_second_moment(size, seed, spread):
    logits = spread * torch.randn(2, size, dtype=torch.float64,
                                  generator=torch.Generator().manual_seed(seed))
    pi, reference = logits.log_softmax(-1)
    p, kl, second = pi.exp().tolist(), 0.0, 0.0
    for a in range(size):            # sum p log(p / q), sum p (log(p / q))^2
        log_ratio = math.log(p[a] / math.exp(reference[a].item()))
        kl, second = kl + p[a] * log_ratio, second + p[a] * log_ratio ** 2
    k1, k2, k3 = kl_estimates(pi, reference)
    expected = [(pi.exp() * k).sum() for k in (k1, k2, k3)]
    assert close(torch.stack(expected), [kl, second / 2, kl])
    assert (k3 >= 0).all() and (k2 >= 0).all() and kl >= 0


@tries
@given(st.floats(0.01, 1), st.floats(0.1, 20), st.floats(0, 100), st.integers(1, 1000))
def test_the_kl_coefficient_moves_against_the_error_by_a_fifth_at_most(start, target, kl, episodes):
    horizon = 1000
    step = AdaptiveKL(start, target, horizon).update(kl, episodes) / start - 1
    assert abs(step) <= 0.2 * episodes / horizon + 1e-12
    if abs(kl / target - 1) > 0.2:
        assert step == pytest.approx(math.copysign(0.2 * episodes / horizon, kl - target))
    assert AdaptiveKL(start, target, horizon).update(target, episodes) == start


# ---------------------------------------------------------------- advantages

@tries
@given(batches, fractions, fractions)
def test_gae_is_the_double_sum_over_the_tokens_that_follow(batch, gamma, lam):
    advantages, returns = gae(batch.returns, batch.values, gamma, lam)
    for row, length in enumerate(batch.lengths):
        r, v = batch.returns[row].tolist(), [*batch.values[row, :length].tolist(), 0.0]
        for t in range(length):      # Schulman et al. 2016, eq. 16
            expected = sum((gamma * lam) ** (s - t) * (r[s] + gamma * v[s + 1] - v[s])
                           for s in range(t, length))
            assert advantages[row, t].item() == pytest.approx(expected, abs=1e-9)
    assert close(returns, advantages + batch.values)


@tries
@given(batches, fractions)
def test_lambda_0_is_the_one_step_error_and_lambda_1_the_return_minus_the_value(batch, gamma):
    rewards, values = batch.returns, batch.values
    following = F.pad(values[:, 1:], (0, 1))
    assert close(gae(rewards, values, gamma, 0.0)[0], rewards + gamma * following - values)
    width = rewards.shape[1]
    discounts = torch.tensor([[gamma ** (s - t) if s >= t else 0.0 for t in range(width)]
                              for s in range(width)], dtype=torch.float64)
    advantages, returns = gae(rewards, values, gamma, 1.0)
    assert close(returns, rewards @ discounts)
    assert close(advantages, (rewards @ discounts - values) * batch.mask)


@tries
@given(batches, fractions)
def test_without_gamma_nothing_but_the_own_reward_counts(batch, lam):
    advantages, returns = gae(batch.returns, batch.values, 0.0, lam)
    assert close(advantages, batch.returns - batch.values) and close(returns, batch.returns)


@tries
@given(batches, st.floats(0.1, 10), st.floats(-5, 5))
def test_whitened_numbers_have_mean_0_and_variance_1_whatever_their_unit(batch, unit, origin):
    assume(sum(batch.lengths) > 2 and batch.advantages[batch.mask].std() > 0.03)
    whitened = whiten(batch.advantages, batch.mask)
    real = whitened[batch.mask]
    assert close(real.mean(), 0.0) and close(real.var(correction=0), 1.0, atol=1e-4)
    other = whiten(unit * batch.advantages + origin, batch.mask)
    assert close(whitened, other, atol=1e-2)     # eps 1e-8 is not scaled with the variance
    assert (whitened[batch.mask] > whitened[batch.mask].roll(1)).equal(
        batch.advantages[batch.mask] > batch.advantages[batch.mask].roll(1))   # the same order


@tries
@given(batches, st.floats(-5, 5))
def test_whitening_without_the_shift_keeps_the_mean(batch, origin):
    rewards = (batch.returns + origin) * batch.mask
    kept = whiten(rewards, batch.mask, shift_mean=False)
    assert close(masked_mean(kept, batch.mask), masked_mean(rewards, batch.mask))
    centred = (kept - masked_mean(kept, batch.mask)) * batch.mask
    assert close(centred, whiten(rewards, batch.mask))


@tries
@given(batches)
def test_a_masked_mean_lies_between_the_smallest_and_the_largest_real_number(batch):
    real = batch.values[batch.mask].tolist()
    mean = masked_mean(batch.values + 100.0 * ~batch.mask, batch.mask).item()
    assert min(real) - 1e-9 <= mean <= max(real) + 1e-9
    assert mean == pytest.approx(math.fsum(real) / sum(batch.lengths), abs=1e-9)
    assert masked_mean(batch.values, batch.mask & False) == 0


@tries
@given(batches, st.floats(0.1, 10), st.floats(-5, 5))
def test_explained_variance_has_no_unit_and_no_origin(batch, unit, origin):
    assume(sum(batch.lengths) > 2 and batch.returns[batch.mask].std() > 0.03)

    def explained(values):
        return explained_variance(values, batch.returns, batch.mask).item()
    assert explained(batch.returns + origin) == pytest.approx(1)
    assert explained(torch.full_like(batch.values, origin)) == pytest.approx(0)
    assert explained_variance(unit * batch.values + origin, unit * batch.returns, batch.mask
                              ).item() == pytest.approx(explained(batch.values))


# ---------------------------------------------------------------- losses

@tries
@given(batches, clips)
def test_at_ratio_1_the_loss_is_minus_the_mean_advantage_and_its_gradient_too(batch, clip):
    logprobs = batch.old_logprobs.clone().requires_grad_()
    loss, fraction = policy_loss(logprobs, batch.old_logprobs, batch.advantages, batch.mask, clip)
    loss.backward()
    real = batch.advantages[batch.mask]
    assert close(loss.detach(), -real.mean()) and fraction == 0
    assert close(logprobs.grad, -batch.advantages / len(real))


@tries
@given(batches, clips)
def test_the_policy_loss_is_a_ceiling_on_the_gain_and_flat_beyond_it(batch, clip):
    logprobs = batch.logprobs.clone().requires_grad_()
    loss, fraction = policy_loss(logprobs, batch.old_logprobs, batch.advantages, batch.mask, clip)
    loss.backward()
    total, flat, count = 0.0, 0, sum(batch.lengths)
    for own, old, a, slope in zip(*(x[batch.mask].tolist() for x in (
            batch.logprobs, batch.old_logprobs, batch.advantages, logprobs.grad))):
        ratio = math.exp(own - old)
        beyond = ratio > 1 + clip if a > 0 else ratio < 1 - clip
        assert slope == pytest.approx(0.0 if beyond else -a * ratio / count, abs=1e-9)
        total -= a * (1 + clip if a > 0 else 1 - clip) if beyond else a * ratio
        flat += beyond
    assert loss.item() == pytest.approx(total / count, abs=1e-9)
    assert fraction.item() == pytest.approx(flat / count, abs=1e-6)


@tries
@given(batches, clips)
def test_clipping_never_lowers_a_loss_and_a_wide_clip_changes_none(batch, clip):
    ratio = (batch.logprobs - batch.old_logprobs).exp()
    plain = -masked_mean(ratio * batch.advantages, batch.mask)
    error = masked_mean((batch.values - batch.returns) ** 2, batch.mask) / 2
    assert batch.policy_loss(clip)[0] >= plain - 1e-9 and batch.value_loss(clip) >= error - 1e-9
    assert close(batch.policy_loss(1e9)[0], plain) and close(batch.value_loss(1e9), error)


@tries
@given(batches, clips, fractions)
def test_within_the_clip_the_value_loss_is_half_the_squared_error(batch, clip, share):
    batch.values = batch.old_values + share * 0.999 * clip * batch.old_logprobs.sin() * batch.mask
    error = masked_mean((batch.values - batch.returns) ** 2, batch.mask) / 2
    assert close(batch.value_loss(clip), error)


@tries
@given(batches, clips)
def test_a_value_has_no_slope_where_it_has_moved_far_enough_towards_the_return(batch, clip):
    """Past old + clip on the way to a return beyond: pulled no further; turned away: pulled back"""
    sign = torch.where(batch.returns >= batch.old_values, 1.0, -1.0)
    away = (batch.returns - batch.old_values).abs()
    for direction, flat in ((sign, True), (-sign, False)):
        returns = batch.old_values + sign * (away + 2 * clip)
        values = (batch.old_values + 1.5 * clip * direction).requires_grad_()
        value_loss(values, batch.old_values, returns, batch.mask, clip).backward()
        slope = 0 * values if flat else (values - returns) * batch.mask / sum(batch.lengths)
        assert close(values.grad, slope.detach())


# ---------------------------------------------------------------- distributions

@tries
@given(st.integers(2, 6), seeds, st.floats(0.1, 30), st.floats(-100, 100))
def test_probabilities_sum_to_1_and_entropy_is_their_mean_surprise(size, seed, spread, shift):
    logits = spread * torch.randn(3, size, dtype=torch.float64,
                                  generator=torch.Generator().manual_seed(seed))
    tokens = torch.arange(size).expand(3, size)

    def both(logits):
        everything = log_softmax(logits)
        return (at_tokens(everything[:, None].expand(3, size, size), tokens), entropy_of(everything))
    logprobs, entropy = both(logits)
    assert close(logprobs.exp().sum(1), torch.ones(3))
    assert close(entropy, -(logprobs.exp() * logprobs).sum(1))
    assert (entropy <= math.log(size) + 1e-9).all() and (entropy >= -1e-9).all()
    for one, shifted in zip((logprobs, entropy), both(logits + shift)):
        assert close(one, shifted)


# ---------------------------------------------------------------- the language models

@cache
def model(architecture):
    """Random weights, large enough that a wrong column or mask shows."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        lm = build(TransformerConfig(VOCABULARY, END, architecture, width=8, heads=2, layers=1,
                                     context=32)).eval().requires_grad_(False)
        for parameter in lm.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
        critic = ActorCritic(lm)
        torch.nn.init.normal_(critic.value_head.weight)
    return lm, critic.value_head


def actor_critic(architecture, temperature=1.0):
    lm, head = model(architecture)
    policy = ActorCritic(lm, temperature=temperature)
    policy.value_head = head
    return policy.eval()


architectures = pytest.mark.parametrize("architecture", ["decoder", "seq2seq"])
dialogues = st.lists(st.tuples(
    st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=4),
    st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=4)), min_size=1, max_size=4)


@architectures
@few
@given(dialogues, st.integers(0, 3), st.integers(0, 3))
def test_padding_on_either_side_changes_no_output_of_a_policy(architecture, rows, left, right):
    policy = actor_critic(architecture)
    query, response = pad_left([q for q, _ in rows]), pad_right([r for _, r in rows])
    narrow = policy(query, response)
    wide = policy(F.pad(query, (left, 0), value=PAD), F.pad(response, (0, right), value=PAD))
    for one, other in zip(narrow, wide):
        assert torch.allclose(F.pad(one, (0, right)), other, atol=1e-5)
    for row, (q, r) in enumerate(rows):      # nor does the company in a batch
        for one, alone in zip(narrow, policy(torch.tensor([q]), torch.tensor([r]))):
            assert torch.allclose(one[row, :len(r)], alone[0], atol=1e-5)
            assert not one[row, len(r):].any()


@architectures
@few
@given(dialogues, st.floats(0.2, 5))
def test_the_temperature_divides_the_odds_of_any_two_tokens(architecture, rows, temperature):
    query = pad_left([q for q, _ in rows])

    def odds(policy):
        one, other = (policy(query, torch.full((len(rows), 1), token))[0] for token in (3, 4))
        return one - other
    plain, divided = odds(actor_critic(architecture)), odds(actor_critic(architecture, temperature))
    assert torch.allclose(temperature * divided, plain, rtol=1e-3, atol=1e-4)


@architectures
@few
@given(dialogues, seeds, st.integers(1, 6))
def test_a_response_ends_once_and_nothing_follows(architecture, rows, seed, length):
    query, generator = pad_left([q for q, _ in rows]), torch.Generator().manual_seed(seed)
    for row in generate(model(architecture)[0], query, length, generator=generator).tolist():
        said = [token for token in row if token != PAD]
        assert row == said + [PAD] * (len(row) - len(said)) and len(row) <= length
        assert END not in said[:-1] and all(0 <= token < VOCABULARY for token in said)
        assert said[-1] == END or len(said) == length


@architectures
@few
@given(dialogues, seeds)
def test_litter_at_pad_and_more_pads_change_no_loss_of_a_rollout(architecture, rows, seed):
    policy, response = actor_critic(architecture), pad_right([r for _, r in rows])
    batch = Batch([len(r) for _, r in rows], seed, 0.3)
    rollout = Rollout(
        pad_left([q for q, _ in rows]), response, batch.mask, *(x.float() for x in (
            batch.logprobs - 2, batch.reference_logprobs, batch.values, batch.rewards(),
            batch.advantages, batch.returns)))
    gap = batch.mask.new_zeros(len(rows), 2)
    real = torch.cat([batch.mask, gap], 1)

    def wide(x):
        return torch.where(real, F.pad(x, (0, 2)), 7.5)
    fields_of = {f.name: getattr(rollout, f.name) for f in fields(Rollout)}
    littered = {name: wide(x) for name, x in fields_of.items() if x.dtype == torch.float32}
    padded = replace(rollout, query=F.pad(rollout.query, (2, 0), value=PAD), mask=real,
                     response=F.pad(response, (0, 2), value=PAD), **littered)
    (_, one), (_, other) = ppo_loss(policy, rollout, CONFIG), ppo_loss(policy, padded, CONFIG)
    for name in one:
        assert one[name].item() == pytest.approx(other[name].item(), abs=1e-4, rel=1e-4), name


# ---------------------------------------------------------------- tokens, memory, text

@tries
@given(token_rows, st.integers(0, 3))
def test_padded_rows_are_found_again_on_their_side(rows, extra):
    width = max((len(row) for row in rows), default=0) + extra
    for pad, side in ((pad_left, slice(None, None, -1)), (pad_right, slice(None))):
        padded = pad(rows, width)
        assert padded.shape == (len(rows), width) and padded.dtype == torch.long
        for row, line in zip(rows, padded.tolist()):
            assert [token for token in line if token != PAD] == row
            assert line[side] == row[side] + [PAD] * (width - len(row))
        if not extra:
            assert pad(rows).equal(padded)


@tries
@given(st.lists(lengths, min_size=1, max_size=3), st.integers(1, 15), seeds)
def test_an_epoch_holds_every_episode_once_with_its_own_numbers(rollouts, size, seed):
    memory, numbered, first = PPOMemory(), [], 1
    for group in rollouts:
        names = range(first, first + len(group))
        response = pad_right([[i] * n for i, n in zip(names, group)])
        mask, x = response != PAD, response.clamp(min=0).double()
        memory.store(Rollout(pad_left([[i] * (1 + i % 3) for i in names]), response, mask,
                             *(k * x for k in range(1, 7))))
        numbered += zip(names, group)
        first += len(group)
    seen, sizes = [], []
    for part in memory.minibatches(size, torch.Generator().manual_seed(seed)):
        sizes.append(len(part))
        assert part.mask.any(0).all() and (part.query != PAD).any(0).all()   # trimmed
        for row, i in enumerate(part.query[:, -1].tolist()):
            seen.append((i, int(part.mask[row].sum())))
            assert part.query[row].eq(i).sum() == 1 + i % 3
            assert part.response[row].eq(torch.where(part.mask[row], i, PAD)).all()
            for k, name in enumerate([f.name for f in fields(Rollout)][3:], 1):
                assert getattr(part, name)[row].tolist() == (k * i * part.mask[row]).tolist()
    total = len(numbered)
    assert sorted(seen) == numbered and len(memory) == total
    assert sizes == [size] * (total // size) + [total % size] * (total % size > 0)


@cache
def tokenizer(size):
    return Tokenizer.train(["the film was great", "what a film", "\u00e9\u00e9\u00e9 \u4f60"] * 9,
                           size)


@pytest.mark.parametrize("size", [257, 300])
@tries
@given(texts)
def test_every_text_survives_encoding_and_decoding(size, text):
    ids = tokenizer(size).encode(text)
    assert tokenizer(size).decode(ids) == text
    assert all(0 <= i < tokenizer(size).vocab_size and i != tokenizer(size).end for i in ids)
    padded = [PAD, *ids, tokenizer(size).end, PAD]
    assert tokenizer(size).decode(padded) == text
