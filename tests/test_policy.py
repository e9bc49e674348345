"""The policy's three outputs: against numbers worked out by hand, and at every kind of padding."""

import copy
import math
import re

import pytest
import torch

from minippo.policy import ActorCritic, at_tokens, entropy_of, frozen, log_softmax
from minippo.reward import RewardModel
from minippo.tokens import PAD
from minippo.transformer import TransformerConfig, build


@pytest.fixture(params=["value head", "separate critic"])
def policy(request, lm):
    """An actor-critic whose values are not 0."""
    critic = RewardModel(copy.deepcopy(lm)) if request.param == "separate critic" else None
    policy = ActorCritic(lm, critic).eval()
    if critic is None:
        torch.nn.init.normal_(policy.value_head.weight)
    return policy


def close(a, b):
    return torch.allclose(a, b, rtol=0, atol=1e-5)


# The formulas

def test_log_probabilities_by_hand():
    # softmax of ln 1, ln 3, ln 4 is 1/8, 3/8, 4/8; of three equal logits 1/3 each
    logits = torch.tensor([[[1., 3., 4.], [1., 3., 4.], [1., 1., 1.]]]).log()
    logits[0, 2] += 100
    expected = torch.tensor([[-2.0794, -0.9808, -1.0986]])   # ln 1/8, ln 3/8, ln 1/3
    assert torch.allclose(at_tokens(log_softmax(logits), torch.tensor([[0, 1, 2]])), expected, atol=1e-4)


def test_d09_the_log_probability_of_pad_is_0_and_has_no_gradient():
    logits = torch.tensor([[[1., 2.], [3., 5.]]], requires_grad=True)
    logprobs = at_tokens(log_softmax(logits), torch.tensor([[1, PAD]]))
    logprobs.sum().backward()
    assert logprobs[0, 1] == 0 and (logits.grad[0, 1] == 0).all() and (logits.grad[0, 0] != 0).all()


def test_log_probabilities_of_bfloat16_logits_are_float32():
    flat = log_softmax(torch.zeros(1, 1, 256, dtype=torch.bfloat16))
    logprobs = at_tokens(flat, torch.tensor([[7]]))
    assert logprobs.dtype == torch.float32
    assert logprobs.item() == pytest.approx(-5.545177, abs=1e-5)   # -ln 256; in bfloat16 -5.53125
    assert entropy_of(flat).item() == pytest.approx(5.545177, abs=1e-5)


@pytest.mark.parametrize("shape", [(1, 3), (2, 2), (2, 3, 1), (3,)])
def test_tokens_that_do_not_fit_the_logits_are_refused(shape):
    with pytest.raises(ValueError, match=re.escape(f"logprobs (2, 3), tokens {shape}")):
        at_tokens(torch.zeros(2, 3, 5), torch.zeros(shape).long())


def test_entropy_by_hand():
    # 1/2, 1/4, 1/4: ln 2 / 2 + ln 4 / 2 = 1.0397, whatever is added; four equal: ln 4; certainty: 0
    def entropy(*logits):
        return entropy_of(log_softmax(torch.tensor(logits))).item()
    assert entropy(math.log(2) + 50, 50.0, 50.0) == pytest.approx(1.0397, abs=1e-4)
    assert entropy(0.0, 0.0, 0.0, 0.0) == pytest.approx(1.3863, abs=1e-4)
    assert entropy(100.0, 0.0) == pytest.approx(0, abs=1e-6)


def test_a_temperature_divides_the_logits_before_the_softmax():
    # 9 : 1 at temperature 2 is 3 : 1
    probabilities = log_softmax(torch.tensor([9.0, 1.0]).log(), 2.0).exp()
    assert probabilities.tolist() == pytest.approx([0.75, 0.25])


# The actor-critic

def test_d01_there_is_one_value_per_response_token_and_it_has_seen_the_query(
        policy, query, response):
    changed = query.clone()
    changed[:, -1] = 10
    values, others = policy(query, response)[1], policy(changed, response)[1]
    assert values.shape == response.shape
    assert ((values - others).abs() > 1e-5)[response != PAD].all()


