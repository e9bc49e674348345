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
from minippo.tools.shared import comparison
from minippo.tools.shared.comparison import (
    best,
    distinct,
    draw,
    lines,
    measure,
    payment,
    report,
    rival,
    samples,
    table,
)
from minippo.tools.shared.words import Judge
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
    monkeypatch.setattr(comparison, "DRAWS", 128)
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
    printed = [(x["prompt"], {name: x[name] for name in ("reference", "policy")}) for x in shown]
    assert len(shown) == 6 and text.startswith(table(printed) + "\n\n")   # what is printed is kept
    # the policy is far off: best of 64 is the nearest, and of 128 draws that leaves 2 prompts
    assert (figures["best_of_n"]["n"], figures["best_of_n"]["prompts"]) == (64, 2)
    assert figures["best_of_n"].keys() == figures["policy"].keys() | {"n", "prompts", "policy"}
    assert figures["best_of_n"]["score"] > figures["reference"]["score"]


def test_best_of_n_stands_beside_the_policy_on_the_same_prompts(small, tmp_path, monkeypatch):
    """128 draws, 64 a prompt: the first 2 of the 8 prompts, and the policy's responses to these."""
    seen = []
    monkeypatch.setattr(comparison, "measure", lambda model, reference, reward, judge, query, response, *_: (
        seen.append((model, query, response)) or {"kl": 9.0, "ended": 1.0, "score": 0.0, "distinct_2": 1.0,
                                                  "length": 1.0, "place": len(seen)},
        ["a"] * len(query), [0.0] * len(query)))
    run = run_of(tmp_path)
    report(*small, prompts(run.rows), run, TOKENIZER)
    (_, whole, _), (policy, _, responses), (_, few, _), (again, query, response) = seen
    assert policy is again and len(whole) == 8 and len(few) == 2
    assert torch.equal(query, whole[:2]) and torch.equal(query, few) and torch.equal(response, responses[:2])
    figures = json.loads((tmp_path / "comparison.json").read_text())
    assert figures["best_of_n"]["policy"]["place"] == 4 and figures["best_of_n"]["place"] == 3


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
    assert kept == 6 * [("the", {"reference": {"score": -0.5, "text": " sea"},
                                 "policy": {"score": 1.0, "text": " sun "}})]
    expected = "the ...\n  reference -0.50  sea\n     policy +1.00  sun"
    assert table(kept[:1]) == table([("the\n", kept[0][1])]) == expected


def test_a_new_line_in_a_text_makes_no_row():
    forged = [("a\nb", {"policy": {"score": 1.0, "text": "x\n  policy +9.99  great"}})]
    assert table(forged) == "a\\nb ...\n  policy +1.00  x\\n  policy +9.99  great"


# ---------------------------------------------------------------- best of n

FIGURES = {"score": 1.0, "kl": 0.0, "distinct_2": 0.5, "length": 9.0, "ended": 1.0}


class Counting:
    """A reference that answers with 5, 6, 7, ... and never ends. Every token is as likely as any other."""
    end = END

    def __init__(self):
        self.drawn = 0

    def generate(self, query, length, generator):
        self.drawn += len(query)
        return torch.arange(self.drawn - len(query), self.drawn)[:, None] % 250 + 5   # 250 of 257 tokens

    def __call__(self, query, response):
        return (-1.0 * (response != PAD),)


def asked(**flags):
    return Config(response_length=1, **{"missing_end_score": 0.0} | flags)


def by_token(query, response):
    """A reward model that likes token 7 best, then 6, 8, 5, 9, ..."""
    return -(response[:, 0] - 6.9).abs()


