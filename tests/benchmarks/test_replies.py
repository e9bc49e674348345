"""A dialogue agent's replies: the judge that matches words, the second judge, and how they are counted."""

import json
import random
from dataclasses import replace

import pytest
import torch

from benchmarks import replies
from minippo.corpora.read import read
from minippo.corpora.rows import Row
from minippo.data import split
from minippo.run.checkpoint import load_reward
from minippo.run.errors import UserError
from minippo.tokenizer import Tokenizer
from tests.tools.folders import put

THINGS = ["cats", "rain", "tea", "trains", "books", "snow"]
ANSWERS = ["i have two pets", "take an umbrella", "i like it hot", "they are late", "i read a lot",
           "it is cold"]


def pairs(count, seed=0):
    """Turns that name a thing, with an answer that never names it, and one to another thing."""
    generator = random.Random(seed)
    for i in range(count):
        a, b = generator.sample(range(len(THINGS)), 2)
        yield Row(str(i), f"{ANSWERS[a]} {i % 7}", prompt=f"{i % 5} about {THINGS[a]}\n",
                  rejected=f"{ANSWERS[b]} {i % 7}")


def test_the_matcher_learns_which_words_answer_which():
    judge = replies.Matcher(list(pairs(3000)))
    assert replies.accuracy(judge, list(pairs(200, seed=1))) == 1
    tied = [Row("", row.text, prompt=row.prompt, rejected=row.text) for row in pairs(50, seed=1)]
    assert replies.accuracy(judge, tied) == 0.5   # no opinion


def test_an_untrained_matcher_counts_shared_words_and_survives_unknown_ones(monkeypatch):
    monkeypatch.setattr(replies, "PASSES", 0)
    judge = replies.Matcher([Row("1", "so long", prompt="the film\n", rejected="no")])
    same, half, none, unknown = judge(["so long"] * 4, ["so long", "so", "", "entirely new"]).tolist()
    # unit vectors of two words: the same text 1; one word of two 1 / sqrt(2), as random vectors are all but
    # at right angles to each other
    assert same == pytest.approx(1) and half == pytest.approx(0.5 ** 0.5, abs=0.1)
    assert none == unknown and abs(none) < 0.2


def test_a_model_is_compared_with_the_first_one_the_real_replies_and_itself_after_the_next_turn():
    rows = [Row(turn, "r" * 3, prompt=turn, rejected="x") for turn in ("t", "tt", "tt", "ttt")]
    written = {"before": (["a", "bb", "cc", "dddd"], [True] * 4),
               "after": (["aa", "bb", "c", "ddddd"], [True, False] * 2)}
    judges = {"matcher": lambda *sides: torch.tensor([len(turn) / 8 + len(reply)
                                                      for turn, reply in zip(*sides)])}
    header, found = replies.table(judges, rows, written)
    assert header == ("model", "matcher: above the reference's", "matcher: above the real reply",
                      "matcher: above itself after another turn", "distinct-2", "words", "ended")
    # after against before: won, tied, lost, won; against "rrr": lost, lost, lost, won
    assert [row[1].split()[0] for row in found] == ["50%", "62%"]
    assert [row[2].split()[0] for row in found] == ["25%", "25%"]
    assert [row[3].split()[0] for row in found] == ["38%"] * 2   # lost, tied, lost, won
    assert [row[4:] for row in found] == [["0.00", "1.0", "100%"], ["0.00", "1.0", "50%"]]


def test_a_reward_model_as_a_judge_scores_the_whole_reply_after_its_turn(tmp_path):
    rows = list(pairs(65))   # 64 at once, and a rest
    tokenizer = Tokenizer.train([row.prompt + row.text for row in pairs(200)], 300)
    put(tmp_path / "judge", "reward", tokenizer)
    judge = replies.Learned(replies.Config(judge=str(tmp_path / "judge"), precision="fp32"))
    found = judge([row.prompt for row in rows], [row.text for row in rows])
    model = load_reward(tmp_path / "judge")[0]
    for row, score in zip(rows, found):
        query = torch.tensor([[tokenizer.end, *tokenizer.encode(row.prompt)]])
        response = torch.tensor([[*tokenizer.encode(row.text), tokenizer.end]])
        assert score.item() == pytest.approx(model(query, response).item(), abs=1e-4)