def test_the_value_of_a_state_has_not_seen_the_token_chosen_in_it(policy, query, response):
    changed = response.clone()
    changed[:, 1] = 5
    values, others = policy(query, response)[1], policy(query, changed)[1]
    assert close(values[:2, :2], others[:2, :2]) and not close(values[1, 2:], others[1, 2:])


def test_d02_the_end_token_is_an_action_like_any_other_and_pad_is_none(policy, query, response):
    logprobs, values, spread = policy(query, response)
    real = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]]).bool()   # the end tokens count
    for x, sign in ((logprobs, -1), (spread, 1)):
        assert (x[real] * sign > 0).all() and (x[~real] == 0).all()
    assert (values[real] != 0).all() and (values[~real] == 0).all()


def test_d04_log_probs_are_those_of_the_language_model(policy, query, response):
    expected = policy.lm(query, response).log_softmax(-1)[1, [0, 1, 2, 3], [9, 8, 7, 6]]
    assert close(policy(query, response)[0][1], expected)


def test_d06_temperature_divides_the_logits_of_log_probs_and_entropy(lm, query, response):
    logits = torch.tensor([9.] + [1.] * 10).log()   # at 2: 3 to ten 1s, so 3/13 and 1/13
    lm.logits = lambda states: logits.expand(*states.shape[:-1], -1)
    logprobs, _, spread = ActorCritic(lm, temperature=2.0)(query, response)
    assert torch.allclose(logprobs[0], torch.tensor([-2.5649, -2.5649, -1.4663, 0]), atol=1e-4)
    assert spread[0, 0].item() == pytest.approx(2.3114, abs=1e-4)   # 3/13 * 1.4663 + 10/13 * 2.5649


def test_d41_the_temperature_divides_float32_logits_whatever_the_model_runs_in(lm, query):
    logits = torch.tensor([1.0, 0.0], dtype=torch.bfloat16)
    lm.logits = lambda states: logits.expand(*states.shape[:-1], -1)
    logprobs, _, spread = ActorCritic(lm, temperature=0.7)(query, torch.zeros(3, 1).long())
    # 1 / 0.7 = 1.428571: -ln(1 + e^-1.428571); in bfloat16 1.4296875, which gives -0.214614
    assert logprobs[0].item() == pytest.approx(-0.214830, abs=1e-5)
    # p = 0.806679: -p ln p - (1 - p) ln(1 - p), ln(1 - p) = -0.214830 - 1.428571
    assert spread[0].item() == pytest.approx(0.491003, abs=1e-5)


def test_d06_the_policy_samples_at_its_own_temperature(lm):
    logits = torch.tensor([9., 1.]).log()
    lm.logits = lambda states: logits.expand(*states.shape[:-1], -1)
    generator = torch.Generator().manual_seed(0)
    response = ActorCritic(lm, temperature=2.0).generate(torch.zeros(4000, 1).long(), 1, generator)
    # 3 : 1, so 1000 of 4000; four standard deviations of sqrt(4000 * 3/16) = 27.4
    assert abs((response == 1).sum() - 1000) < 110


@pytest.mark.parametrize("left, right", [(3, 0), (0, 3), (2, 2)])
def test_d09_pad_columns_change_no_log_prob_value_or_entropy(policy, query, response, left, right):
    pads = [torch.full((3, n), PAD) for n in (left, right)]
    padded = policy(torch.cat([pads[0], query], 1), torch.cat([response, pads[1]], 1))
    for plain, wide in zip(policy(query, response), padded):
        assert close(plain, wide[:, :4]) and (wide[:, 4:] == 0).all()


def test_d10_a_prompt_alone_gives_the_same_figures_as_in_a_batch(policy, query, response):
    alone = policy(torch.tensor([[0, 6]]), response[1:2])
    for one, all_ in zip(alone, policy(query, response)):
        assert close(one[0], all_[1])


def test_d20_the_ratio_is_1_on_every_token_before_any_update(policy, query):
    response = policy.generate(query, 8, torch.Generator().manual_seed(0))
    with torch.no_grad():
        old = policy(query, response)[0]
    ratio = (policy(query, response)[0] - old).exp()
    assert (ratio - 1).abs().max() < 1e-6


def test_d37_a_value_head_starts_at_0(lm, query, response):
    assert (ActorCritic(lm)(query, response)[1] == 0).all()


