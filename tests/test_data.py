"""From rows to tensors: parts of the data, queries, and who is compared with whom."""

from collections import Counter

import pytest
import torch

from minippo.corpora.rows import Row, fingerprint
from minippo.data import SHARES, Comparisons, DataError, Prompts, batches, encode, random_cut, split, tensors
from minippo.tokenizer import Tokenizer
from minippo.tokens import PAD

TOKENIZER = Tokenizer.train(["no merges: each byte is a token"], 257)
END = TOKENIZER.end


def rated(*votes):
    """A row for each tuple of votes, with texts of 1, 2, 3, ... letters."""
    return [Row(str(i), "abcdefghijkl"[:i + 1], tuple(map(float, some)))
            for i, some in enumerate(votes)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def text(tokens):
    return TOKENIZER.decode(tokens)


# ---------------------------------------------------------------- splits

ROWS = [Row(fingerprint(str(i)), str(i)) for i in range(6000)]


def test_rows_of_one_group_are_in_one_part_whatever_their_ids():
    chats = [Row(f"{group}-{i}", "", group=f"chat {group}") for i in range(20) for group in "abc"]
    parts = split(ROWS + chats)
    for group in "abc":
        inside = [sum(row.group == f"chat {group}" for row in part) for part in parts.values()]
        assert sorted(inside) == [0, 0, 0, 20]


def test_parts_are_disjoint_complete_and_near_their_shares():
    parts = split(ROWS)
    assert list(parts) == list(SHARES) and sum(SHARES.values()) == pytest.approx(1)
    found = [row.id for part in parts.values() for row in part]
    assert sorted(found) == sorted(row.id for row in ROWS)
    for name, part in parts.items():   # a share's deviation: at most 0.5 / sqrt(6000) = 0.0065
        assert len(part) / 6000 == pytest.approx(SHARES[name], abs=0.02)


def test_a_row_s_part_depends_on_its_id_alone():
    places = {row.id: name for name, part in split(ROWS).items() for row in part}
    others = [Row(row.id, "another text", (1.0,)) for row in reversed(ROWS[:2000])]
    assert all(places[row.id] == name for name, part in split(others).items() for row in part)


def test_too_few_rows_for_all_parts_is_a_user_s_error():
    with pytest.raises(DataError, match="3 usable rows, too few"):
        split(ROWS[:3])


# ---------------------------------------------------------------- examples and batches

def test_an_example_is_end_and_prompt_then_text_and_end():
    (query, response), = encode([Row("1", " world", prompt="hello")], TOKENIZER, 32)
    assert query[0] == END and text(query) == "hello" and len(query) == 6
    assert response[-1] == END and text(response) == " world" and len(response) == 7
    row = Row("1", "good", prompt="so", rejected="bad")
    (_, response), = encode([row], TOKENIZER, 32, rejected=True)
    assert text(response) == "bad"


def test_what_does_not_fit_is_cut_off_at_the_end_with_its_end_token():
    (query, response), = encode([Row("1", "abcdef", prompt="xy")], TOKENIZER, 8)
    assert len(query) == 3 and text(response) == "abcde" and END not in response
    with pytest.raises(DataError, match="the prompt 'aaaaaaa' has 8 tokens"):
        encode([Row("1", "abcdef", prompt="a" * 7)], TOKENIZER, 8)


def test_a_cut_moves_tokens_from_response_to_query_and_changes_no_text():
    rows = [Row("1", "abcdef"), Row("2", "xy", prompt="uvw"), Row("3", "")]
    examples = encode(rows, TOKENIZER, 32)
    for cut in range(9):
        query, response = tensors(examples, cut)
        assert (query[:, -1] != PAD).all() and (response[:, 0] != PAD).all()   # left, right
        for (given, rest), whole in zip(examples, torch.cat([query, response], dim=1).tolist()):
            assert [token for token in whole if token != PAD] == given + rest
        # END and `cut` letters, but one response token at least stays: the end; after a prompt all of them
        assert (query != PAD).sum(1).tolist() == [1 + min(cut, 6), 4, 1]


def test_query_and_response_together_have_a_multiple_of_8_columns():
    for letters, width in ((5, 8), (6, 8), (7, 16), (14, 16), (15, 24)):   # and two ends
        parts = tensors(encode([Row("1", "x" * letters), Row("2", "y")], TOKENIZER, 32))
        assert sum(part.shape[1] for part in parts) == width


def test_half_of_the_cuts_are_none_and_the_others_even_from_1_to_the_longest():
    generator = seeded()
    counts = Counter(random_cut(4, generator) for _ in range(4000))
    assert set(counts) == {0, 1, 2, 3, 4}
    assert abs(counts[0] - 2000) < 130   # 4 deviations, here and below
    assert all(abs(counts[n] - 500) < 90 for n in range(1, 5))


def test_a_pass_of_batches_has_every_example_once_beside_others_of_its_length():
    examples = [([END], [i] * i) for i in range(1, 62)]
    groups = batches(examples, 4, 1, seeded())
    assert sorted(map(len, groups)) == [1] + [4] * 15
    assert sorted(i for group in groups for i in group) == list(range(61))
    for group in groups:   # one pool of 16 batches, sorted by length (i + 1): neighbours
        assert max(group) - min(group) == len(group) - 1
    assert groups != sorted(groups) and groups != batches(examples, 4, 1, seeded(1))


def test_every_pass_of_batches_is_in_another_order():
    examples = [([END], [i]) for i in range(10)]
    groups = batches(examples, 5, 2, seeded())
    assert sorted(groups[0] + groups[1]) == sorted(groups[2] + groups[3]) == list(range(10))
    assert groups[:2] != groups[2:]


# ---------------------------------------------------------------- prompts

def test_prompts_are_the_end_token_and_beginnings_of_every_length_asked_for():
    prompts = Prompts([Row("1", "abcdefgh"), Row("2", "xyz")], TOKENIZER, 2, 5, 32)
    query = prompts.sample(400, seeded())
    found = {text(row) for row in query}
    assert found == {"ab", "abc", "abcd", "abcde", "xy", "xyz"}   # 4 and 5 of "xyz" are all of it
    assert all(next(token for token in row if token != PAD) == END for row in query.tolist())
    assert (query[:, -1] != PAD).all() and (query[:, -1] != END).all()


def test_a_prompt_of_its_own_is_used_whole():
    row = Row("1", "answer", prompt="a longer question")
    query = Prompts([row], TOKENIZER, 1, 2, 32).sample(3, seeded())
    assert {text(row) for row in query} == {"a longer question"} and query.shape == (3, 18)


# ---------------------------------------------------------------- comparisons

def test_all_untied_pairs_of_a_group_count_and_the_higher_vote_is_chosen():
    comparisons = Comparisons(rated([1], [1], [2], [3]), TOKENIZER, 32)
    (texts, chosen, rejected), = comparisons.groups(8, 1, seeded())
    pairs = set(zip(texts[chosen].tolist(), texts[rejected].tolist()))
    assert pairs == {(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)} and len(chosen) == 5   # 0, 1: a tie


def test_d15_every_text_is_in_one_group_per_pass():
    comparisons = Comparisons(rated(*([i] for i in range(12))), TOKENIZER, 32)
    groups = comparisons.groups(5, 2, seeded())
    assert [len(texts) for texts, _, _ in groups] == [5, 5, 2] * 2
    for start in (0, 3):
        one_pass = [i for texts, _, _ in groups[start:start + 3] for i in texts.tolist()]
        assert sorted(one_pass) == list(range(12))


def test_one_rater_at_a_time_votes_so_that_pairs_disagree_as_people_do():
    comparisons = Comparisons(rated([0, 4, 4], [3]), TOKENIZER, 32)
    groups = comparisons.groups(2, 3000, seeded())
    share = sum(int(texts[chosen]) == 0 for texts, chosen, _ in groups) / 3000
    assert share == pytest.approx(2 / 3, abs=0.04)
    assert [row.rating for row in comparisons.rated] == pytest.approx([8 / 3, 3])


def test_with_more_votes_the_same_texts_are_compared_again_by_other_raters():
    comparisons = Comparisons(rated([0, 4, 4], [3]), TOKENIZER, 32)
    (texts, chosen, rejected), = comparisons.groups(2, 1, seeded(), votes=3000)
    assert sorted(texts.tolist()) == [0, 1] and len(chosen) == len(rejected) == 3000
    assert (chosen != rejected).all()
    assert (texts[chosen] == 0).float().mean().item() == pytest.approx(2 / 3, abs=0.04)


def test_given_pairs_that_are_equal_within_the_context_are_left_out():
    rows = [Row("1", "aaaaaab", rejected="aaaaaac"), Row("2", "ab", rejected="ac")]
    assert Comparisons(rows, TOKENIZER, 7).texts == ["ab", "ac"]   # END and six letters fit
    with pytest.raises(DataError, match="chosen and rejected that differ in what fits"):
        Comparisons(rows[:1], TOKENIZER, 7)


def test_given_pairs_are_kept_as_people_chose():
    rows = [Row(str(i), f"good {i}", prompt=f"{i}:", rejected=f"bad {i}") for i in range(7)]
    comparisons = Comparisons(rows, TOKENIZER, 32)
    found = [(comparisons.texts[texts[a]], comparisons.texts[texts[b]])
             for texts, chosen, rejected in comparisons.groups(4, 1, seeded())
             for a, b in zip(chosen, rejected)]
    assert sorted(found) == [(f"good {i}", f"bad {i}") for i in range(7)]
    for a, b in zip(range(7), range(7, 14)):
        (query, good), (same_query, bad) = comparisons.examples[a], comparisons.examples[b]
        assert (text(query), text(good)) == (f"{a}:", f"good {a}")
        assert (text(same_query), text(bad)) == (f"{a}:", f"bad {a}")
    with pytest.raises(DataError, match="use the pairwise loss"):
        comparisons.targets()


@pytest.mark.parametrize("room", [32, 7])   # in 7 tokens the pair is none
def test_rated_texts_and_given_pairs_at_once_are_refused_and_neither_is_dropped(room):
    pair = Row("p", "aaaaaab", rejected="aaaaaac")
    for rows in ([*rated([1], [2]), pair], [pair, *rated([1], [2])]):
        with pytest.raises(DataError, match="rated texts and pairs of chosen and rejected .*give one kind"):
            Comparisons(rows, TOKENIZER, room)


def test_a_pair_s_own_votes_say_nothing_about_who_is_preferred():
    pairs = [Row("1", "good", (-4.0,), rejected="bad"), Row("2", "yes", rejected="no")]
    comparisons = Comparisons(pairs, TOKENIZER, 32)
    assert comparisons.given == pairs and comparisons.rated == []
    assert comparisons.texts == ["good", "yes", "bad", "no"]
    equal = [Row("1", "aaaaaab", (1.0,), rejected="aaaaaac"), Row("2", "aaaaaax", (2.0,), rejected="aaaaaay")]
    with pytest.raises(DataError, match="no preferences"):
        Comparisons(equal, TOKENIZER, 7)


def test_no_preferences_are_a_user_s_error():
    with pytest.raises(DataError, match="no preferences"):
        Comparisons([Row("1", "a"), Row("2", "b")], TOKENIZER, 32)
