"""Figures of a reward model on hand-made margins, where they can be worked out."""

import json
import math
from types import SimpleNamespace

import pytest
import torch

from minippo.corpora.rows import Row
from minippo.data import Comparisons
from minippo.tokenizer import Tokenizer
from minippo.tools.shared.calibration import (
    accuracy,
    everyone_compared,
    expected_calibration_error,
    fresh_pairs,
    lines,
    measure,
    others_margin,
    rater_agreement,
    reliability,
    report,
)

TOKENIZER = Tokenizer.train(["each byte is a token"], 257)
LN3, LN9 = math.log(3), math.log(9)   # sigmoid of these: 0.75 and 0.9


def rows(texts_and_votes):
    return [Row(text, text, tuple(map(float, votes))) for text, votes in texts_and_votes.items()]


class Letters:
    """A reward model: so much for each letter of the response."""
    gain = torch.ones(())

    def __init__(self, **worth):
        self.worth = {TOKENIZER.encode(letter)[0]: x for letter, x in worth.items()}

    def __call__(self, query, response):
        return torch.tensor([sum(self.worth.get(token, 0.0) for token in row)
                             for row in response.tolist()])


def given(reward, held_out):
    """What a reward model on rows is measured with; the baseline learns that "good" beats "bad"."""
    texts = rows({"good a": [2], "good b": [2], "bad a": [1], "bad b": [1]})
    training = Comparisons(texts, TOKENIZER, 32)
    generator = torch.Generator().manual_seed(0)
    groups = training.groups(4, 1, generator)
    return reward, training, groups, Comparisons(held_out, TOKENIZER, 32), generator


def figures(reward, held_out, count=4000):
    return measure(*given(reward, held_out), count)


def test_d17_accuracy_is_the_share_of_right_signs_and_no_opinion_counts_half():
    assert accuracy(torch.tensor([2.0, 0.1, -1.0, 0.0])) == 0.625   # (1 + 1 + 0 + 0.5) / 4


@pytest.mark.parametrize("margins, error", [
    ([LN3, LN3, LN3, -LN3], 0.0),            # sure 0.75, right 3 times of 4
    ([LN3, LN3, LN3, LN3], 0.25),            # |0.75 - 1|
    ([-LN3, -LN3, -LN3, -LN3], 0.75),        # |0.75 - 0|: as sure, and always wrong
    ([LN3, LN3, LN9, -LN9], 0.325),          # (|0.75 - 1| + |0.9 - 0.5|) / 2: two bins
    ([LN3, LN9, LN9, LN9], 0.1375),          # 1/4 * 0.25 + 3/4 * 0.1: bins weigh by size
    ([0.08, -0.3], 0.527227),                # (|0.519989 - 1| + |0.574443 - 0|) / 2: 0.05 wide
    ([50.0, 60.0], 0.0),                     # sure 1, right
])
def test_d17_calibration_error_by_hand(margins, error):
    assert expected_calibration_error(torch.tensor(margins)) == pytest.approx(error, abs=1e-6)


def test_d17_margins_of_one_bin_are_averaged_before_they_are_compared():
    # sigmoid(0.10) = 0.52498 and sigmoid(0.15) = 0.53743, both from 0.50 to 0.55: |0.531205 - 0.5|
    error = expected_calibration_error(torch.tensor([0.10, -0.15]))
    assert error == pytest.approx(0.031205, abs=1e-6)


def test_d17_the_bins_of_the_calibration_say_how_sure_how_often_right_and_how_many():
    # sigmoid of 0.2, 0 and 0.1: 0.549834, 0.5, 0.524979, all in the first bin; (1 + 1/2 + 0) / 3 right
    found = reliability(torch.tensor([LN9, 0.2, LN9, 0.0, -0.1]))
    assert found == [pytest.approx([0.524938, 0.5, 0.6]), pytest.approx([0.9, 1.0, 0.4])]


def test_d17_accuracy_by_margin_and_its_shares():
    # x loses to y by 0.25 though people prefer x; z beats both by 3 and more, as people say
    found = figures(Letters(y=0.25, z=3.25), rows({"x": [2], "y": [1], "z": [3]}))
    third, two_thirds = (pytest.approx(n / 3, abs=0.03) for n in (1, 2))
    assert found["by_margin"] == [(0.0, 0.0, third), (2.0, 1.0, two_thirds)]   # no empty bins
    assert found["accuracy"] == two_thirds
    assert found["pairs"] == pytest.approx(4000 * 2 / 3, rel=0.05)   # a third is of one text


