"""The reward model: where it reads, how it starts, what it learns from, and its units."""

import math

import pytest
import torch

from minippo.policy import frozen
from minippo.reward import BagOfTokens, RewardModel, at_end, first, preference_loss, regression_loss
from minippo.tokens import PAD
from minippo.transformer import TransformerConfig, build


@pytest.fixture
def reward(lm):
    reward = RewardModel(lm).eval()
    torch.nn.init.normal_(reward.words.single.weight)   # as if it had learned
    torch.nn.init.normal_(reward.words.pairs.weight)
    return reward


def close(a, b):
    return torch.allclose(a, b, rtol=0, atol=1e-5)


def affine(reward):
    return reward.gain.item(), reward.shift.item()


# The score

def test_d01_the_score_has_seen_query_and_response(reward, query, response):
    other_query, other_response = query.clone(), response.clone()
    other_query[:, -1], other_response[:, 0] = 10, 10
    scores = reward(query, response)
    assert scores.shape == (3,)
    assert ((scores - reward(other_query, response)).abs() > 1e-5).all()
    assert ((scores - reward(query, other_response)).abs() > 1e-5).all()


def test_d12_the_score_is_read_where_the_response_ends(reward, query, response):
    scores, prefixes = reward(query, response), reward.prefix_scores(query, response)
    assert prefixes.shape == (3, 5)
    assert close(scores, torch.stack([prefixes[0, 3], prefixes[1, 4], prefixes[2, 1]]))
    assert close(scores[2], reward(query[2:], torch.tensor([[0]]))[0])   # alone, nothing behind it


def test_an_empty_response_is_scored_where_the_query_ends(reward, query):
    empty = torch.full((3, 2), PAD)
    assert close(reward(query, empty), reward.prefix_scores(query, empty[:, :0])[:, 0])


def test_column_t_of_the_prefix_scores_is_the_score_of_t_tokens(reward, query, response):
    prefixes = reward.prefix_scores(query, response)
    assert close(prefixes[1, 2], reward(query, response[:, :2])[1])


@pytest.mark.parametrize("left, right", [(3, 0), (0, 3), (2, 2)])
def test_d09_pad_columns_change_no_score(reward, query, response, left, right):
    pads = [torch.full((3, n), PAD) for n in (left, right)]
    padded = reward(torch.cat([pads[0], query], 1), torch.cat([response, pads[1]], 1))
    assert close(reward(query, response), padded)


def test_d10_a_prompt_alone_gives_the_same_score_as_in_a_batch(reward, query, response):
    assert close(reward(torch.tensor([[0, 6]]), response[1:2])[0], reward(query, response)[1])


def test_d38_dropout_is_off_in_a_frozen_copy(query, response):
    config = TransformerConfig(11, 0, width=16, heads=2, layers=1, dropout=0.5)
    reward = RewardModel(build(config)).train()
    assert not torch.equal(reward(query, response), reward(query, response))
    still = frozen(reward)
    assert torch.equal(still(query, response), still(query, response))


# Its start

def test_d11_the_head_starts_at_one_over_the_root_of_d_plus_1():
    torch.manual_seed(0)
    lm = build(TransformerConfig(2, 0, width=3, heads=1, layers=0))
    weights = torch.cat([RewardModel(lm).head.weight for _ in range(2000)])
    assert weights.std().item() == pytest.approx(0.5, rel=0.03)   # 1/sqrt(4); 1/sqrt(3) is 0.577
    wide = RewardModel(build(TransformerConfig(2, 0, width=768, heads=1, layers=0))).head
    assert wide.weight.std().item() == pytest.approx(0.03606, rel=0.1) and wide.bias.item() == 0


def test_the_weights_of_tokens_and_pairs_start_at_0(lm):
    words = RewardModel(lm).words
    assert not words.single.weight.any() and not words.pairs.weight.any()
    assert words.single.weight.requires_grad and words.pairs.weight.requires_grad


# Two opinions

def test_the_tokens_opinion_by_hand(lm):
    reward = RewardModel(lm)
    reward.words.single.weight.data[:, 0] = torch.arange(11.)   # a token weighs its number
    query, response = torch.tensor([[PAD, 0, 3], [0, 2, 4]]), torch.tensor([[5, 0, PAD], [6, 7, 9]])
    said = reward.opinions(lm.states(query, response), query, response)[..., 1]
    # sums 3, 8, 8 of 2, 3, 4 tokens, and 6, 12, 19, 28 of 3, 4, 5, 6; each over the root of the number
    expected = [[2.1213, 4.6188, 4.0, 4.0], [3.4641, 6.0, 8.4971, 11.4310]]
    assert torch.allclose(said, torch.tensor(expected), atol=1e-4)


