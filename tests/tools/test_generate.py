"""Texts of models: at once, or each as it comes; prompts from a flag, a file or a pipe; what is no prompt."""

import io
import json
import sys
from types import SimpleNamespace

import pytest
import torch

from minippo.generation import generate as sample_all
from minippo.run import checkpoint
from minippo.run.errors import UserError
from minippo.run.exits import launch
from minippo.tokenizer import Tokenizer
from minippo.tools import generate
from minippo.tools.generate import Config, main, read
from minippo.tools.shared import writing
from minippo.tools.shared.writing import Writer, begun, cut, flat, one_by_one, typed, writers
from tests.tools.folders import put

BYTES = Tokenizer.train([], 257)                       # each byte is a token
PAIRS = Tokenizer.train(["the sea the sun"] * 9, 262)  # five more


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of models by name: two of stage 1, a reward model, and one of each with another tokenizer."""
    root = tmp_path_factory.mktemp("models")
    for name, stage, tokenizer in [("one", "pretrain", BYTES), ("other", "pretrain", BYTES),
                                   ("reward", "reward", BYTES), ("pairs", "pretrain", PAIRS)]:
        put(root / name, stage, tokenizer)
    put(root / "short", "reward", BYTES, context=20)
    return root


@pytest.fixture
def here(folders, monkeypatch):
    monkeypatch.chdir(folders)


def config_of(model="one", **flags):
    return Config(**{"model": model, "device": "cpu", "precision": "fp32", "length": 12} | flags)


def writer_of(reward="", **flags):
    return writers(config_of(reward=reward, **flags))[0]


def written(capsys):
    """The lines on stdout; what splitlines takes for the end of one may stand in a text."""
    return capsys.readouterr().out.removesuffix("\n").split("\n")


def piped(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


# ---------------------------------------------------------------- as it comes

@pytest.mark.parametrize("choice", [(1.0, 0, 1.0), (0.7, 4, 1.0), (1.5, 0, 0.6)])
def test_tokens_one_by_one_are_those_of_generate_by_the_same_draws(lm, query, choice):
    ended = set()
    for seed in range(20):
        one, other = (torch.Generator().manual_seed(seed) for _ in range(2))
        row = sample_all(lm, query[2:], 9, *choice, one)[0].tolist()
        assert list(one_by_one(lm, query[2:], 9, *choice, other)) == row
        assert torch.rand(1, generator=one) == torch.rand(1, generator=other)   # as many draws
        ended.add(row[-1] == lm.end)
    assert ended == {True, False} or choice[1]   # the end is never among the 4 likeliest


def test_what_comes_after_a_prompt_is_read_by_the_model_and_shown_to_no_one(here, capsys):
    assert writer_of(after="\\n").query("hello") == writer_of().query("hello\n")
    main(config_of(prompt="hello", after="\\n", n=1))
    assert written(capsys)[0].startswith("hello |")


@pytest.mark.parametrize("stops", [(), tuple("abcdefghijklmnopqrstuvwxyz"), ("\ufffd", "\\n")])
def test_pieces_joined_are_the_text_and_the_score_of_the_answer(here, stops):
    lengths, one, other = set(), *(writer_of(reward="reward", stop=stops) for _ in range(2))
    for seed in range(20):
        one.generator.manual_seed(seed), other.generator.manual_seed(seed)
        (text, score), = one.answers([[BYTES.end, 5, 6]])
        pieces, found = [], other.pieces([BYTES.end, 5, 6])
        with pytest.raises(StopIteration) as done:
            while True:
                pieces.append(next(found))
        assert "".join(pieces) == text and done.value.value == pytest.approx(score, abs=1e-5)
        lengths.add(len(text))
    assert len(lengths) > 2


def streamed(monkeypatch, text, **flags):
    """The pieces in which a model shows a text (bytes) that it writes."""
    tokens = [token for byte in text for token in [BYTES.bpe.token_to_id(byte_letter(byte))]]
    monkeypatch.setattr(writing, "one_by_one", lambda *given: iter(tokens))
    return list(writer_of(**flags).pieces([BYTES.end]))


def byte_letter(byte):
    """How a byte-level BPE calls a byte: itself if it is a letter to see, else one from 256 on."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return chr(byte) if byte in seen else chr(256 + [b for b in range(256) if b not in seen].index(byte))


def test_a_character_is_shown_when_its_last_byte_has_come(here, monkeypatch):
    # 1, 3 and 4 bytes
    assert streamed(monkeypatch, "a\u4f60\U0001f642b".encode()) == [
        "a", "", "", "\u4f60", "", "", "", "\U0001f642", "b", ""]


def test_bytes_that_never_become_a_character_are_shown_as_such_and_hold_nothing_up(here, monkeypatch):
    assert streamed(monkeypatch, b"a\xe4\xbd!") == ["a", "", "", "\ufffd!", ""]
    assert streamed(monkeypatch, b"a\xe4\xbd") == ["a", "", "", "\ufffd"]   # the text ends in half of one


