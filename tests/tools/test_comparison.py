"""Before and after: figures of responses, by hand and through a whole report."""

import json
from types import SimpleNamespace

import pytest
import torch

from finetune_ppo import Config
from minippo.corpora.rows import Row
from minippo.corpora.toy import toy
from minippo.data import Prompts, split
from minippo.policy import ActorCritic, frozen
from minippo.reward import RewardModel
from minippo.tokenizer import Tokenizer
from minippo.tokens import PAD, pad_left, pad_right
from minippo.tools import comparison
from minippo.tools.comparison import distinct, lines, measure, report, samples, table
from minippo.tools.words import Judge
from minippo.transformer import TransformerConfig, build

TOKENIZER = Tokenizer.train(["each byte is a token"], 257)
END = TOKENIZER.end
TOY = toy(400)


@pytest.mark.parametrize("texts, share", [
    (["a b a b"], 2 / 3),        # ab, ba, ab
    (["a b", "a b"], 1 / 2),     # the same again
    (["a b", "c d"], 1.0),       # no run crosses from one text into the next: not "b c"
    (["a a a a a"], 1 / 4),
    (["a", ""], 0.0),            # no runs at all
])
def test_distinct_2_by_hand(texts, share):
    assert distinct(texts, 2) == pytest.approx(share)


class Sure:
    """A model of which every token has the same log-probability."""
    end = END

    def __init__(self, logprob):
        self.logprob = logprob

    def __call__(self, query, response):
        return (self.logprob * (response != PAD),)


class Loud:
    """A judge that takes exclamation marks for praise."""
    def positive(self, texts):
        return torch.tensor(["!" in text for text in texts])


def test_figures_of_responses_by_hand():
    query = pad_left([[END] + TOKENIZER.encode(text) for text in ("oh!", "so")])
    response = pad_right([TOKENIZER.encode("a b a") + [END], TOKENIZER.encode("c d!")])
    figures, texts, scores = measure(
        Sure(-1.0), Sure(-1.5), lambda q, r: torch.tensor([1.0, 2.0]), Loud(),
        query, response, TOKENIZER, 1)
    assert figures == pytest.approx({
        "score": 1.5, "kl": 2.5,         # half a nat for each of 6 and of 4 tokens
        "distinct_2": 1.0,               # a b, b a, c d!
        "length": 5.0, "ended": 0.5,
        "judged_positive": 0.5,          # the judge reads responses alone: "oh!" counts not
    })
    assert texts == ["a b a", "c d!"] and scores == [1.0, 2.0]


@pytest.fixture
def small(monkeypatch):
    """Few samples and small models: policy, reference, reward."""
    monkeypatch.setattr(comparison, "SAMPLES", 8)
    torch.manual_seed(0)
    config = TransformerConfig(TOKENIZER.vocab_size, END, width=8, heads=1, layers=1, context=128)
    lm = build(config)
    policy = ActorCritic(lm).eval()
    reference, reward = frozen(policy), RewardModel(frozen(lm)).eval()
    for parameter in lm.parameters():   # the policy has learned something
        torch.nn.init.normal_(parameter)
    return policy, reference, reward


def prompts(parts):
    return Prompts(parts["test"], TOKENIZER, 2, 8, 122)


def run_of(folder, rows=TOY, **flags):
    """What a report needs of the Run of stage 3."""
    return SimpleNamespace(config=Config(response_length=6, **flags), rows=split(rows),
                           device=torch.device("cpu"), folder=folder)


def test_a_report_measures_both_models_and_the_reference_has_no_kl(small, tmp_path):
    run = run_of(tmp_path, missing_end_score=0.0)
    text = report(*small, prompts(run.rows), run, TOKENIZER)
    figures = json.loads((tmp_path / "comparison.json").read_text())
    assert figures["reference"]["kl"] == 0 and figures["policy"]["kl"] > 0
    judge = Judge(run.rows["judge"], run.rows["prompts"] + run.rows["test"])
    assert figures["judge_accuracy"] == judge.accuracy
    assert figures["policy"].keys() == {
        "score", "kl", "distinct_2", "length", "ended", "judged_positive"}
    assert text.endswith(lines(figures)) and text.count(" ...\n") == 6
    shown = figures["samples"]
    assert len(shown) == 6 and text.startswith(table(shown) + "\n\n")   # what is printed is kept


def test_without_ratings_there_is_no_judge(small, tmp_path):
    run = run_of(tmp_path, [Row(row.id, row.text) for row in TOY])
    text = report(*small, prompts(run.rows), run, TOKENIZER)
    assert "judged" not in text
    assert "judge_accuracy" not in json.loads((tmp_path / "comparison.json").read_text())


def test_d42_a_seed_fixes_the_report(small, tmp_path):
    runs = [run_of(tmp_path, seed=seed) for seed in (1, 1, 2)]
    texts = [report(*small, prompts(run.rows), run, TOKENIZER) for run in runs]
    assert texts[0] == texts[1] != texts[2]


def test_where_hardly_a_response_ends_the_report_says_what_to_do(small, tmp_path):
    note = "note: 0% of the responses end by themselves, and all others"
    for fixed in (-1.0, 1.0, 0.0):
        run = run_of(tmp_path, missing_end_score=fixed)
        text = report(*small, prompts(run.rows), run, TOKENIZER)
        assert (note in text) == bool(fixed)   # of an untrained model
        assert not fixed or text.endswith("raise --response-length, or give --missing-end-score 0")


def test_the_table_shows_each_prompt_with_what_both_made_of_it():
    query = pad_left([[END] + TOKENIZER.encode("the")] * 7)
    texts = {"reference": [" sea"] * 7, "policy": [" sun "] * 7}
    scores = {"reference": [-0.5] * 7, "policy": [1.0] * 7}
    kept = samples(query, texts, scores, TOKENIZER)
    assert kept == 6 * [{"prompt": "the", "reference": {"score": -0.5, "text": " sea"},
                         "policy": {"score": 1.0, "text": " sun "}}]
    assert table(kept[:1]) == "the ...\n  reference -0.50  sea\n     policy +1.00  sun"
