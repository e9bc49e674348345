"""Which pairs to ask about: the measuring, on responses that are written here."""

import json

import pytest

from benchmarks import choice
from minippo.tools.labels.labellers import actors, questions

DULL = ["a film", "the plot", "some words", "a story", "no end", "the music", "one more", "so long"]
POOL = [(f"prompt {i}", [*DULL, "is it a film?"]) for i in range(40)]
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
    learned, held_out = json.loads(before)
    assert (len(learned), len(held_out)) == (6, 3)
    assert all(1 < len(set(texts)) == len(texts) <= 4 and all(map(str.strip, texts))
               for _, texts in learned + held_out)
    choice.main(config)
    assert capsys.readouterr().out == table and (place / "new/pool.json").read_bytes() == before
