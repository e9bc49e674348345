"""Sampling: from the right distribution, until the end token, by the generator and nothing else."""

import pytest
import torch

from minippo.generation import filtered, generate, sample
from minippo.tokens import PAD

PROBABILITIES = [0.05, 0.5, 0.15, 0.3]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def always(lm, probabilities):
    """The model, made to give every next token the same, known probabilities."""
    logits = torch.tensor(probabilities).log()
    lm.logits = lambda states: logits.expand(*states.shape[:-1], -1)
    return lm


def chi_square(tokens, probabilities):
    expected = torch.tensor(probabilities) * len(tokens)
    return ((torch.bincount(tokens, minlength=len(expected)) - expected).square() / expected).sum()


def kept(probabilities, **filters):
    """Which tokens the filters leave."""
    left = filtered(torch.tensor([probabilities]).log(), **filters)
    return (left > -torch.inf).nonzero()[:, 1].tolist()


def test_d05_sampled_frequencies_are_the_softmax_s(lm):
    query = torch.zeros(4000, 1).long()
    response = generate(always(lm, PROBABILITIES), query, 1, generator=seeded(0))
    assert chi_square(response[:, 0], PROBABILITIES) < 16.27   # 3 degrees of freedom, p = 0.001


def test_d06_temperature_divides_the_logits(lm):
    # odds 9 : 1 at temperature 2 are odds 3 : 1
    query = torch.zeros(4000, 1).long()
    response = generate(always(lm, [0.9, 0.1]), query, 1, temperature=2.0, generator=seeded(0))
    assert chi_square(response[:, 0], [0.75, 0.25]) < 10.83   # 1 degree of freedom, p = 0.001


def test_d07_after_the_end_token_everything_is_pad(lm):
    query = torch.zeros(200, 1).long()
    response = generate(always(lm, [0.3, 0.4, 0.3]), query, 8, generator=seeded(0))
    ended = ((response == 0).cumsum(1) - (response == 0).int()) > 0   # an end token stands before
    assert torch.equal(response == PAD, ended)
    lengths = (response != PAD).sum(1)
    assert lengths.min() == 1 and lengths.max() == 8


def test_d07_a_response_cut_off_by_the_limit_has_neither_end_nor_pad(lm, query):
    response = generate(always(lm, [0.0, 1.0]), query, 5)
    assert response.tolist() == [[1] * 5] * 3


def test_sampling_stops_when_every_response_has_ended(lm, query):
    assert generate(always(lm, [1.0, 0.0]), query, 20).tolist() == [[0]] * 3


def test_d04_the_logits_sampled_from_are_the_teacher_forced_ones(lm, query):
    seen, logits = [], lm.logits
    lm.logits = lambda states: seen.append(logits(states)) or seen[-1]
    response = generate(lm, query, 12, generator=seeded(1))
    lm.logits = logits
    real = (response != PAD).T   # rows that have ended are not computed
    difference = (torch.cat(seen) - lm(query, response).transpose(0, 1)[real]).abs().max()
    assert real.sum() > 12 and difference < 1e-5


def test_a_row_s_draws_do_not_depend_on_when_others_end(lm):
    query, generator = torch.zeros(6, 1).long(), seeded(0)
    response = generate(always(lm, [0.3, 0.4, 0.3]), query, 5, generator=seeded(0))
    for column in response.T:   # below 0.3 token 0, below 0.7 token 1
        draws = torch.rand(6, generator=generator)
        expected = (draws > 0.3).long() + (draws > 0.7).long()
        assert torch.equal(column[column != PAD], expected[column != PAD])
    assert (response == PAD).any() and (response != PAD).all(1).any()


def test_so_many_draws_are_taken_whenever_the_responses_end(lm, query):
    early, late = seeded(3), seeded(3)
    assert generate(always(lm, [1.0, 0.0]), query, 20, generator=early).shape == (3, 1)
    assert generate(always(lm, [0.0, 1.0]), query, 20, generator=late).shape == (3, 20)
    assert torch.rand(1, generator=early) == torch.rand(1, generator=late)