def test_nothing_of_a_stop_is_shown_and_nothing_is_sampled_after_it(here, monkeypatch):
    assert streamed(monkeypatch, b"one. Two", stop=(". T",)) == ["o", "n", "e", "", "", ""]
    assert streamed(monkeypatch, b"1. 2. T", stop=(". T",)) == ["1", "", "", ". 2", "", "", ""]
    assert streamed(monkeypatch, b"a.", stop=(". T",)) == ["a", "", "."]   # it never came


@pytest.mark.parametrize("text, stops, left, held", [
    ("a b, c. d", [",", "."], "a b", 0),     # the first in the text, not in the list
    ("a b", [], "a b", 0),
    ("xab", ["abc"], "xab", 2), ("xabab", ["abac", "bd"], "xabab", 2),
    ("xa", ["abc", "a!"], "xa", 1), (",a", [","], "", 0),
])
def test_where_a_text_is_cut_and_what_of_its_end_may_be_a_stop(text, stops, left, held):
    assert (cut(text, stops), begun(text, stops)) == (left, held)


def test_new_lines_and_tabs_are_typed_and_shown_as_two_letters():
    assert typed("a\\nb\\t") == "a\nb\t" and flat("a\nb\n") == "a\\nb\\n"


# ---------------------------------------------------------------- scores

def test_an_answer_is_scored_as_sampled_and_one_that_was_cut_off_as_ending_there(here, monkeypatch):
    seen = []

    def score(query, response):
        seen.extend(response.tolist())
        return torch.zeros(len(query))
    writer = writer_of(stop=("!",))
    writer.reward = score
    rows = [BYTES.encode("so "), BYTES.encode("a!b"), [*BYTES.encode("c"), BYTES.end, -1]]
    found = writer.finished(torch.zeros(3, 1).long(), rows)
    assert [text for text, _ in found] == ["so ", "a", "c"]
    assert seen == [rows[0], [*BYTES.encode("a"), BYTES.end, -1], rows[2]]


def test_the_score_is_the_reward_model_s_of_prompt_and_answer(here, capsys):
    main(config_of(prompt="the", n=3, reward="reward"))
    lines = written(capsys)
    writer = writer_of("reward")
    model, _ = checkpoint.load_reward("reward")
    query = [BYTES.end] + BYTES.encode("the")
    rows = sample_all(writer.lm, torch.tensor([query] * 3), 12, 0.8, 0, 1.0, torch.Generator().manual_seed(0))
    scores = model(torch.tensor([query] * 3), rows).tolist()
    assert [line.rsplit(" ", 1)[1] for line in lines] == [f"({score:+.2f})" for score in scores]


# ---------------------------------------------------------------- the command

def test_a_mark_stands_where_the_prompt_ends_and_a_text_is_one_line(here, monkeypatch, capsys):
    monkeypatch.setattr(Writer, "answers", lambda self, queries: [(" sea\n\x1b", None)] * len(queries))
    launch(generate.main, Config, "", ["--model", "one", "--prompt", "the\n", "--n", "2", "--length", "4"])
    assert capsys.readouterr().out == "the\\n | sea\\n\\x1b\n" * 2
    main(config_of(n=1))
    assert capsys.readouterr().out == " sea\\n\x1b\n"   # without a prompt no mark


def test_prompts_come_line_by_line_from_a_file(here, tmp_path, capsys):
    (tmp_path / "prompts").write_bytes("\ufeffthe\r\n\nsea \u4f60\n".encode())   # a mark is no word
    main(config_of(prompts=str(tmp_path / "prompts"), n=2))
    starts = [line.split(" |")[0] for line in written(capsys)]
    assert starts[:2] == ["the"] * 2 and starts[4:] == ["sea \u4f60"] * 2 and len(starts) == 6


def test_prompts_come_from_a_pipe(here, monkeypatch):
    piped(monkeypatch, b"the\nsea")
    assert read(config_of(prompts="-")) == [("the", "--prompts -, line 1:"), ("sea", "--prompts -, line 2:")]


def test_prompts_that_go_in_several_parts_get_the_texts_of_each(here, monkeypatch, capsys):
    shown = []
    for at_once in (4, 256):
        monkeypatch.setattr(generate, "AT_ONCE", at_once)
        piped(monkeypatch, b"a\nb\nc")
        main(config_of(prompts="-", n=2))
        shown.append([line[0] for line in written(capsys)])
    assert shown == [list("aabbcc")] * 2


