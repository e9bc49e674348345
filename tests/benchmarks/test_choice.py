"""Which pairs to ask about: the measuring, on responses that are written here."""

import json

import pytest
import torch

from benchmarks import choice
from minippo.run.checkpoint import load_reward
from minippo.run.errors import UserError
from minippo.tokenizer import Tokenizer
from minippo.tools.labels.answers import Answer
from minippo.tools.labels.labellers import actors, questions, shorter
from tests.tools.folders import put

DULL = ["a film", "the plot", "some words", "a story", "no end", "the music", "one more", "so long"]
POOL = [(f"prompt {i}", [*DULL, "is it a film?"]) for i in range(40)]
EVEN = [(f"prompt {i}", ["a", "b", "c d", "e f", "g h i", "j k l"]) for i in range(40)]
HELD_OUT = [("other", ["the film", "a plot", "was it long?", "the story"]), ("dull", ["no film", "no plot"])]


def test_a_text_wins_by_the_share_of_others_that_it_beats_ties_half():
    texts = ["an actor", "a film", "a plot", "the cast"]
    # beats two of three and ties the fourth; loses to two and ties one
    assert choice.win_share(actors, 0, texts) == pytest.approx(2.5 / 3)
    assert choice.win_share(actors, 1, texts) == pytest.approx(0.5 / 3)


def test_the_best_against_any_finds_a_rare_trait_and_the_most_uncertain_leaves_it():
    found = {way: choice.measure(questions, questions, way, POOL, HELD_OUT, 40, 0) for way in choice.WAYS}
    preferences = {way: count for way, (count, *_) in found.items()}
    assert preferences["best"] > 25 > preferences["random"] > preferences["uncertain"]
    # of the held-out prompts one has a question that beats three of three, the other only ties: (1 + 0.5) / 2
    assert found["best"] == (preferences["best"], 1.0, 0.75, 0.75)


def test_a_pool_is_written_once_and_each_way_and_seed_has_its_row(place, capsys):
    config = choice.Config(model="pretrain", data="data.csv", pool="new/pool.json",
                           labellers="shorter,actors", seed_count=2, count=6, held_out=3, candidates=4)
    choice.main(config)
    table = capsys.readouterr().out
    assert [line.split(" | ")[:2] for line in table.splitlines()[2:]] == [
        [f"| {name}", way] for name in ("shorter", "actors") for way in ("random", "uncertain", "best")]
    before = (place / "new/pool.json").read_bytes()
    learned, held_out = json.loads(before)["pool"]
    assert (len(learned), len(held_out)) == (6, 3)
    assert all(1 < len(set(texts)) == len(texts) <= 4 and all(map(str.strip, texts))
               for _, texts in learned + held_out)
    choice.main(config)
    assert capsys.readouterr().out == table and (place / "new/pool.json").read_bytes() == before


def test_a_pool_of_other_settings_and_flags_that_fit_nothing_are_one_line(place):
    (place / "pool.json").write_text(json.dumps({"settings": {"count": 20}, "pool": [POOL, HELD_OUT]}))
    for flags, message in (({}, "--pool pool.json was written with other settings"),
                           ({"labellers": "nobody"}, "--labellers nobody: there is shorter"),
                           ({"rounds": 30}, "--rounds 30 does not divide --count 40")):
        with pytest.raises(UserError, match=message):
            choice.main(choice.Config(pool="pool.json", **{"labellers": "shorter", "count": 40} | flags))


def test_in_rounds_a_reward_model_of_all_answers_so_far_chooses_and_is_measured(monkeypatch):
    trained = []

    def made(config, given, seed):
        trained.append(len(given))
        return lambda prompt, texts: torch.tensor([float(len(text.split())) for text in texts])
    monkeypatch.setattr(choice, "reward_model", made)
    config = choice.Config(rounds=20)
    learn = choice.in_rounds(config, 0)
    preferences, accuracy, *_ = choice.measure(shorter, shorter, "uncertain", EVEN, HELD_OUT, 40, 0, learn)
    # the first 20 pairs are chance; then two that the model scores alike: as many words, so ties
    assert trained == [20, 40] and 9 < preferences <= 20 and accuracy == 0   # it likes the longer ones
    trained.clear()
    choice.measure(shorter, shorter, "random", EVEN, HELD_OUT, 40, 0, choice.in_rounds(config, 0))
    assert trained == [40]   # none is needed before


def test_a_reward_model_is_made_of_the_preferences_and_scores_responses_after_their_prompt(
        tmp_path, monkeypatch):
    put(tmp_path / "one", "reward", Tokenizer.train([], 257))   # each byte is a token
    said, (model, tokenizer) = [], load_reward(tmp_path / "one")
    monkeypatch.setattr(choice, "command", lambda *words: said.append([str(word) for word in words]))
    monkeypatch.setattr(choice.checkpoint, "load_reward", lambda folder: (model, tokenizer))
    given = [Answer("the sea", "one", "two", "left", 0.5), Answer("the sea", "one", "two", "tie", 0.5)]
    folder = tmp_path / "made/choice"
    config = choice.Config(model="pretrain", pool=str(tmp_path / "made/pool.json"))
    score = choice.reward_model(config, given, 3)
    rows = [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]
    assert [row["chosen"] + row["rejected"] for row in rows] == ["onetwo"]
    assert said[0][1:5] == ["--model", "pretrain", "--seed", "3"] and said[0][-1] == str(folder / "reward")
    query, end = [[tokenizer.end] + tokenizer.encode("the sea")], tokenizer.end
    alone = model(torch.tensor(query), torch.tensor([tokenizer.encode("one") + [end]]))
    assert score("the sea", ["two two", "one"])[1].item() == pytest.approx(alone.item(), abs=1e-5)