def test_top_k_of_1_is_the_argmax(lm, query):
    response = generate(lm, query, 10, top_k=1)
    real = response != PAD
    assert torch.equal(lm(query, response).argmax(-1)[real], response[real])


def test_d10_a_prompt_alone_gives_the_same_response_as_in_a_batch(lm, query):
    together = generate(lm, query, 8, top_k=1)
    alone = generate(lm, torch.tensor([[0, 6]]), 8, top_k=1)
    assert alone[0].tolist() == together[1, :alone.shape[1]].tolist()
    assert (together[1, alone.shape[1]:] == PAD).all()


def test_the_same_generator_gives_the_same_responses_whatever_the_global_seed(lm, query):
    torch.manual_seed(1)
    first, state = generate(lm, query, 8, generator=seeded(5)), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(first, generate(lm, query, 8, generator=seeded(5)))
    assert not torch.equal(first, generate(lm, query, 8, generator=seeded(6)))
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())   # nor is the global generator moved


def test_top_k_leaves_the_k_likeliest():
    assert kept(PROBABILITIES, top_k=1) == [1]
    assert kept(PROBABILITIES, top_k=2) == [1, 3]
    assert kept(PROBABILITIES, top_k=9) == kept(PROBABILITIES) == [0, 1, 2, 3]


def test_top_p_leaves_the_smallest_set_with_that_mass():
    # 0.5, 0.5 + 0.3 = 0.8, 0.8 + 0.15 = 0.95, 0.95 + 0.05 = 1
    assert kept(PROBABILITIES, top_p=0.01) == kept(PROBABILITIES, top_p=0.45) == [1]
    assert kept(PROBABILITIES, top_p=0.6) == kept(PROBABILITIES, top_p=0.79) == [1, 3]
    assert kept(PROBABILITIES, top_p=0.9) == [1, 2, 3]
    assert kept(PROBABILITIES, top_p=0.99) == [0, 1, 2, 3]


def test_top_p_counts_the_mass_of_what_top_k_left():
    # of 0.5 and 0.3 alone, the first has 0.625 of the mass
    assert kept(PROBABILITIES, top_k=2, top_p=0.6) == [1]


def test_each_row_is_filtered_by_its_own_order():
    logits = torch.tensor([[0.1, 0.2, 0.7], [0.7, 0.2, 0.1]]).log()
    kept = (filtered(logits, top_p=0.5) > -torch.inf).tolist()
    assert kept == [[False, False, True], [True, False, False]]


def test_a_token_of_probability_0_is_never_sampled():
    logits = torch.tensor([-torch.inf, 0, -torch.inf, 0, -torch.inf]).expand(2000, 5)
    assert sample(logits, torch.rand(2000, generator=seeded(0))).unique().tolist() == [1, 3]


@pytest.mark.parametrize("draw, token", [(0.0, 1), (1 - 2 ** -24, 41)])   # torch.rand's ends
def test_the_smallest_and_the_largest_draw_take_the_first_and_the_last_token(draw, token):
    logits = torch.tensor([-torch.inf] + [0.] * 41 + [-torch.inf])   # 41 * 1/41 = 1 - 2**-24 here
    assert sample(logits[None], torch.tensor([draw])).tolist() == [token]


@pytest.mark.parametrize("wrong", [{"temperature": 0}, {"temperature": -1.0}, {"top_k": -1},
                                   {"top_p": 0}, {"top_p": 1.1}])
def test_settings_that_mean_nothing_are_refused(lm, query, wrong):
    [(name, value)] = wrong.items()
    with pytest.raises(ValueError, match=f"{name} {value}.* in \\(0, 1\\]"):   # all three, with their limits
        generate(lm, query, 2, **wrong)


def test_more_tokens_than_positions_are_refused(lm, query):
    with pytest.raises(ValueError, match="do not fit into the context of 32"):
        generate(always(lm, [0.0, 1.0]), query, 40)
