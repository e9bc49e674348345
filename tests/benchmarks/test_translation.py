"""chrF and BLEU of models on held-out rows: what is answered, what is counted, what is refused."""

import json
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from benchmarks import translation
from minippo import data, policy
from minippo.corpora.read import read
from minippo.run.errors import UserError
from minippo.run.exits import launch
from minippo.tokenizer import Tokenizer
from minippo.tokens import PAD
from tests.tools.folders import put


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [{"prompt": f"old word {i}\n", "text": f"new word {i}"} for i in range(100, 500)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    tokenizer = Tokenizer.train([line["prompt"] + line["text"] for line in lines], 300)
    for name in ("one", "three"):
        put(tmp_path / name, "pretrain", tokenizer)
    return translation.Config(models=("one", "three"), data="pairs.jsonl", length=6, precision="fp32")


def held_out():
    return data.split(read("pairs.jsonl"))["test"]


def test_greedy_answers_do_not_depend_on_the_seed_and_sampled_ones_do(config):
    rows = held_out()
    greedy, sampled = (translation.answers(config, "one", rows, top_k)[0] for top_k in (1, 0))
    config.seed = 1
    assert translation.answers(config, "one", rows, 1)[0] == greedy
    assert translation.answers(config, "one", rows, 0)[0] != sampled


def test_every_row_is_answered_in_order_and_the_share_that_ends_is_counted(config, monkeypatch):
    monkeypatch.setattr(translation, "AT_ONCE", 2)   # the last part is a rest
    rows = held_out()[:5]

    def generate(lm, query, *others, **how):   # the prompt, and an end in the first row of each part
        response = F.pad(torch.where(query == lm.end, PAD, query), (0, 1), value=PAD)
        response[0, -1] = lm.end
        return response

    monkeypatch.setattr(translation, "generate", generate)
    texts, ended = translation.answers(config, "one", rows, 1)
    assert len(texts) == 5 and ended == [True, False, True, False, True]
    assert texts == [row.prompt for row in rows]


def test_the_best_of_several_is_the_one_that_ends_with_the_highest_score(config, monkeypatch):
    monkeypatch.setattr(translation, "BEST_OF", 3)
    rows, draws = held_out()[:2], iter(range(300, 310))

    def generate(lm, query, *others, **how):   # three to each prompt, one token; only the third does not end
        assert len(query) == 3
        drawn = torch.tensor([[next(draws), lm.end] for _ in query])
        return drawn.masked_fill(torch.tensor([[False, False], [False, False], [False, True]]), 5)

    class Score(torch.nn.Module):   # the higher the token the better
        def forward(self, query, response):
            return response[:, 0].float()

    monkeypatch.setattr(policy, "generate", generate)
    monkeypatch.setattr(translation, "AT_ONCE", 3)
    monkeypatch.setattr(Tokenizer, "decode", lambda self, row: row[0].item())
    assert translation.answers(config, "one", rows, 0, Score()) == ([301, 304], [True, True])


def test_the_true_text_itself_has_100_of_both(config, monkeypatch, capsys):
    pytest.importorskip("sacrebleu")
    monkeypatch.setattr(translation, "answers", lambda config, name, rows, top_k: (
        [row.text if name == "one" else "nothing of it" for row in rows], [True, False, True]))
    config.data, config.count = "long.jsonl", 3
    lines = [{"prompt": f"{i}\n", "text": f"a text of five words {i}"} for i in range(300)]
    Path("long.jsonl").write_text("\n".join(map(json.dumps, lines)))
    translation.main(config)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "| model |  | chrF | BLEU | words | ended |"
    assert printed[2].startswith("| the prompt itself |  | ") and printed[2].endswith(" | 1.0 |  |")
    assert printed[3] == "| one | greedy | 100.00 | 100.00 | 6.0 | 67% |"
    assert float(printed[5].split(" | ")[3]) < 20
    assert printed[-1] == "3 rows; the true texts have 6.0 words"


def test_pairs_are_the_true_text_against_an_answer_that_ended_and_is_another(config, monkeypatch, capsys):
    def answers(config, name, rows, top_k):
        assert (name, top_k) == ("one", 0)
        texts = ["", rows[1].text, *(f"made {i}" for i in range(2, len(rows)))]
        return texts, [i != 2 for i in range(len(rows))]
    monkeypatch.setattr(translation, "answers", answers)
    config.pairs = "true.jsonl"
    translation.main(config)
    parts = data.split(read("pairs.jsonl"))
    rated = parts["reward"] + parts["judge"]   # what PPO's prompts and the figures come from is not among it
    written = [(row.prompt, row.text, row.rejected) for row in read("true.jsonl")]
    assert written == [(row.prompt, row.text, f"made {i}") for i, row in enumerate(rated) if i > 2]
    assert f"{len(rated) - 3:,} pairs; 3 of {len(rated):,} answers" in capsys.readouterr().out


def test_without_sacrebleu_or_without_prompts_a_line_says_what_to_do(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", torch)   # anything that can be imported
    Path("texts.txt").write_text("\n".join(f"line {i}" for i in range(300)))
    config.data = "texts.txt"
    with pytest.raises(UserError, match="no row of test has a prompt of its own"):
        translation.main(config)
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(UserError, match="pip install sacrebleu"):
        translation.main(config)


def test_its_flags_are_met_like_everyone_s(config, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", torch)
    with pytest.raises(SystemExit) as left:
        launch(translation.main, translation.Config, "", ["nowhere", "--data", "pairs.jsonl"])
    err = capsys.readouterr().err
    assert left.value.code == 2 and err.count("\n") == 1 and "nowhere" in err
