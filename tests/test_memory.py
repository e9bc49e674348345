"""Episodes keep their numbers through storing, padding, shuffling and trimming."""

from dataclasses import fields

import pytest
import torch

from minippo.memory import PPOMemory, Rollout, in_microbatches, microbatches
from minippo.tokens import PAD, pad_left, pad_right


def rollout(ids, prompts, lengths):
    """Episodes named by their token: how many of it query and response hold."""
    response = pad_right([[i] * n for i, n in zip(ids, lengths)])
    mask = response != PAD
    number = (torch.tensor(ids)[:, None] + torch.arange(1, response.shape[1] + 1) / 10) * mask
    numbers = [k * number for k in range(1, 7)]   # no two fields can be confused
    return Rollout(pad_left([[i] * n for i, n in zip(ids, prompts)]), response, mask, *numbers)


def ids(episodes):
    return episodes.response[:, 0].tolist()


def same(one, other):
    return all(torch.equal(getattr(one, field.name), getattr(other, field.name))
               for field in fields(Rollout))


@pytest.fixture
def memory():
    """Ten episodes in rollouts of different widths; number i has 1 + i % 3 and 1 + i % 4 tokens."""
    memory = PPOMemory()
    for some in (range(1, 4), range(4, 11)):
        memory.store(rollout(list(some), [1 + i % 3 for i in some], [1 + i % 4 for i in some]))
    return memory


def test_rollouts_of_different_widths_become_one_padded_on_their_own_sides():
    memory = PPOMemory()
    memory.store(rollout([1], [1], [3]))
    memory.store(rollout([2, 3], [2, 3], [2, 1]))
    assert len(memory) == 3
    assert memory.all().query.tolist() == [[PAD, PAD, 1], [PAD, 2, 2], [3, 3, 3]]
    assert memory.all().response.tolist() == [[1, 1, 1], [2, 2, PAD], [3, PAD, PAD]]
    assert memory.all().mask.tolist() == [
        [True, True, True], [True, True, False], [True, False, False]]
    returns = 6 * torch.tensor([[1.1, 1.2, 1.3], [2.1, 2.2, 0.0], [3.1, 0.0, 0.0]])
    assert torch.allclose(memory.all().returns, returns)


def test_indexing_drops_the_columns_in_which_every_chosen_episode_is_padded():
    episodes = rollout([1, 2, 3], [1, 2, 4], [3, 2, 5])
    part = episodes[torch.tensor([1, 0])]
    assert part.query.tolist() == [[2, 2], [PAD, 1]]
    assert part.response.tolist() == [[2, 2, PAD], [1, 1, 1]]
    assert part.values.shape == part.mask.shape == (2, 3)
    assert same(episodes[:1], rollout([1], [1], [3])) and len(episodes[:1]) == 1
    assert same(episodes[:], episodes)


def test_a_rollout_says_what_was_scored_beside_what_was_paid():
    def rows(one, other):
        return torch.tensor([one, [other, 0.0]])
    response = pad_right([[5, 0], [6]])   # ended, cut off
    episodes = Rollout(
        torch.zeros(2, 1).long(), response, response != PAD, logprobs=rows([-1.0, -2.0], -3.0),
        reference_logprobs=rows([-1.5, -2.0], -4.0), values=rows([1.0, 2.0], 3.0),
        rewards=rows([0.5, 1.0], -2.0), advantages=rows([0.0, 0.0], 0.0),
        returns=rows([2.0, 2.0], 5.0))
    stats = episodes.describe(
        scores=torch.tensor([2.0, 4.0]), paid=torch.tensor([2.0, -1.0]),
        entropy=rows([1.0, 0.5], 2.0), ended=torch.tensor([True, False]))
    assert stats == pytest.approx({
        "objective/scores": 3.0, "objective/scores_std": 1.0,
        "objective/paid": 0.5,             # (2 - 1) / 2
        "objective/kl": 0.75,              # (0.5 + 1) / 2
        "objective/entropy": 1.75,         # (1.5 + 2) / 2
        "objective/rlhf_reward": -0.25,    # (1.5 - 2) / 2
        "ppo/returns/mean": 3.0, "ppo/val/mean": 2.0,   # 9 / 3, 6 / 3: means over tokens
        "ppo/val/var_explained": 2 / 3,    # errors 1, 0, 2: variance 2/3; returns 2, 2, 5: 2
        "tokens/responses_len_mean": 1.5, "tokens/ended": 0.5})


