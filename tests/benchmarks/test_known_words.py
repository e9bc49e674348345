"""Known words: which words count, and a table of a model that knows one."""

import json

from benchmarks import known_words
from benchmarks.known_words import Config, main, new_words, share, words_of
from minippo.tokenizer import Tokenizer
from minippo.tokens import pad_right
from tests.tools.folders import put


def test_words_are_lower_case_letters_and_apostrophes():
    assert words_of("It's 'a' Film, 3D x2 naïve!") == ["it's", "a", "film", "d", "x", "naïve"]


def test_a_word_begun_in_the_prompt_counts_and_one_that_was_cut_off_does_not():
    assert new_words("the fil", "ms are go", ended=True) == ["films", "are", "go"]
    assert new_words("the fil", "ms are go", ended=False) == ["films", "are"]
    assert new_words("the film", " is good.", ended=False) == ["is", "good"]   # a full stop ends the last one
    assert new_words("the film", "", ended=True) == []


def test_the_share_of_known_words():
    assert share(["a", "b", "a", "a"], {"a"}) == "75.0%" and share([], {"a"}) == "0.0%"


def test_the_table_has_a_row_per_model_and_one_of_people(tmp_path, monkeypatch, capsys):
    """All texts have "text" and a word of their own, a number's name: of the held-out ones it is unknown."""
    monkeypatch.chdir(tmp_path)
    letters = str.maketrans("0123456789", "abcdefghij")
    lines = [{"text": f"text {str(1000 + i).translate(letters)}", "rating": i % 2} for i in range(400)]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, lines)))
    tokenizer = Tokenizer.train([], 257)
    put(tmp_path / "model", "pretrain", tokenizer)
    says = tokenizer.encode(" text text unheard")
    monkeypatch.setattr(known_words, "generate",
                        lambda lm, query, *given, **others: pad_right([says + [lm.end]] * len(query)))
    monkeypatch.setattr(known_words.samples, "held_out_loss", lambda *given: "1.234 per character")
    monkeypatch.setattr(known_words, "new_words", lambda before, text, ended: words_of(text))
    main(Config(models=("model",), data="mine.jsonl", temperatures="1,0.5", count=3, length=8))
    found = [[cell.strip() for cell in line.strip("|").split("|")]
             for line in capsys.readouterr().out.splitlines()]
    assert found[2] == ["model", "1.234", "66.7%", "66.7%"]
    assert found[3] == ["people's held-out texts", "", "", "50.0%"]