def test_d18_the_ceiling_is_how_often_people_s_mean_agrees_with_one_of_them():
    # x is preferred by 2 of its 3 raters. One of the 4s: the others say (0 + 4) / 2 against 1, right;
    # the 0: they say (4 + 4) / 2, and are wrong
    found = figures(Letters(x=1.0), rows({"x": [0, 4, 4], "y": [1, 1]}))
    assert found["ceiling"] == pytest.approx(2 / 3, abs=0.03) == found["accuracy"]
    found = figures(Letters(y=1.0), rows({"x": [2, 2], "y": [1, 1]}))
    assert found["ceiling"] == 1 and found["accuracy"] == 0   # people's, whatever the model says


def test_a_vote_does_not_help_to_predict_itself():
    # votes 0 or 4 against 1: who said 4 differs from the other, 0, and who said 0 from the other, 4.
    # With the vote in the mean, 2, it would be 1/2
    assert figures(Letters(x=1.0), rows({"x": [0, 4], "y": [1, 1]}))["ceiling"] == 0


def test_the_ceiling_is_of_the_pairs_that_others_rated_too():
    assert "ceiling" not in figures(Letters(y=1.0), rows({"x": [2], "y": [1]}))
    assert "ceiling" not in figures(Letters(y=1.0), rows({"x": [2, 2], "y": [1]}))
    # z, that one person rated and liked, would win against both
    found = figures(Letters(z=1.0), rows({"x": [2, 2], "y": [1, 1], "z": [5]}))
    assert found["ceiling"] == 1 == found["raters"]
    assert found["accuracy"] == pytest.approx(5 / 6, abs=0.03)   # z: two of three pairs; x, y: no opinion


def test_what_the_others_say_of_each_pair_by_hand():
    comparisons = Comparisons(rows({"a": [1, 2, 6], "b": [3, 0], "c": [5]}), TOKENIZER, 32)
    chosen, rejected = torch.tensor([0, 1, 0, 2, 0]), torch.tensor([1, 0, 1, 0, 2])
    votes = torch.tensor([[6.0, 3.0, 2.0, 5.0, 6.0], [3.0, 1.0, 0.0, 2.0, 5.0]])
    # (1 + 2) / 2 - 0,   0 - (2 + 6) / 2,   (1 + 6) / 2 - 3,   and nobody else rated c
    assert others_margin(comparisons, chosen, rejected, votes).tolist() == [1.5, -4.0, 0.5]


# ---------------------------------------------------------------- fresh comparisons

def seeded():
    return torch.Generator().manual_seed(0)


def test_fresh_pairs_have_no_ties_and_the_higher_vote_is_chosen():
    comparisons = Comparisons(rows({"a": [1], "b": [1], "c": [2], "d": [3]}), TOKENIZER, 32)
    chosen, rejected, votes = fresh_pairs(comparisons, 4000, seeded())
    ratings = torch.tensor([row.rating for row in comparisons.rated])
    assert ratings.tolist() == [1, 1, 2, 3] and (ratings[chosen] > ratings[rejected]).all()
    assert torch.equal(votes, torch.stack([ratings[chosen], ratings[rejected]]))   # one rater each
    # 16 equally likely pairs, of which 4 are of one text and 2 of two equal ones
    assert abs(len(chosen) - 2500) < 130
    assert set(zip(chosen.tolist(), rejected.tolist())) == {(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)}


def test_one_rater_at_a_time_votes_in_fresh_pairs_and_their_votes_are_told():
    comparisons = Comparisons(rows({"x": [0, 4, 4], "y": [3]}), TOKENIZER, 32)
    chosen, rejected, votes = fresh_pairs(comparisons, 6000, seeded())
    assert (chosen == 0).float().mean().item() == pytest.approx(2 / 3, abs=0.04)
    assert (chosen != rejected).all()
    told = [(4.0, 3.0) if i == 0 else (3.0, 0.0) for i in chosen.tolist()]   # x won with a 4, or lost with 0
    assert list(zip(*votes.tolist())) == told