@pytest.mark.parametrize("kl, n", [
    (-0.1, 1), (0.0, 1), (0.09, 1), (0.1, 2),   # ln 2 - 1/2 = 0.193
    (0.41, 2), (0.42, 4),                       # ln 4 - 3/4 = 0.636
    (1.51, 8), (1.52, 16),                      # ln 8 - 7/8 = 1.204 and ln 16 - 15/16 = 1.835
    (2.83, 32), (2.84, 64), (50.0, 64),         # ln 32 - 31/32 = 2.497 and ln 64 - 63/64 = 3.175
])
def test_best_of_n_is_shown_at_the_n_whose_kl_is_nearest(kl, n):
    query = torch.zeros(70, 1).long()
    found = rival(Counting(), by_token, None, query, TOKENIZER, asked(), None, kl)
    assert found["n"] == n
    # 4096 draws in all: 64 prompts at n = 64, and never more prompts than there are
    assert found["prompts"] == (64 if n == 64 else 70)


def test_the_kl_of_best_of_n_is_ln_n_less_n_1_over_n():
    found = rival(Counting(), by_token, None, torch.zeros(3, 1).long(), TOKENIZER, asked(), None, 0.6)
    assert found["kl"] == pytest.approx(1.386294 - 0.75) and found["n"] == 4
    # 5 to 8, 9 to 12, 13 to 16: the best are 7, 9, 13, at -0.1, -2.1, -6.1
    assert found["score"] == pytest.approx(-8.3 / 3) and found["length"] == 1 and found["ended"] == 0


def test_every_query_has_its_own_draws_and_the_best_of_the_first_n_is_taken():
    response, paid = draw(Counting(), by_token, torch.zeros(2, 1).long(), 4, asked(), None)
    assert response.tolist() == [[[5], [6], [7], [8]], [[9], [10], [11], [12]]]
    assert paid[0].tolist() == pytest.approx([-1.9, -0.9, -0.1, -1.1])
    assert best(response, paid, 2).tolist() == [[6], [9]]
    assert best(response, paid, 4).tolist() == [[7], [9]]


def test_towards_negative_texts_the_best_is_the_one_of_the_lowest_score():
    response, paid = draw(Counting(), by_token, torch.zeros(2, 1).long(), 4, asked(target="negative"), None)
    assert best(response, paid, 4).tolist() == [[5], [12]]   # farthest from 6.9


def test_a_response_that_was_cut_off_is_paid_the_fixed_score_also_where_it_would_be_best():
    assert payment(torch.tensor([2.0, 3.0]), torch.tensor([True, False]), -1.0).tolist() == [2.0, -1.0]
    assert payment(torch.tensor([2.0, 3.0]), torch.tensor([True, False]), 0.0).tolist() == [2.0, 3.0]
    _, paid = draw(Counting(), by_token, torch.zeros(1, 1).long(), 3, asked(missing_end_score=-7.0), None)
    assert paid.tolist() == [[-7.0] * 3]   # none of them ends


def test_draws_in_parts_are_those_of_each_query_and_of_one_width(monkeypatch):
    class Growing(Counting):
        def generate(self, query, length, generator):
            return super().generate(query, length, generator).expand(-1, self.drawn // 2)
    monkeypatch.setattr(comparison, "AT_ONCE", 2)
    response, paid = draw(Growing(), by_token, torch.zeros(2, 1).long(), 2, asked(), None)
    assert response.tolist() == [[[5, PAD], [6, PAD]], [[7, 7], [8, 8]]] and paid.shape == (2, 2)


def test_the_line_of_best_of_n_says_where_its_kl_ends():
    figures = {"reference": FIGURES, "policy": FIGURES | {"kl": 3.1}, "best_of_n": FIGURES | {
        "n": 64, "kl": 3.17, "prompts": 9, "policy": FIGURES | {"kl": 2.9, "distinct_2": 0.875}}}
    *_, on, policy, best = lines(figures).splitlines()
    assert on == "on 9 of these prompts, beside the best of 64 of the reference:"
    assert policy == "    policy: score +1.00, KL 2.90, distinct-2 0.88, length 9.0, ended 100%"
    assert best == "best of 64: score +1.00, KL 3.17, distinct-2 0.50, length 9.0, ended 100%"
    figures["policy"]["kl"] = 3.2   # above ln 64 - 63/64 = 3.175
    assert lines(figures).endswith("ended 100% (the policy's KL is beyond that of best of 64)")
    del figures["best_of_n"]        # as an older version wrote it
    assert len(lines(figures).splitlines()) == 2