def test_the_pairs_opinion_by_hand():
    words = BagOfTokens(11)
    assert words.pairs.weight.shape == (64 * 11, 1)
    # the place of "a, then b": (2,654,945,859 a + b) mod 704, where the large number is 643 mod 704
    # (3, 5): 1,934 - 2 x 704; (5, 3): 3,218 - 4 x 704; nothing, then 3: -1 in front, 3 - 643 + 704
    words.pairs.weight.data[[526, 402, 64], 0] = torch.tensor([1., 10, 100])
    said = words(torch.tensor([[PAD, 3, 5], [3, 5, 3], [5, 3, 0], [3, 3, 5], [3, 5, PAD]]))
    # sums 0, 100, 101; 100, 101, 111; 0, 10, 10; 100, 100, 101; 100, 101, 101: each over the root of the
    # number of tokens so far
    expected = [[0, 100, 71.4178], [100, 71.4178, 64.0859], [0, 7.0711, 5.7735],
                [100, 70.7107, 58.3124], [100, 71.4178, 71.4178]]
    assert torch.allclose(said, torch.tensor(expected), atol=1e-3)


def test_tokens_and_pairs_count_once_and_pads_never():
    words = BagOfTokens(11)
    words.single.weight.data[:, 0] = torch.arange(11.)
    words.pairs.weight.data[526, 0] = 100.   # (3, 5)
    said = words(torch.tensor([[3, 5, 3, 5], [PAD, 5, 5, PAD]]))
    # sums 3, 108, 108, 108 of 1, 2, 3, 4 tokens; 0, 5, 5, 5 of 0, 1, 2, 2
    expected = [[3, 76.3675, 62.3538, 54], [0, 5, 3.5355, 3.5355]]
    assert torch.allclose(said, torch.tensor(expected), atol=1e-3)


def test_a_pair_is_not_lost_to_pads_whose_place_it_shares():
    words = BagOfTokens(31)   # 1,984 places, the large number is 707: (13, 21) and (-1, -1) are both 1,276
    words.pairs.weight.data[1276, 0] = 2.
    said = words(torch.tensor([[PAD, PAD, 13, 21, PAD]]))
    assert said[0].tolist() == pytest.approx([0, 0, 0, 2**0.5, 2**0.5])


@pytest.mark.parametrize("size", [625, 1250, 5000, 12500, 16384, 50000])
def test_two_pairs_seldom_share_a_place_whatever_the_size_of_the_vocabulary(size):
    words = BagOfTokens(size)   # of 5,000 pairs in at least 40,000 places some 4,700 have one of their own
    words.pairs.weight.data[:, 0] = torch.arange(64. * size)
    pairs = torch.randint(size, (5000, 2), generator=torch.Generator().manual_seed(0)).unique(dim=0)
    before, after = words(pairs).double().T
    places = after * 2 ** 0.5 - before
    assert len(places.round().unique()) > 0.9 * len(pairs)


def test_where_a_number_stands_for_the_first_time():
    assert first(torch.tensor([[PAD, 3, 5, 3, PAD, 5], [0, 0, 1, PAD, 2, 1]])).int().tolist() == [
        [0, 1, 1, 0, 0, 0], [1, 0, 1, 0, 1, 0]]


def test_tokens_that_count_as_the_same_have_one_weight_and_make_the_same_pairs():
    words = BagOfTokens(4, spaced=[0, 2, 2, 3])   # token 1 counts as token 2
    words.single.weight.data[:, 0] = torch.tensor([1., 20, 300, 4000])
    words.pairs.weight.data.normal_()
    assert torch.equal(words(torch.tensor([[0, 1, 3, 1]])), words(torch.tensor([[0, 2, 3, 2]])))
    words.pairs.weight.data.zero_()
    assert words(torch.tensor([[1]])).item() == 300


def test_the_order_of_neighbours_counts_and_that_of_others_does_not():
    words = BagOfTokens(11)
    words.pairs.weight.data.normal_()
    ab, ba = words(torch.tensor([[3, 5], [5, 3]]))[:, -1]
    assert not close(ab, ba)
    one, other = words(torch.tensor([[0, 3, 5, 0, 7, 9, 0], [0, 7, 9, 0, 3, 5, 0]]))[:, -1]
    assert close(one, other)   # the same tokens, the same pairs


def test_the_heads_opinion_is_what_it_reads_in_the_states(reward, query, response):
    states = reward.lm.states(query, response)
    reward.words.single.weight.data.fill_(9)
    assert close(reward.opinions(states, query, response)[..., 0], reward.head(states)[..., 0])


