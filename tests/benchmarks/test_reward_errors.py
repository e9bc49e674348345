"""Where reward models err: the kinds of comparisons, their intervals, and which ones all get wrong."""

import json
import random

import pytest
import torch

from benchmarks import reward_errors
from minippo.corpora.read import read
from minippo.corpora.rows import Row
from minippo.data import Comparisons, split
from minippo.run.errors import UserError
from minippo.tokenizer import Tokenizer
from tests.tools.folders import put

CHOSEN, REJECTED = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 3])


@pytest.fixture
def fresh():
    rows = [Row("0", "a fine film", (3.0, 2.0)), Row("1", "not a film, but fun", (1.5, 1.5)),
            Row("2", "it isn't", (0.0, 0.0)), Row("3", "zzz", (-0.25, -0.25))]
    return Comparisons(rows, Tokenizer.train([], 257), 48)


def test_a_comparison_is_of_a_kind_by_what_either_text_holds(fresh):
    seen = ["a fine film"] * 3 + ["not a film, but fun"] * 3 + ["it"] * 2
    kinds = {kind: inside.tolist()
             for kind, inside in reward_errors.kinds_of(seen, fresh, CHOSEN, REJECTED).items()}
    assert kinds["all"] == [True, True, True]
    # words: 3 + 5, 5 + 2, 2 + 1
    assert kinds["words of both texts: up to 6"] == [False, False, True]
    assert kinds["words of both texts: above 7"] == [True, False, False]
    assert kinds["a negation"] == [True, True, True]    # "not", "not", "isn't"
    assert kinds["a but"] == [True, True, False]
    assert "neither a negation nor a but" not in kinds   # no comparison is of it
    # rare: none of 8; "it" (in two texts) and "isn't" (in none) of 7; these and "zzz" of 3
    assert kinds["words that fewer than 3 training texts have: above 52 %"] == [False, False, True]
    # mean ratings 2.5, 1.5, 0, -0.25
    assert kinds["mean ratings apart by 0 to 0.5"] == [False, False, True]
    assert kinds["mean ratings apart by 1 to 2"] == [True, True, False]
    assert "mean ratings apart by 2 or more" not in kinds


def test_a_tied_score_is_half_right():
    verdicts = reward_errors.verdict(torch.tensor([2.0, 1.0, 1.0, 3.0]), CHOSEN, REJECTED)
    assert verdicts.tolist() == [1, 0.5, 0]


def test_the_table_tells_who_is_right_and_by_how_much():
    right = {"reward model": [torch.tensor([1.0, 1, 0, 0]), torch.tensor([1.0, 1, 1, 0])],
             "bag of words": [torch.tensor([1.0, 0, 1, 0])],
             "both mixed": [torch.tensor([1.0, 1, 1, 0])] * 2}
    kinds = {"all": torch.tensor([True] * 4), "one": torch.tensor([False, True, False, False])}
    header, rows = reward_errors.table(kinds, right, ["0.900", "-"], torch.ones(3, 4))
    assert header[2:5] == ("reward model", "bag of words", "both mixed")
    # seeds 2/4 and 3/4, their mean 5/8, of which the bag has 1/2: +12.5 points. The mean of the seeds is
    # 1, 1, 1/2, 0: both (1 + 1/2) / 4, only the model 1/4, only the bag 1/2 / 4, neither 1/4
    assert rows[0] == ("all", "100%", "0.625 (0.500 to 0.750)", "0.500", "0.750", "+12.5 (+12.5 to +12.5)",
                       "+25.0 (+25.0 to +25.0)", "0.900", "38%", "25%", "12%", "25%")
    assert rows[1][:5] == ("one", "25%", "1.000", "0.000", "1.000")


def test_the_interval_weighs_a_comparison_by_both_of_its_texts():
    draws = reward_errors.resampled(2, torch.tensor([0]), torch.tensor([1]), torch.Generator().manual_seed(0))
    # two texts drawn of two: each once in half of the draws, else one of them is missing
    assert set(draws.flatten().tolist()) == {0, 1} and draws.mean().item() == pytest.approx(0.5, abs=0.05)
    gain = torch.tensor([1.0, 0.0])
    # the first comparison counts not at all in one half of the draws, alone in the other
    assert reward_errors.points(gain, torch.tensor([[0.0, 2], [2, 0]] * 20)) == "+50.0 (+0.0 to +100.0)"


def test_missed_is_what_all_get_wrong_and_the_mean_ratings_do_not(fresh):
    one, other = torch.tensor([0, 0, 0, 3]), torch.tensor([1, 2, 3, 0])
    right = {"reward model": [torch.tensor([0.0, 0, 0, 0]), torch.tensor([0.0, 1, 0, 0])],
             "bag of words": [torch.tensor([0.0, 0, 0.5, 0])]}
    # the second is right by a seed, the third half right, in the fourth the vote was against the mean
    assert reward_errors.missed(right, fresh, one, other) == [0]


def test_the_command_prints_its_tables(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    draw = random.Random(0)
    lines = [{"text": f"{word} film {draw.random()}", "rating": int(word == "good")}
             for i in range(200) for word in ("good", "bad")]
    (tmp_path / "rated.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for name in ("a", "bb"):
        put(tmp_path / name, "reward", Tokenizer.train([], 257))
    reward_errors.main(reward_errors.Config(rewards=("a", "bb"), data="rated.jsonl", count=300, shown=2))
    errors, learned = capsys.readouterr().out.split("\n\n")   # no third: the bag gets none wrong
    cells = [cell.strip() for cell in errors.splitlines()[2].strip("|").split("|")]
    assert cells[:2] == ["all", "100%"] and cells[3] == "1.000" and cells[7] == "-"   # one rating a text
    texts, bags = learned.splitlines()[0], learned.splitlines()[2]
    assert texts.startswith("| training texts | 3") and bags.endswith("| 1.000 |")


@pytest.mark.parametrize("texts", ["held-out", "judge"])
def test_the_texts_asked_for_are_judged(tmp_path, monkeypatch, texts):
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "a", "reward", Tokenizer.train([], 257))
    lines = [json.dumps({"text": f"film {i}", "rating": i % 2}) for i in range(200)]
    (tmp_path / "rated.jsonl").write_text("\n".join(lines))
    judged = []
    monkeypatch.setattr(reward_errors, "scored", lambda config, model, tokenizer, rows:
                        judged.extend(rows) or torch.zeros(len(rows)))
    reward_errors.main(reward_errors.Config(rewards=("a",), data="rated.jsonl", texts=texts, shown=0))
    parts = split(read("rated.jsonl"))
    assert judged == (parts["judge"] if texts == "judge" else parts["prompts"] + parts["test"])


def test_comparisons_that_are_all_ties_are_one_line(tmp_path, monkeypatch):
    put(tmp_path / "a", "reward", Tokenizer.train([], 257))
    none = torch.zeros(0, dtype=torch.int64)
    monkeypatch.setattr(reward_errors.calibration, "fresh_pairs", lambda *others: (none, none, none))
    with pytest.raises(UserError, match="--count 2: all of them ties; ask for more"):
        reward_errors.main(reward_errors.Config(rewards=(str(tmp_path / "a"),), data="toy", count=2))


def test_pairs_without_ratings_are_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pairs = [{"chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(100)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    put(tmp_path / "a", "reward", Tokenizer.train([], 257))
    with pytest.raises(UserError, match="give rated texts"):
        reward_errors.main(reward_errors.Config(rewards=("a",), data="pairs.jsonl"))
