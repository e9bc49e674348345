"""chrF: by hand, as sacrebleu has it, and as a score that knows the true text of a prompt."""

import json
import random
from typing import NamedTuple

import pytest

from minippo.corpora import chrf as module
from minippo.corpora.chrf import against, chrf
from minippo.corpora.rows import Row
from minippo.run.errors import UserError


@pytest.mark.parametrize("text, truth, expected", [
    ("the cat sat", "the cat sat", 100.0),
    ("the cat sat", "thecat  sat", 100.0),   # white space does not count
    ("abc", "xyz", 0.0), ("", "abc", 0.0), ("abc", "", 0.0), ("", "", 0.0),
    # runs of 1, 2 and 3 letters: 2/3, 1/2 and 0 of both sides; nobody has longer ones; (2/3 + 1/2 + 0) / 3
    ("The", "the", 38.88889),
    # 5/6, 4/5, 3/4, 2/3, 1/2, and 0 of the runs of 6, on both sides
    ("abcdex", "abcdef", 59.16667),
    # precision 1 and 1; recall 2/4 and 1/3, together 5/12; the text has no longer runs. 5 P R / (4 P + R)
    ("ab", "abcd", 47.16981),
    ("abcd", "ab", 78.125),    # P and R exchanged: 25/12 : (5/3 + 1); recall counts more
    ("aaa", "a", 71.42857),    # one of three a's counts: P 1/3, R 1
])
def test_chrf_by_hand(text, truth, expected):
    assert chrf([text], [truth]) == pytest.approx(expected, abs=1e-4)


def test_runs_are_counted_over_all_texts():
    # 1 letter: 3 shared of 3 and of 5; 2 letters: 1 of 1 and of 3; R = (3/5 + 1/3) / 2 = 7/15
    assert chrf(["ab", "x"], ["abcd", "x"]) == pytest.approx(52.23881, abs=1e-4)
    assert chrf(["ab", "xy"], ["ab", ""]) == 100   # against no text nothing is found


class Answer(NamedTuple):
    """A text as a score gets it, as far as it is needed."""
    prompt: str
    tokens: tuple

    @property
    def response(self):
        return "".join(self.tokens)


def made_up(generator, count):
    return ["".join(generator.choices("abc de.", k=generator.randrange(14))) for _ in range(count)]


def test_chrf_is_sacrebleu_s_of_sentences_and_of_all_together():
    sacrebleu = pytest.importorskip("sacrebleu")
    generator = random.Random(0)
    texts, truths = made_up(generator, 300), made_up(generator, 300)
    for text, truth in zip(texts, truths):
        expected = sacrebleu.sentence_chrf(text, [truth]).score
        assert chrf([text], [truth]) == pytest.approx(expected, abs=1e-9)
    assert chrf(texts, truths) == pytest.approx(sacrebleu.corpus_chrf(texts, [truths]).score, abs=1e-9)


def test_a_response_is_scored_against_the_true_text_of_its_own_prompt(tmp_path):
    lines = [{"prompt": "old\n", "text": "abcd"}, {"prompt": "older\n", "text": "the"}, {"text": "no prompt"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    texts = [Answer("older\n", ("The", "")), Answer("old\n", ("a", "b", "")), Answer("old\n", ("abcd", "")),
             Answer("old\n", ("xyz",)), Answer("old\n", ("",))]
    # (chrF - 50) / 10 of 38.88889, 47.16981, 100, 0 and 0
    assert list(map(sum, against(tmp_path / "a.jsonl")(texts))) == pytest.approx(
        [-1.111111, -0.283019, 5, -5, -5], abs=1e-5)


def test_a_token_is_paid_for_what_it_adds_to_as_much_of_the_true_text(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "old", "text": "abcd"}')
    found, beyond = against(tmp_path / "a.jsonl")([Answer("old", ("a", "b", "x", "")),
                                                   Answer("old", ("abcd", "abcd", ""))])
    # "a" is right, 5 of 1/4; "ab", too, 5 of 2/4; "abx" for "abc": (2/3 + 1/2 + 0) / 3, -1.11111 of 3/4; and
    # "abx" for "abcd": P (2/3 + 1/2) / 3, R (1/2 + 1/3) / 3, so -2.053872
    assert found == pytest.approx([1.25, 1.25, -3.333333, -1.220539], abs=1e-5)
    # "abcd" is right, 5 of 4/4. Once more: 4 of 8, 3 of 7, 2 of 6 and 1 of 5 runs are right, R is 1:
    # P .365476, 5 P / (4 P + 1) = .742263, so 2.422631. The end adds nothing
    assert beyond == pytest.approx([5, -2.577369, 0], abs=1e-5)


def test_of_several_true_texts_the_nearest_counts(tmp_path):
    lines = [{"prompt": "old", "text": "abcd"}, {"prompt": "old", "text": "the"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    score = against(tmp_path / "a.jsonl")
    assert score([Answer("old", ("abcd", "")), Answer("old", ("the", ""))]) == [[5, 0], [5, 0]]


def test_a_prompt_without_a_true_text_is_refused_with_the_data_to_give(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "old", "text": "new"}')
    with pytest.raises(UserError, match="'the film' is no prompt of .*a.jsonl, its true text is unknown"):
        against(tmp_path / "a.jsonl")([Answer("old", ("new", "")), Answer("the film", ("new", ""))])


def test_the_score_of_verses_reads_them_once_and_not_on_import(monkeypatch):
    asked = []
    monkeypatch.setattr(module, "read", lambda data: asked.append(data) or [Row("1", "Lo", prompt="So")])
    assert module.verses.__module__ == "minippo.corpora.chrf"
    score = against("verses")
    assert asked == [] and score([Answer("So", ("Lo",))]) == score([Answer("So", ("Lo",))]) == [[5]]
    assert asked == ["verses"]