def test_without_a_size_a_microbatch_has_some_512_tokens():
    mask = torch.ones(10, 100, dtype=torch.bool)
    assert [len(rows) for rows in microbatches(mask, 0)] == [5, 5]          # 1,000 tokens
    mask[:, 50:] = False
    assert [len(rows) for rows in microbatches(mask, 0)] == [10]            # 500
    assert [len(rows) for rows in microbatches(torch.ones(2, 9999) > 0, 0)] == [1, 1]
    assert [len(rows) for rows in microbatches(torch.ones(3, 2) < 0, 0)] == [3]


def test_a_few_long_responses_among_short_ones_have_microbatches_of_their_own():
    mask = torch.arange(1000) < torch.tensor([1000, 5, 600] + [5] * 101)[:, None]
    # 102 rows of 5 tokens are 510; the next ends at 1,110, the last at 2,110
    assert [rows.tolist() for rows in microbatches(mask, 0)] == [[1, *range(3, 104)], [2], [0]]


def test_microbatches_hold_similar_lengths_and_their_results_come_back_in_order():
    query, response = torch.tensor([[1], [2], [3]]), pad_right([[7, 7, 7], [8], [9, 9]], length=4)
    shapes = []

    def model(query, response):
        shapes.append(tuple(response.shape))
        return 2 * response.clamp(min=0), query * (response != PAD)
    doubled, rows = in_microbatches(model, query, response, 2)
    assert shapes == [(2, 2), (1, 3)]   # the two shortest, and no column of PAD alone
    assert doubled.tolist() == [[14, 14, 14, 0], [16, 0, 0, 0], [18, 18, 0, 0]]
    assert rows.tolist() == [[1, 1, 1, 0], [2, 0, 0, 0], [3, 3, 0, 0]]


def test_d32_every_episode_comes_once_an_epoch_with_all_its_own_numbers(memory):
    parts = list(memory.minibatches(4))
    assert [len(part) for part in parts] == [4, 4, 2]
    assert sorted(i for part in parts for i in ids(part)) == list(range(1, 11))
    for part in parts:
        for row, i in enumerate(ids(part)):
            assert same(part[row:row + 1], rollout([i], [1 + i % 3], [1 + i % 4]))


def test_d32_each_epoch_has_a_fresh_permutation(memory):
    generator = torch.Generator().manual_seed(0)
    orders = [[i for part in memory.minibatches(4, generator) for i in ids(part)] for _ in range(3)]
    assert len(set(map(tuple, orders))) == 3   # of ten: the same once in 10^6
    assert list(range(1, 11)) not in orders


def test_d42_equal_generators_give_equal_minibatches(memory):
    one, other = (list(memory.minibatches(3, torch.Generator().manual_seed(7))) for _ in range(2))
    assert all(map(same, one, other))


def test_a_minibatch_larger_than_the_memory_is_all_of_it(memory):
    assert [len(part) for part in memory.minibatches(64)] == [10]


def test_an_empty_memory_or_minibatch_is_an_error(memory):
    with pytest.raises(ValueError, match="0 episodes"):
        next(memory.minibatches(0))
    memory.clear()
    assert len(memory) == 0
    with pytest.raises(ValueError, match="memory is empty"):
        next(memory.minibatches(4))
    with pytest.raises(ValueError, match="memory is empty"):
        memory.all()
