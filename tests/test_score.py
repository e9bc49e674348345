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


@pytest.mark.parametrize("wrong, shape", [([1.0], r"\(1,\)"), (1.0, r"\(\)"),
                                          ([[1.0], [2.0]], r"\(2, 1\)")])
def test_a_text_score_of_the_wrong_shape_is_refused(wrong, shape):
    with pytest.raises(ValueError, match=f"shape {shape} for 2 texts"):
        score = TextScore(lambda texts: wrong, TOKENIZER)
        score(rows(pad_left, "a", "b"), rows(pad_right, "a", "b"))


def test_a_text_score_of_the_wrong_shape_is_named_and_one_that_fails_has_its_own_error():
    def mistaken(texts):
        return [1.0] if texts == ["ab"] else []
    score = TextScore(mistaken, TOKENIZER)
    assert score(rows(pad_left, "a"), rows(pad_right, "b")).tolist() == [1]
    with pytest.raises(ValueError, match=r"score function .*mistaken.*shape \(0,\) for 1 texts"):
        score(rows(pad_left, "a"), rows(pad_right, "c"))
    with pytest.raises(ZeroDivisionError):
        TextScore(lambda texts: [1 / 0], TOKENIZER)(rows(pad_left, "a"), rows(pad_right, "b"))
