"""The toy corpus: its grammar and its rule."""

import pytest

from minippo.corpora.read import read
from minippo.corpora.toy import toy, toy_rating


@pytest.mark.parametrize(
    "text, rating",
    [
        ("the soup was good .", 2.0),
        ("it was not a good soup .", -1.0),  # -0.5 * 2
        ("the rain was hardly terrible !", 2.0),  # -0.5 * -4
        ("the novel was long .", 0.0),
        ("we loved the ugly city .", 0.0),  # 3 - 3
        ("i never liked the bad train .", -2.5),  # -0.5 * 1 - 2: only the next word is negated
        ("the tea was not new , but the pie was nice .", 1.0),  # a negation ends with its clause
        ("we loved the wonderful beach and the sky was superb .", 4.0),  # 3 + 4 + 4, clipped
        ("they hated the awful hotel .", -4.0),  # -3 - 4, clipped
        ("", 0.0),
    ],
)
def test_the_toy_rating_adds_word_values_and_turns_negated_ones_around(text, rating):
    assert toy_rating(text) == rating


def test_equal_seeds_give_equal_toys_and_others_do_not():
    assert toy(50, seed=1) == toy(50, seed=1)
    assert toy(50, seed=1) != toy(50, seed=2)
    assert toy(20, seed=1) == toy(50, seed=1)[:20]
    assert read("toy") == toy()
    # written down once: the corpus must not change between versions of Python
    assert toy(1)[0].text == "after lunch , the beach was bland , but our friends hated the beach ."
    assert toy(1)[0].votes == (-3, -4, -3, -4, -4, -4, -3)


def test_toy_texts_differ_and_are_short_and_lower_case():
    rows = toy()
    assert len(rows) == len({row.text for row in rows}) == len({row.id for row in rows}) == 3000
    for row in rows:
        words = [word for word in row.text.split() if word not in {".", ",", "!"}]
        assert 4 <= len(words) <= 14 and row.text == row.text.lower()
        assert " a a" not in row.text and row.text[-2:] in {" .", " !"}


def test_toy_votes_are_seven_noisy_integers_around_the_rule():
    rows = toy()
    assert {len(row.votes) for row in rows} == {7}
    assert {vote for row in rows for vote in row.votes} == set(range(-4, 5))
    positive, negative = (sum(sign * row.rating > 0 for row in rows) for sign in (1, -1))
    assert 1350 < positive < 1650 and 1350 < negative < 1650
    # sd of a mean of 7 votes: sqrt((1 + 1/12) / 7) = 0.39, so its mean distance is about 0.31
    inner = [row for row in rows if abs(toy_rating(row.text)) <= 1]
    away = sum(abs(row.rating - toy_rating(row.text)) for row in inner) / len(inner)
    assert 0.25 < away < 0.37


def test_the_grammar_has_far_more_sentences_than_the_corpus():
    # short ones ("the soup was good .") come again; of N long ones, two sets of about 1,800 share
    # 1800^2 / N: with N = 100,000 that would be 32
    one, other = ({row.text for row in toy(5000, seed) if len(row.text) > 60} for seed in (1, 2))
    assert len(one) > 1500 and len(other) > 1500 and len(one & other) < 10
