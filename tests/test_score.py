"""Scores that are no reward models, called like one."""

import pytest
import torch

from minippo.policy import frozen
from minippo.score import NegativePerplexity, TextScore
from minippo.tokenizer import Tokenizer
from minippo.tokens import PAD, pad_left, pad_right

TOKENIZER = Tokenizer.train(["a"], 257)


def rows(pad, *texts):
    return pad([TOKENIZER.encode(text) for text in texts])


def test_the_negative_perplexity_of_a_uniform_model_is_minus_its_vocabulary(lm, query, response):
    torch.nn.init.zeros_(lm.embedding.weight)   # the head, too: every logit is 0
    assert NegativePerplexity(lm)(query, response).tolist() == pytest.approx([-11] * 3, abs=1e-4)


def test_the_negative_perplexity_by_hand_over_real_tokens_only(lm, query):
    logits = torch.tensor([1., 3.]).log()   # probabilities 1/4 and 3/4
    lm.logits = lambda states: logits.expand(*states.shape[:-1], -1)
    response = pad_right([[1, 1, 0], [0], [1, 1]])
    # the geometric means of 1/p: (4/3 * 4/3 * 4)^(1/3) = 1.9230, 4, 4/3
    scores = NegativePerplexity(lm)(query, response).tolist()
    assert scores == pytest.approx([-1.9230, -4, -1.3333], abs=1e-4)


def test_an_empty_response_scores_minus_1(lm, query):
    assert NegativePerplexity(lm)(query, torch.full((3, 2), PAD)).tolist() == [-1, -1, -1]


def test_d09_pad_columns_change_no_perplexity(lm, query, response):
    score, pads = NegativePerplexity(lm), torch.full((3, 3), PAD)
    padded = score(torch.cat([pads, query], 1), torch.cat([response, pads], 1))
    assert torch.allclose(padded, score(query, response), rtol=1e-5)


def test_d40_scoring_takes_no_gradient_and_changes_nothing(lm, query, response):
    before = frozen(lm).state_dict()
    scores = NegativePerplexity(lm)(query, response)
    assert not scores.requires_grad and all(p.grad is None for p in lm.parameters())
    assert all(torch.equal(x, before[name]) for name, x in lm.state_dict().items())


def test_a_text_score_sees_query_and_response_without_pads_and_end():
    seen = []
    score = TextScore(lambda texts: seen.extend(texts) or [len(text) for text in texts], TOKENIZER)
    response = torch.cat([rows(pad_right, " good", " bad"), torch.tensor([[TOKENIZER.end]] * 2)], 1)
    scores = score(rows(pad_left, "a film", "the film"), response)
    assert seen == ["a film good", "the film bad"]
    assert scores.dtype == torch.float32 and scores.tolist() == [11, 12]


def test_a_text_knows_its_prompt_its_response_and_the_text_of_each_token():
    response = pad_right([TOKENIZER.encode("xy") + [TOKENIZER.end], TOKENIZER.encode("z")])
    seen = []
    TextScore(lambda texts: seen.extend(texts) or [0, 0], TOKENIZER)(rows(pad_left, "ab", "c"), response)
    assert [(text, text.prompt, text.response, text.tokens) for text in seen] == [
        ("abxy", "ab", "xy", ["x", "y", ""]), ("cz", "c", "z", ["z"])]   # the end has no text


def test_tokens_add_up_to_the_response_and_a_letter_of_several_stands_in_its_last():
    seen = []
    response = pad_right([TOKENIZER.encode("aé€\ufffd!") + [TOKENIZER.end]])   # 1, 2, 3, 3 and 1 bytes
    TextScore(lambda texts: seen.extend(texts) or [0], TOKENIZER)(rows(pad_left, "a"), response)
    assert seen[0].tokens == ["a", "", "é", "", "", "€", "", "", "", "\ufffd!", ""]
    cut = pad_right([TOKENIZER.encode("aé")[:2]])
    TextScore(lambda texts: seen.extend(texts) or [0], TOKENIZER)(rows(pad_left, "a"), cut)
    assert seen[1].tokens == ["a", "\ufffd"] and seen[1].response == "a\ufffd"   # cut off within it


def test_a_list_per_text_is_a_score_for_each_token_and_0_at_pads():
    response = pad_right([TOKENIZER.encode("xyx") + [TOKENIZER.end], TOKENIZER.encode("x")])
    score = TextScore(lambda texts: [[token == "x" for token in text.tokens] for text in texts], TOKENIZER)
    scores = score(rows(pad_left, "ab", "c"), response)
    assert scores.dtype == torch.float32 and scores.tolist() == [[1, 0, 1, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize("wrong, words", [
    ([1.0], r"1 of shapes \[\[\]\] for 2 texts"), (1.0, "not iterable"),
    ([1.0, [1.0, 2.0]], r"\[\[\], \[2\]\] for"),
    ([[1.0], [2.0]], r"2 of shapes \[\[1\], \[1\]\] for 2 texts"), ([[1.0, 2.0], [3.0]], "for 2 texts")])
def test_a_text_score_of_the_wrong_shape_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        score = TextScore(lambda texts: wrong, TOKENIZER)
        score(rows(pad_left, "a", "b"), rows(pad_right, "ab", "cd"))


def test_a_text_score_of_the_wrong_shape_is_named_and_one_that_fails_has_its_own_error():
    def mistaken(texts):
        return [1.0] if texts == ["ab"] else []
    score = TextScore(mistaken, TOKENIZER)
    assert score(rows(pad_left, "a"), rows(pad_right, "b")).tolist() == [1]
    with pytest.raises(ValueError, match=r"score function mistaken must .*0 of shapes \[\] for 1 texts"):
        score(rows(pad_left, "a"), rows(pad_right, "c"))
    with pytest.raises(ZeroDivisionError):
        TextScore(lambda texts: [1 / 0], TOKENIZER)(rows(pad_left, "a"), rows(pad_right, "b"))
