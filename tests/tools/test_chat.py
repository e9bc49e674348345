"""Lines in, answers out: from a pipe, on a terminal, and how it ends."""

import io
import signal
import subprocess
import sys
import time

import pytest

from minippo.run.errors import UserError
from minippo.run.exits import launch
from minippo.tokenizer import Tokenizer
from minippo.tools import chat
from minippo.tools.chat import Config, main
from minippo.tools.shared.writing import Writer, writers
from tests.outside import environment
from tests.robustness.posix import posix
from tests.tools.folders import put

BYTES = Tokenizer.train([], 257)   # each byte is a token


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of models by name: two of stage 1, and a reward model."""
    root = tmp_path_factory.mktemp("models")
    for name, stage in [("one", "pretrain"), ("other", "pretrain"), ("reward", "reward")]:
        put(root / name, stage, BYTES)
    return root


@pytest.fixture
def here(folders, monkeypatch):
    monkeypatch.chdir(folders)


def config_of(model="one", **flags):
    return Config(**{"model": model, "device": "cpu", "precision": "fp32", "length": 12} | flags)


class Typed(io.TextIOWrapper):
    """A terminal, or a pipe, through which these bytes come."""

    def __init__(self, content, terminal):
        super().__init__(io.BytesIO(content))
        self.isatty = lambda: terminal


def typed(monkeypatch, content, terminal=False):
    monkeypatch.setattr(sys, "stdin", Typed(content, terminal))


@pytest.fixture
def echo(monkeypatch):
    """A model that answers with its prompt, in two pieces, and scores it by its length."""
    def pieces(self, query):
        text = BYTES.decode(query)
        yield text[:2]
        yield text[2:]
        return float(len(text)) if self.reward else None
    monkeypatch.setattr(Writer, "pieces", pieces)


def test_from_a_pipe_a_line_is_answered_by_a_line(here, echo, monkeypatch, capsys):
    typed(monkeypatch, b"the sea\r\n\nthe sun")   # a line may be empty, and the last may lack its end
    main(config_of())
    assert capsys.readouterr() == ("the sea\n\nthe sun\n", "")


def test_what_the_command_answers_is_what_the_model_writes_draw_after_draw(here, monkeypatch, capsys):
    typed(monkeypatch, b"a\na")
    main(config_of(reward="reward"))
    writer = writers(config_of(reward="reward"))[0]
    found = [writer.answers([[BYTES.end, *BYTES.encode("a")]])[0] for _ in range(2)]
    assert found[0] != found[1]
    shown = "".join(text.replace("\n", "\\n") + f" ({score:+.2f})\n" for text, score in found)
    assert capsys.readouterr().out == shown


def test_several_models_answer_side_by_side_each_with_its_score(here, echo, monkeypatch, capsys):
    typed(monkeypatch, b"abc")
    main(config_of("one,other", reward="reward"))
    assert capsys.readouterr().out == "one   |abc (+3.00)\nother |abc (+3.00)\n"


def test_after_a_line_comes_what_the_model_was_trained_on(here, echo, monkeypatch, capsys):
    typed(monkeypatch, b"hello")
    main(config_of(after="\\n"))
    assert capsys.readouterr().out == "hello\\n\n"   # the prompt ends in a new line, shown in letters


def test_on_a_terminal_a_sign_stands_before_each_line_and_ctrl_d_ends_it(here, echo, monkeypatch, capsys):
    typed(monkeypatch, b"a\nb\n", terminal=True)
    main(config_of())
    assert capsys.readouterr().out == (
        "Each line is answered for itself; /quit or Ctrl-D ends.\n> a\n> b\n> \n")


@pytest.mark.parametrize("terminal", [True, False])
def test_quit_ends_it(here, echo, monkeypatch, capsys, terminal):
    typed(monkeypatch, b"a\n/quit\nb\n", terminal)
    main(config_of())
    assert capsys.readouterr().out.endswith("> a\n> " if terminal else "a\n")


@pytest.mark.parametrize("line, words", [
    (b"caf\xe9", "not UTF-8 from byte 3 on; write it as UTF-8"),
    (b"w" * 40, "has 41 tokens and --length asks for 12 more|context of 48|shorten"),
    (b"w" * 2**17, "has 65537 tokens|shorten"),   # no more than that is read at once
])
def test_a_line_that_is_no_prompt_ends_a_pipe_and_on_a_terminal_the_next_is_asked_for(
        here, echo, monkeypatch, capsys, line, words):
    typed(monkeypatch, b"a\n" + line + b"\nb\n")
    with pytest.raises(UserError) as error:
        main(config_of())
    assert all(word in str(error.value) for word in ("line 2:", *words.split("|"))), error.value
    assert capsys.readouterr().out == "a\n"
    typed(monkeypatch, b"a\n" + line + b"\nb\n", terminal=True)
    main(config_of())
    out, err = capsys.readouterr()
    assert out.endswith("> b\n> \n") and err.startswith("error: line 2: ")


def test_what_would_command_a_terminal_is_shown_in_letters(here, echo, monkeypatch, capsys):
    typed(monkeypatch, "a\x1b]0;b\x07\u202e".encode())
    launch(chat.main, Config, "", ["--model", "one", "--length", "4"])
    assert capsys.readouterr().out == "a\\x1b]0;b\\x07\\u202e\n"


@pytest.mark.parametrize("stdin", [None, Typed(b"", False)])
def test_where_nothing_can_be_typed_it_ends_at_once(here, monkeypatch, capsys, stdin):
    monkeypatch.setattr(sys, "stdin", stdin)
    main(config_of())
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("flags, words", [
    ({"model": "nowhere"}, "nowhere: no trained model here"),
    ({"reward": "other"}, "other: holds the model of pretrain.py|train_reward.py"),
])
def test_a_folder_without_a_model_is_named_before_anything_is_asked_for(
        here, monkeypatch, capsys, flags, words):
    typed(monkeypatch, b"a", terminal=True)
    with pytest.raises(UserError) as error:
        main(config_of(**flags))
    assert all(word in str(error.value) for word in words.split("|"))
    assert capsys.readouterr().out == ""


def test_ctrl_c_ends_it_without_a_word(here, monkeypatch, capsys):
    def pieces(self, query):
        yield "be"
        raise KeyboardInterrupt
    monkeypatch.setattr(Writer, "pieces", pieces)
    typed(monkeypatch, b"a\nb")
    with pytest.raises(SystemExit) as left:
        launch(chat.main, Config, "", ["--model", "one", "--length", "4"])
    assert left.value.code == 130 and capsys.readouterr() == ("be\n", "")   # the line is ended


@posix
@pytest.mark.slow
def test_an_answer_comes_before_the_next_line_is_there_and_a_signal_ends_the_waiting(folders):
    command = [sys.executable, "-m", "minippo", "chat", "--model", "one", "--length", "4", "--device", "cpu"]
    with subprocess.Popen(command, cwd=folders, env=environment(), stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        child.stdin.write(b"a\n")
        child.stdin.flush()
        assert child.stdout.readline().endswith(b"\n")   # it waits for the second line now
        child.send_signal(signal.SIGTERM)
        begin = time.monotonic()
        _, err = child.communicate(timeout=60)
        assert (child.returncode, err) == (130, b"") and time.monotonic() - begin < 30