def test_two_raters_of_one_text_are_no_pair():
    comparisons = Comparisons(rows({"x": [0, 4], "y": [9]}), TOKENIZER, 32)
    chosen, rejected, _ = fresh_pairs(comparisons, 4000, seeded())
    assert set(zip(chosen.tolist(), rejected.tolist())) == {(1, 0)}


def test_given_pairs_are_all_fresh_pairs_and_have_no_votes():
    pairs = [Row(str(i), f"good {i}", prompt=f"{i}:", rejected=f"bad {i}") for i in range(7)]
    comparisons = Comparisons(pairs, TOKENIZER, 32)
    chosen, rejected, votes = fresh_pairs(comparisons, 50, seeded())
    assert votes is None and len(chosen) == len(rejected) == 7
    for a, b in zip(chosen.tolist(), rejected.tolist()):
        (query, good), (same_query, bad) = comparisons.examples[a], comparisons.examples[b]
        assert (TOKENIZER.decode(query), TOKENIZER.decode(good)) == (f"{a}:", f"good {a}")
        assert (TOKENIZER.decode(same_query), TOKENIZER.decode(bad)) == (f"{a}:", f"bad {a}")


# ---------------------------------------------------------------- the report

def test_the_baseline_learns_from_the_same_comparisons_and_is_measured_on_the_same_pairs():
    found = figures(Letters(x=1.0), rows({"good": [2], "bad": [1]}))
    assert found["bag_of_words"] == 1 and found["accuracy"] == 0.5   # no letter x: no opinion
    assert figures(Letters(), rows({"good": [1], "bad": [2]}))["bag_of_words"] == 0


def test_what_the_report_says_is_kept_beside_the_model(tmp_path):
    *rest, generator = given(Letters(y=0.25, z=3.25), rows({"x": [2], "y": [1], "z": [3]}))
    text = report(*rest, SimpleNamespace(folder=tmp_path, generator=generator))
    kept = json.loads((tmp_path / "calibration.json").read_text())
    assert text == lines(kept) and kept["texts"] == 3
    assert [low for low, *_ in kept["by_margin"]] == [0, 2] and sum(n for *_, n in kept["bins"]) == 1


def test_given_pairs_have_no_ceiling_and_the_report_does_without():
    pairs = [Row("1", "good", rejected="bad"), Row("2", "gag", rejected="fig")]
    found = figures(Letters(g=1.0), pairs)
    assert "ceiling" not in found and found["accuracy"] == 1
    assert "ceiling" not in lines(found)


def test_all_comparisons_of_all_groups_are_indices_of_examples():
    groups = [(torch.tensor([5, 3, 4]), torch.tensor([0, 2]), torch.tensor([1, 0])),
              (torch.tensor([9, 8]), torch.tensor([1]), torch.tensor([0]))]
    assert [x.tolist() for x in everyone_compared(groups)] == [[5, 4, 8], [3, 5, 9]]


def test_the_report_in_words():
    text = lines({"pairs": 1200, "texts": 40, "accuracy": 0.7, "bag_of_words": 0.65, "ceiling": 0.8,
                  "calibration_error": 0.05, "by_margin": [(0.0, 0.6, 0.5), (2.0, 0.9, 0.5)]})
    assert text == ("accuracy on 1,200 fresh comparisons of 40 held-out texts: 0.700"
                    " (bag of words on the same comparisons 0.650; people's ceiling 0.800)\n"
                    "expected calibration error 0.050; accuracy by margin: "
                    "from 0 0.60 (50% of pairs), from 2 0.90 (50% of pairs)")


def test_d18_two_raters_of_the_same_texts_agree_as_often_as_their_votes_say():
    def agreement(texts):
        comparisons = Comparisons(rows(texts), TOKENIZER, 32)
        return rater_agreement(comparisons, 8000, torch.Generator().manual_seed(0))
    assert agreement({"x": [2, 3], "y": [0, 1]}) == 1   # x, say both
    assert agreement({"x": [0, 4], "y": [1, 1]}) == 0   # one says x and the other y, always
    # of the three pairs of x's raters two hold the one who says y
    assert agreement({"x": [0, 4, 4], "y": [1, 1]}) == pytest.approx(1 / 3, abs=0.03)
    assert agreement({"x": [4, 1], "y": [1, 1]}) is None   # always a tie: no opinion
    assert agreement({"x": [2], "y": [0, 1]}) is None      # x has no second rater