def test_the_score_is_the_mean_of_both_opinions(reward, query, response):
    opinions = reward.opinions(reward.lm.states(query, response), query, response)
    assert close(reward.prefix_scores(query, response), (opinions[..., 0] + opinions[..., 1]) / 2)


def test_what_stands_where_a_response_ends():
    columns = torch.tensor([[[1., 2.], [3., 4.], [5., 6.]], [[7., 8.], [9., 0.], [1., 1.]]])   # (2, R + 1, 2)
    assert at_end(columns, torch.tensor([[4, PAD], [4, 0]])).tolist() == [[3, 4], [1, 1]]


# The losses

def test_d13_equal_scores_cost_ln_2():
    scores = torch.tensor([-3., 0., 8.])
    assert preference_loss(scores, scores).item() == pytest.approx(0.693147, abs=1e-5)


def test_d13_the_pairwise_loss_by_hand():
    # odds e^1: ln(1 + 1/e) = 0.3133 where the chosen leads by 1, ln(1 + e) = 1.3133 where it trails
    one, zero = torch.tensor([1.]), torch.tensor([0.])
    assert preference_loss(one, zero).item() == pytest.approx(0.3133, abs=1e-4)
    assert preference_loss(zero, one).item() == pytest.approx(1.3133, abs=1e-4)
    both = preference_loss(torch.tensor([1., 0.]), torch.tensor([0., 1.]))
    assert both.item() == pytest.approx(0.8133, abs=1e-4)   # the mean of the two


def test_d13_only_differences_of_scores_count():
    chosen, rejected = torch.tensor([1., 0.5]), torch.tensor([0., 2.])
    assert close(preference_loss(chosen + 7, rejected + 7), preference_loss(chosen, rejected))


def test_d13_the_gradient_raises_the_chosen_and_never_overflows():
    chosen, rejected = torch.zeros(1, requires_grad=True), torch.tensor([500.])
    loss = preference_loss(chosen, rejected)
    loss.backward()
    assert loss.item() == 500 and chosen.grad.item() == -1   # -sigmoid(500)


def test_d14_the_regression_loss_is_the_mean_square():
    # ((1 - 0)^2 + (-2 - 1)^2) / 2 = 5
    assert regression_loss(torch.tensor([1., -2.]), torch.tensor([0., 1.])).item() == 5


@pytest.mark.parametrize("loss", [preference_loss, regression_loss])
def test_scores_of_different_shapes_are_refused(loss):
    with pytest.raises(ValueError, match=r"\(3,\).*\(3, 1\)"):
        loss(torch.zeros(3), torch.zeros(3, 1))


# Its units

def test_d16_normalizing_gives_mean_0_and_standard_deviation_1(reward, query, response):
    reward.normalize(reward(query, response))
    scores = reward(query, response)
    mean, std = scores.mean().item(), scores.std(correction=0).item()
    assert (mean, std) == (pytest.approx(0, abs=1e-5), pytest.approx(1, abs=1e-5))


def test_d16_gain_and_shift_by_hand(reward):
    reward.normalize(torch.tensor([1., 3.]))   # mean 2, deviation 1: 1 -> -1, 3 -> 1
    assert affine(reward) == (1, -2)
    reward.normalize(torch.tensor([2., 6.]))   # mean 4, deviation 2: (x - 2 - 4) / 2
    assert affine(reward) == (0.5, -3)


def test_d16_normalizing_twice_is_normalizing_once(reward, query, response):
    reward.normalize(reward(query, response))
    once = affine(reward)
    reward.normalize(reward(query, response))
    assert affine(reward) == pytest.approx(once, abs=1e-5)


def test_d16_normalizing_keeps_the_order_and_scales_every_prefix(reward, query, response):
    before = reward.prefix_scores(query, response)
    reward.normalize(torch.tensor([10., 14.]))   # mean 12, deviation 2
    assert close(reward.prefix_scores(query, response), before / 2 - 6)


@pytest.mark.parametrize("scores", [[1.], [], [.1] * 300, [1., math.nan], [1., math.inf]])
# of equal scores, too, the deviation is not 0 in float32 but rounding
def test_scores_that_cannot_be_normalized_are_refused(reward, scores):
    with pytest.raises(ValueError, match="all equal or not finite"):
        reward.normalize(torch.tensor(scores))
    assert affine(reward) == (1, 0)


def test_gain_and_shift_are_saved_and_not_trained(reward):
    assert {"gain", "shift"} <= reward.state_dict().keys()
    assert not {"gain", "shift"} & dict(reward.named_parameters()).keys()