def test_several_models_stand_side_by_side_and_none_changes_another(here, monkeypatch, capsys):
    def lines(model):
        piped(monkeypatch, b"a\nb")
        main(config_of(model, prompts="-", n=2))
        return written(capsys)
    one, other, both = lines("one"), lines("other"), lines("one, other")
    assert both == [*(f"one    {x}" for x in one[:2]), *(f"other  {x}" for x in other[:2]),
                    *(f"one    {x}" for x in one[2:]), *(f"other  {x}" for x in other[2:])]
    assert one != other


def test_a_line_of_json_holds_whatever_the_text_is(here, monkeypatch, capsys):
    evil = '\n"\x1b\x9b\u202e\u4f60\U0001f642'
    monkeypatch.setattr(Writer, "answers", lambda self, queries: [(evil, 0.5 if self.reward else None)])
    for reward, more in (("reward", {"score": 0.5}), ("", {})):
        flags = ["--model", "one", "--n", "1", "--json", "--prompt", "a" + evil, "--reward", reward,
                 "--length", "3"]
        launch(generate.main, Config, "", flags)   # its Screen writes controls in letters, which JSON has not
        line, = capsys.readouterr().out.splitlines()
        assert json.loads(line) == {"model": "one", "prompt": "a" + evil, "response": evil} | more


class Terminal(io.StringIO):
    def __init__(self, there):
        super().__init__()
        self.isatty, self.writes = lambda: there, 0

    def write(self, text):
        self.writes += bool(text)
        return super().write(text)


@pytest.mark.parametrize("flags, there, comes", [
    ({"n": 1}, True, True), ({"n": 1}, False, False), ({"n": 2}, True, False),
    ({"n": 1, "stream": True}, False, True), ({"n": 1, "json": True}, True, False),
])
def test_one_text_on_a_terminal_comes_token_by_token_and_is_the_same(here, monkeypatch, flags, there, comes):
    config = config_of(prompt="the", reward="reward", **flags)
    terminal = Terminal(there)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        main(config)
    assert (terminal.writes > 5) == comes
    if comes:
        whole = Terminal(False)
        monkeypatch.setattr(sys, "stdout", whole)
        main(config_of(prompt="the", reward="reward", n=1))
        assert whole.getvalue() == terminal.getvalue() and whole.getvalue().startswith("the |")


# ---------------------------------------------------------------- what is no prompt, what is no model

@pytest.mark.parametrize("flags, words", [
    ({"prompt": "w" * 40}, "--prompt has 41 tokens|12 more|one has a context of 48|shorten"),
    ({"prompt": "w" * 9, "reward": "short"}, "--prompt has 10 tokens|short has a context of 20|shorten"),
    ({"prompt": "caf\udce9"}, "--prompt|not UTF-8 from character 3 on|write it as UTF-8"),
    ({"prompts": "nowhere.txt"}, "--prompts nowhere.txt: cannot be read|No such file|name a file"),
    ({"prompts": "."}, "--prompts .: cannot be read|name a file"),
    ({"prompts": "-", "prompt": "a"}, "--prompt and --prompts|give one"),
    ({"stream": True, "json": True}, "--stream|--json|give one"),
    ({"model": "one,one"}, "--model 'one,one': give one folder, or several different ones"),
    ({"model": " , "}, "--model ' , '"),
    ({"model": "one,nowhere"}, "nowhere: no trained model here"),
    ({"reward": "other"}, "other: holds the model of pretrain.py|train_reward.py"),
    ({"model": "one,pairs", "reward": "reward"}, "reward was trained with another tokenizer than pairs"),
])
def test_a_mistake_is_one_line_before_anything_is_written(here, monkeypatch, capsys, flags, words):
    piped(monkeypatch, b"a")
    with pytest.raises(UserError) as error:
        main(config_of(**flags))
    assert all(word in str(error.value) for word in words.split("|")), error.value
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content, words", [
    (b"a\nb\n\xe9\nc", "--prompts -, line 3: not UTF-8|write it as UTF-8"),
    (b"", "--prompts -: empty|give a prompt a line"),
    (b"a\n" + b"w" * 40, "--prompts -, line 2: has 41 tokens"),
])
def test_a_line_that_is_no_prompt_is_named(here, monkeypatch, capsys, content, words):
    piped(monkeypatch, content)
    with pytest.raises(UserError) as error:
        main(config_of(prompts="-"))
    assert all(word in str(error.value) for word in words.split("|")), error.value
    assert capsys.readouterr().out == ""


def test_a_pipe_that_never_ends_is_not_read_for_ever(here, monkeypatch):
    endless = SimpleNamespace(buffer=SimpleNamespace(read=lambda size: b"a" * size))
    monkeypatch.setattr(sys, "stdin", endless)
    with pytest.raises(UserError, match="over 16 MB"):
        read(config_of(prompts="-"))
    monkeypatch.setattr(sys, "stdin", None)   # closed from the start
    with pytest.raises(UserError, match="empty"):
        read(config_of(prompts="-"))