def test_d37_a_separate_critic_starts_as_the_reward_model_s_score_of_every_prefix(
        lm, query, response):
    reward = RewardModel(copy.deepcopy(lm))
    values = ActorCritic(lm, reward)(query, response)[1]
    prefixes = torch.stack([reward(query, response[:, :t]) for t in range(4)], 1)   # (B, R)
    assert close(values, prefixes.masked_fill(response == PAD, 0))


def test_d37_values_teach_the_shared_trunk_and_a_separate_critic_alone(policy, query, response):
    policy(query, response)[1].sum().backward()
    learned = [p.grad is not None and p.grad.any().item() for p in policy.lm.parameters()]
    if policy.critic is None:
        assert any(learned) and policy.value_head.weight.grad.any()
    else:
        assert not any(learned) and policy.critic.head.weight.grad.any()


def test_d38_dropout_is_off_in_a_frozen_copy(query, response):
    lm = build(TransformerConfig(11, 0, width=16, heads=2, layers=1, dropout=0.5)).train()
    policy = ActorCritic(lm, RewardModel(copy.deepcopy(lm)))
    assert not torch.equal(policy(query, response)[0], policy(query, response)[0])
    still = frozen(policy)
    for first, second in zip(still(query, response), still(query, response)):
        assert torch.equal(first, second)


def test_d40_a_frozen_copy_takes_no_gradient_and_leaves_the_original_alone(policy, query, response):
    policy.train()
    still = frozen(policy)
    before = {name: x.clone() for name, x in still.state_dict().items()}
    assert policy.training and all(p.requires_grad for p in policy.parameters())
    assert not still.training and not any(p.requires_grad for p in still.parameters())
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    sum(x.sum() for x in policy(query, response)).backward()
    optimizer.step()
    assert all(torch.equal(x, before[name]) for name, x in still.state_dict().items())
    assert not close(policy(query, response)[0], still(query, response)[0])


def test_the_reference_has_the_policy_s_temperature_and_language_model_and_no_critic(
        lm, query, response):
    critic = RewardModel(copy.deepcopy(lm))
    for policy in (ActorCritic(lm, temperature=0.7), ActorCritic(lm, critic, temperature=0.7)):
        reference = policy.reference()
        assert reference.temperature == 0.7 and reference.critic is None
        for x, its in zip(policy(query, response)[::2], reference(query, response)[::2]):
            assert torch.equal(x, its)   # log-probs and entropy
        assert (reference(query, response)[1] == 0).all()   # a value head that never learned


def test_the_reference_is_frozen_and_the_policy_goes_on_learning(policy, query, response):
    policy.train()
    reference = policy.reference()
    before = [x.clone() for x in reference(query, response)]
    assert not reference.training and not any(p.requires_grad for p in reference.parameters())
    assert policy.training and all(p.requires_grad for p in policy.parameters())
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    sum(x.sum() for x in policy(query, response)).backward()
    optimizer.step()
    assert all(map(torch.equal, reference(query, response), before))
    assert not close(policy(query, response)[0], before[0])


def test_the_reference_is_on_the_device_of_the_policy(lm):
    reference = ActorCritic(lm).to("meta").reference()   # a device that every machine has
    assert {x.device.type for x in reference.state_dict().values()} == {"meta"}


def test_d41_bfloat16_keeps_the_ratio_near_1_before_any_update(lm, query, response):
    policy = ActorCritic(lm)
    exact = policy(query, response)[0]
    lm.bf16 = True
    with torch.no_grad():
        old = policy(query, response)[0]
    padded = torch.cat([torch.full((3, 5), PAD), query], 1)
    new = torch.cat([policy(padded[i:i + 1], response[i:i + 1])[0] for i in range(3)])   # one each
    ratio_off, logprobs_off = (new - old).exp().sub(1).abs().max(), (old - exact).abs().max()
    # Measured on a CPU: the ratio off by 0, the log-probs off those of float32 by 0.003 to 0.004.
    # The largest logits are near 1, where a step of bfloat16 is 2**-8 below, 2**-7 above.
    assert old.dtype == torch.float32 and ratio_off < 0.02, f"off by {ratio_off}"
    assert 1e-5 < logprobs_off < 0.01, f"off by {logprobs_off}"