def test_the_judge_s_pairs_are_written_as_train_reward_reads_them(tmp_path):
    rows = [replace(row, group=f"chat {i % 7}") for i, row in enumerate(pairs(40))]
    (tmp_path / "judge.jsonl").write_text(replies.as_jsonl(rows))
    written = {row.texts: row.group for row in read(tmp_path / "judge.jsonl")}
    assert written == {row.texts: row.group for row in rows}   # a chat stays in one part


def test_the_baseline_learns_from_the_reward_model_s_part_and_the_judge_from_its_own(tmp_path, monkeypatch):
    learned = []
    monkeypatch.setattr(replies, "Matcher", lambda rows, seed: learned.append(rows))
    monkeypatch.setattr(replies, "accuracy", lambda judge, rows: 0.5)
    monkeypatch.setattr(replies, "answerable", lambda config, parts, name: list(parts[name]))
    monkeypatch.setattr(replies, "answers", lambda *about: ([], 0.0))
    monkeypatch.setattr(replies, "table", lambda *about: (("model",), []))
    (tmp_path / "pairs.jsonl").write_text(replies.as_jsonl(pairs(400)))
    replies.main(replies.Config(data=str(tmp_path / "pairs.jsonl"), dialogues=0))
    parts = split(read(tmp_path / "pairs.jsonl"))
    assert learned == [parts["reward"], parts["judge"]]


def test_replies_before_and_after_stand_below_their_turns(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.jsonl").write_text(replies.as_jsonl(pairs(400)))
    monkeypatch.setattr(replies, "answerable", lambda config, parts, name: list(parts[name]))
    monkeypatch.setattr(replies, "answers", lambda config, name, rows, top_k: (
        [f"{name} to {row.prompt.strip()}" for row in rows], [True]))
    replies.main(replies.Config(models=("one", "two"), data="pairs.jsonl", count=9, dialogues=2))
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("right on so many of ") and "; matcher " in printed[0]
    assert [line.split(" | ")[0] for line in printed[4:6]] == ["| one", "| two"]
    turn = printed[-3]
    assert printed[-2:] == [f"  one: one to {turn}", f"  two: two to {turn}"]


@pytest.mark.parametrize("pairs_too", [0, 900])
def test_data_with_a_row_that_is_no_pair_is_refused(tmp_path, pairs_too):
    texts = "".join(json.dumps({"text": f"a text {i}"}) + "\n" for i in range(300))
    (tmp_path / "texts.jsonl").write_text(texts + replies.as_jsonl(pairs(pairs_too)))
    with pytest.raises(UserError, match="needs prompt, chosen and rejected in every row"):
        replies.main(replies.Config(data=str(tmp_path / "texts.jsonl")))


def test_a_turn_that_does_not_fit_into_the_model_is_left_out(tmp_path, monkeypatch, capsys):
    rows = [replace(row, text=f"{row.text} {row.id}") for row in pairs(900)]   # 3 in 100 are in "test"
    long = split(rows)["test"][0]
    rows = [replace(row, prompt="why " * 60 + "\n") if row is long else row for row in rows]
    tokenizer = Tokenizer.train([row.prompt + row.text for row in rows], 300)
    put(tmp_path / "one", "pretrain", tokenizer)
    (tmp_path / "pairs.jsonl").write_text("".join(
        json.dumps({"id": row.id, "prompt": row.prompt, "chosen": row.text, "rejected": row.rejected}) + "\n"
        for row in rows))
    replies.main(replies.Config(models=(str(tmp_path / "one"),), data=str(tmp_path / "pairs.jsonl"), length=4,
                                precision="fp32"))
    captured = capsys.readouterr()
    assert "note: 1 of " in captured.err and "left out, their prompts are too long" in captured.err
    assert "| real replies |" in captured.out
