"""The bag of words and the judge made of it."""

import pytest
import torch
import torch.nn.functional as F

from minippo.corpora.rows import Row
from minippo.run.errors import UserError
from minippo.tools.shared.words import BagOfWords, Judge, words

THINGS = "soup bread film novel train hotel rain city".split()
TEXTS = [f"the {thing} was {word}" for thing in THINGS for word in ("good", "bad")]
LABELS = torch.tensor([1.0, 0.0] * 8)


def test_words_are_lower_case_and_followed_by_pairs_of_neighbours():
    assert words("It's GOOD, good!") == ["it's", "good", "good", "it's good", "good good"]
    assert words("...") == []


def test_bags_are_tf_idf_of_norm_1_and_words_of_one_text_alone_are_ignored():
    bag = BagOfWords(["a c", "a c", "a b"])
    assert set(bag.ids) == {"a", "c", "a c"}
    ids, starts, weights = bag.bags(["a c", "b b", "c c a"])
    assert starts.tolist() == [0, 3, 3]
    found = {word: weights[ids[:3].tolist().index(i)].item() for word, i in bag.ids.items()}
    # ln(3/3) + 1 = 1 for "a", ln(3/2) + 1 = 1.405465 else; norm sqrt(1 + 2 * 1.975332) = 2.225009
    assert found == pytest.approx({"a": 0.449437, "c": 0.631669, "a c": 0.631669}, abs=1e-5)
    # "c" twice and "a" once: 2.810930 and 1, norm 2.983510
    assert sorted(weights[3:].tolist()) == pytest.approx([0.335176, 0.942156], abs=1e-5)


def test_a_word_twice_in_one_text_is_still_of_one_text_alone():
    bag = BagOfWords(["a a", "b c", "b b"])
    assert set(bag.ids) == {"b"} and bag.idf.item() == pytest.approx(1.405465)   # ln(3/2) + 1


def test_ids_follow_the_texts_and_not_the_seed_of_pythons_hashes():
    text = "one two three four five six seven eight nine ten"
    assert list(BagOfWords([text] * 2).ids) == words(text)


def right_or_wrong(scores):
    return F.binary_cross_entropy_with_logits(scores, LABELS)


def test_a_bag_learns_a_separable_set_and_generalises_to_unseen_texts():
    bag = BagOfWords(TEXTS)
    assert bag(TEXTS).tolist() == [0.0] * 16   # before fitting it has no opinion
    assert bag.fit(right_or_wrong) is bag
    assert ((bag(TEXTS) > 0) == LABELS.bool()).all()
    good, bad, unknown = bag(["we had a good time", "what a bad idea", "xyzzy"]).tolist()
    assert good > 0.5 and bad < -0.5
    assert unknown == pytest.approx(0, abs=1e-3)   # the bias: as many good as bad


def test_a_larger_penalty_makes_smaller_weights():
    weak, strong = (BagOfWords(TEXTS).fit(right_or_wrong, penalty).weight.norm()
                    for penalty in (0.1, 10.0))
    assert weak > 1.5 * strong


def test_the_fit_is_at_a_minimum_of_the_loss_with_its_penalty():
    bag = BagOfWords(TEXTS).fit(lambda scores: (scores - LABELS).square().mean())
    weight = bag.weight.clone().requires_grad_()
    bag.weight = weight
    loss = (bag(TEXTS) - LABELS).square().mean()
    (loss + weight.square().sum() / 32).backward()   # |w|^2 / 2N, N = 16
    assert weight.grad.abs().max() < 1e-4


def judged(text, *votes):
    return Row(text, text, tuple(map(float, votes)))


def test_a_judge_says_above_the_mean_and_knows_its_accuracy_on_held_out_rows():
    learned = [judged(text, 3 if "good" in text else 1, 4 if "good" in text else 0)
              for text in TEXTS]
    held = [judged("a good day", 4), judged("a bad day", 0), judged("good grief", 0)]
    held += [judged("bad luck", 1, 3)]   # at the mean 2, not above it
    judge = Judge(learned + [judged("unrated")], held + [judged("unrated")])
    assert judge.positive(["a good tale", "a bad tale"]).tolist() == [True, False]
    assert judge.accuracy == 0.75   # wrong about "good grief" alone


def test_a_judge_without_rated_rows_is_a_user_s_error():
    with pytest.raises(UserError, match="rated rows"):
        Judge([judged("a"), judged("b")], [judged("c", 1)])
    with pytest.raises(UserError, match="rated rows"):
        Judge([judged("a", 1), judged("b", 2)], [judged("c")])
