"""One's own preferences: keys, files that survive, sides without an order, and what the stages make of it."""

import io
import json
import os
import sys
from collections import Counter

import pytest
import torch

import train_reward
from minippo.corpora.read import read
from minippo.corpora.rows import Row
from minippo.data import split
from minippo.run.commands import COMMANDS
from minippo.run.exits import launch
from minippo.run.flags import parse
from minippo.tools import label
from minippo.tools.labels import answers, labellers, pairs
from minippo.tools.labels.answers import Answer
from minippo.tools.labels.taste import Taste, right, spelled

FLAGS = "--model pretrain --data data.csv --device cpu --precision fp32 --response-length 8 --temperature 1.5"


@pytest.fixture
def tell(place, monkeypatch):
    """Types these keys to `minippo label` in a world; without any, its input has ended from the start."""
    def run(*keys, flags=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{key}\n" for key in keys)))
        launch(label.main, label.Config, "", f"{FLAGS} {flags}".split())
    return run


def journal(name="labels"):
    """What was said: the journal without its first line, the settings."""
    with open(f"{name}.answers.jsonl", encoding="utf-8") as file:
        settings, *said = [json.loads(line) for line in file]
    assert settings.keys() == {"settings"}
    return said


def data_file(name="labels"):
    with open(f"{name}.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_label_is_a_command():
    assert "label" in COMMANDS


# ---------------------------------------------------------------- keys

def test_a_letter_and_enter_answer_and_preferences_alone_are_data(tell):
    tell("l", "R", "t", "s", "left", "q", "l")
    said = journal()
    assert [record["answer"] for record in said] == ["left", "right", "tie", "skip", "left"]
    pairs_of_texts = [(r["prompt"], r["chosen"], r["rejected"]) for r in data_file()]
    assert pairs_of_texts == [(said[0]["prompt"], said[0]["left"], said[0]["right"]),
                              (said[1]["prompt"], said[1]["right"], said[1]["left"]),
                              (said[4]["prompt"], said[4]["left"], said[4]["right"])]


def test_another_key_and_enter_alone_answer_nothing(tell, capsys):
    tell("x", "", "7", "l", "q")
    assert [record["answer"] for record in journal()] == ["left"]
    # four times for the first question, once for the second
    assert capsys.readouterr().out.count("l left  r right  t tie  s skip  u undo  q quit > ") == 5


def test_the_end_of_the_input_quits_and_keeps_what_was_said(tell, capsys, monkeypatch):
    tell("l", "t")
    assert [record["answer"] for record in journal()] == ["left", "tie"]
    assert capsys.readouterr().out.endswith("written: labels.jsonl\n")
    monkeypatch.setattr(sys, "stdin", None)   # closed from the start
    launch(label.main, label.Config, "", FLAGS.split())
    assert len(journal()) == 2


def test_a_key_in_another_encoding_is_no_answer(place, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xe9\nl\n"), encoding="utf-8"))
    launch(label.main, label.Config, "", FLAGS.split())
    assert [record["answer"] for record in journal()] == ["left"]


def test_undo_asks_the_same_pair_again(tell, capsys):
    tell("u", "l", "u", "r", "q")
    first, undone, second = journal()
    assert undone == {"answer": "undo"}
    assert first | {"answer": "right"} == second
    assert [row["chosen"] for row in data_file()] == [second["right"]]
    assert capsys.readouterr().out.count("there is nothing to take back") == 1


def test_the_count_is_of_answers_and_skips_are_none(tell):
    tell("s", "t", "s", "l", "r", flags="--count 2")
    assert [record["answer"] for record in journal()] == ["skip", "tie", "skip", "left"]


@pytest.fixture
def type_at(place, monkeypatch):
    """Types chunks at a terminal, each when a key is awaited; `early` is typed while a pair is being made."""
    if not hasattr(os, "openpty"):
        pytest.skip("no pseudo-terminal here")
    ours, theirs = os.openpty()
    before, setcbreak, pair = label.termios.tcgetattr(theirs), label.tty.setcbreak, pairs.Pairs.pair

    def run(*chunks, early=b""):
        waiting = list(chunks)

        def then_type(*given):
            setcbreak(*given)
            os.write(ours, waiting.pop(0))

        def meanwhile(*given):
            os.write(ours, early)
            return pair(*given)
        monkeypatch.setattr(label.tty, "setcbreak", then_type)
        monkeypatch.setattr(pairs.Pairs, "pair", meanwhile)
        with open(theirs, encoding="utf-8") as terminal:
            monkeypatch.setattr(sys, "stdin", terminal)
            launch(label.main, label.Config, "", FLAGS.split())
            assert label.termios.tcgetattr(theirs) == before
        os.close(ours)
        assert waiting == []
        return [record["answer"] for record in journal()]
    return run


def test_on_a_terminal_a_key_is_enough_arrows_too_and_it_is_afterwards_as_before(type_at):
    chunks = [b"r", b"\x1b[D", b"z\x1b[C", b"T", b"u", b"\x1bOD", b"\x1bOC", b"\x04"]
    assert type_at(*chunks) == ["right", "left", "right", "tie", "undo", "left", "right"]


def test_a_key_answers_no_pair_that_is_shown_after_it_was_typed(type_at):
    # of each chunk the first key that is one answers, the others came before the next pair was shown
    chunks = [b"lr", b"zrlt", b"\x1b[D\x1b[C", b"tq", b"q"]
    assert type_at(*chunks, early=b"s") == ["left", "right", "left", "tie"]


def test_an_escape_code_that_is_no_arrow_is_none_of_the_letters_in_it(type_at):
    # F3, F2, Alt-l, Ctrl and the right arrow, Esc alone
    assert type_at(b"\x1bOR", b"\x1bOQ", b"\x1bl", b"\x1b[1;5C", b"\x1b", b"z\x1bOR", b"t", b"q") == ["tie"]


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminal here")
def test_without_termios_a_terminal_takes_a_letter_and_enter(place, monkeypatch):
    ours, theirs = os.openpty()
    monkeypatch.setattr(label, "termios", None)
    with os.fdopen(theirs, encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        os.write(ours, b"l\nq\n")
        launch(label.main, label.Config, "", FLAGS.split())
    os.close(ours)
    assert [record["answer"] for record in journal()] == ["left"]


def test_what_a_model_writes_commands_no_terminal_and_looks_like_no_other_line(tell, monkeypatch, capsys):
    monkeypatch.setattr(pairs.Pairs, "pair", lambda *given: ("a\x1b[2J", "b\r\n  [r] c\x07", "<b>\u202e d"))
    tell("q")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:4] == ["1. a\\x1b[2J ...", "  [l] b\\r\\n  [r] c\\x07", "  [r] <b>\\u202e d"]


# ---------------------------------------------------------------- what survives

def test_the_same_command_goes_on_and_ends_byte_for_byte_as_one_that_was_not_stopped(tell):
    keys = ["l", "r", "t", "l", "s", "r", "l", "r"]
    both = "--choose best --candidates 4"
    tell(*keys, "q", flags=f"--out whole.jsonl {both}")
    for some in (keys[:3], keys[3:4], keys[4:]):
        tell(*some, flags=f"--out parts.jsonl {both}")
    for kind in ("jsonl", "answers.jsonl"):
        with open(f"whole.{kind}", "rb") as one, open(f"parts.{kind}", "rb") as other:
            assert one.read() == other.read()
    assert len({record["prompt"] + record["left"] for record in journal("whole")}) == 8   # none twice


def test_undo_reaches_over_a_restart(tell):
    tell("l", "l")
    tell("u", "u", "r")
    first, _, *undone, again = journal()
    assert undone == [{"answer": "undo"}] * 2 and again == first | {"answer": "right"}
    assert len(data_file()) == 1


def test_a_kill_between_an_undo_and_the_data_leaves_no_answer_that_was_taken_back(tell, place):
    tell("l")
    with open(place / "labels.answers.jsonl", "a", encoding="utf-8") as journal:
        journal.write('{"answer": "undo"}\n')
    tell("q")
    assert data_file() == []


def test_other_settings_than_those_of_the_journal_are_one_line_and_change_nothing(tell, place, capsys):
    (place / "mine.txt").write_text("the soup was\nthe sea\n", encoding="utf-8")
    tell("l")
    before, said = (place / "labels.answers.jsonl").read_bytes(), {
        "--seed 7": "--seed 0, and now it is --seed 7",
        "--choose best": "--choose random, and now it is --choose best",
        "--labeller shorter": "--labeller (none), and now it is --labeller shorter",
        "--prompts mine.txt": "--prompts (none), and now it is --prompts mine.txt",
        "--model reward/../pretrain": "--model pretrain, and now it is --model reward/../pretrain",
        "--data ./data.csv": "--data data.csv, and now it is --data ./data.csv",
        "--temperature 0.5": "--temperature 1.5, and now it is --temperature 0.5",
        "--choose best --reward reward": "--choose random, --reward (none), and now it is --choose best, "
                                         "--reward reward",
        "--candidates 3": "--candidates 16, and now it is --candidates 3",
        "--response-length 9": "--response-length 8, and now it is --response-length 9",
        "--shortest-prompt 3": "--shortest-prompt 2, and now it is --shortest-prompt 3",
        "--longest-prompt 7": "--longest-prompt 8, and now it is --longest-prompt 7"}
    for flags, words in said.items():
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            tell("r", flags=flags)
        assert left.value.code == 2
        assert capsys.readouterr().err == (
            f"error: labels.answers.jsonl: its answers were given with {words}; "
            "go on with what it was, or name another --out\n")
    assert (place / "labels.answers.jsonl").read_bytes() == before
    tell("r", flags="--count 2 --every 1 --precision auto")   # these decide no question
    assert len(journal()) == 2


def test_settings_bind_nobody_before_there_is_an_answer(tell):
    tell("u", "q")
    tell("l", flags="--seed 7")
    assert len(journal()) == 1


def test_a_journal_that_keeps_no_settings_goes_on_with_a_note(tell, place, capsys):
    tell("l", "r")
    path = place / "labels.answers.jsonl"
    older = path.read_bytes().partition(b"\n")[2]
    path.write_bytes(older)
    tell("t", flags="--seed 7")
    assert capsys.readouterr().err.startswith("note: labels.answers.jsonl is of an older version, which")
    assert path.read_bytes().startswith(older) and path.read_bytes().count(b"\n") == 3   # no settings within


def test_a_kill_in_the_middle_of_a_line_loses_that_answer_alone(tell):
    tell("l", "r")
    whole = journal()
    with open("labels.answers.jsonl", "ab") as file:
        file.write(json.dumps(whole[0]).encode()[:40])
    tell("l")
    assert journal()[:2] == whole and len(journal()) == len(data_file()) == 3


def test_a_kill_between_the_two_files_is_made_good_at_the_next_start(tell, monkeypatch):
    tell("l")
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as left:
        def stop(*given):
            raise KeyboardInterrupt
        patch.setattr(answers, "write_atomically", stop)
        tell("r")
    assert left.value.code == 130 and len(journal()) == 1   # at the start already
    with open("labels.answers.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(journal()[0] | {"left": "other"}) + "\n")
    assert len(data_file()) == 1
    tell()
    assert [row["chosen"] for row in data_file()] == [journal()[0]["left"], "other"]


# ---------------------------------------------------------------- sides and choice

def test_of_every_two_pairs_one_is_turned_and_which_one_is_chance():
    sides = [pairs.turned(0, place) for place in range(400)]
    assert [sum(block) for block in zip(sides[0::2], sides[1::2])] == [1] * 200
    assert 75 <= sum(sides[0::2]) <= 125   # 200 fair coins: 100 +- 3.5 deviations of 7.1
    assert sides != [pairs.turned(1, place) for place in range(400)]


@pytest.mark.parametrize("flags", ["--choose random", "--choose best --candidates 3 --reward reward"])
def test_who_always_says_left_prefers_the_first_sampled_or_the_best_in_half_of_the_cases(
        tell, monkeypatch, flags):
    """The reward model of this test scores a response by its place, the last one highest."""
    monkeypatch.setattr("minippo.reward.RewardModel.forward", lambda self, query, response: torch.arange(
        len(response)).float())
    picked, responses = [], pairs.Pairs.responses

    def noted(self, *given):
        texts, scores = responses(self, *given)
        assert len(texts) > 1
        picked.append(texts[int(scores.argmax()) if "best" in flags else 0])
        return texts, scores
    monkeypatch.setattr(pairs.Pairs, "responses", noted)
    tell(*["l"] * 12, flags=f"--count 12 {flags}")
    assert sum(record["left"] == text for record, text in zip(journal(), picked)) == 6


def test_uncertain_takes_the_nearest_scores_best_the_highest_and_ties_are_chance():
    scores = torch.tensor([3.0, 0.0, 9.0, 2.5, -4.0])
    for seed in range(20):
        generator = pairs.seeded(seed)
        assert set(pairs.choose("uncertain", scores, generator)) == {0, 3}   # 0.5 apart
        best, other = pairs.choose("best", scores, generator)
        assert best == 2 and other != 2
    for how in ("uncertain", "best"):
        found = Counter(pairs.choose(how, torch.zeros(3), pairs.seeded(seed)) for seed in range(120))
        assert len(found) == 6 and min(found.values()) >= 5   # 20 each is expected


def test_a_reward_model_chooses_where_it_is_given(tell, monkeypatch):
    def longest(self, query, response):
        return (response != -1).sum(1).float()
    monkeypatch.setattr("minippo.reward.RewardModel.forward", longest)
    drawn, responses = [], pairs.Pairs.responses

    def noted(self, *given):
        drawn.append(responses(self, *given))
        return drawn[-1]
    monkeypatch.setattr(pairs.Pairs, "responses", noted)
    tell("l", "l", "l", "l", flags="--choose best --candidates 6 --reward reward")
    for (texts, scores), record in zip(drawn, journal()):
        highest = {text for text, score in zip(texts, scores) if score == scores.max()}
        assert highest & {record["left"], record["right"]}


def test_no_response_is_empty_and_no_two_are_equal(tell, monkeypatch):
    written = iter([[5, 5], [6, 7], [8, 9], [1, 2]])
    text = {5: "same", 6: " \n", 7: "one", 8: "one", 9: "another"}
    monkeypatch.setattr(pairs, "generate", lambda *given, **more: torch.tensor(next(written))[:, None])
    monkeypatch.setattr("minippo.tokenizer.Tokenizer.decode", lambda self, ids: text.get(int(ids[0]), ""))
    tell("l", flags="--count 1")
    assert {journal()[0]["left"], journal()[0]["right"]} == {"one", "another"}


def test_prompts_of_a_file_are_given_whole(tell, place):
    # as Windows writes it: a mark at the beginning, a carriage return at each end
    (place / "mine.txt").write_bytes(b"\xef\xbb\xbfthe soup was\r\n\r\nwe never liked the old train\r\n")
    tell(*["l"] * 8, flags="--prompts mine.txt --longest-prompt 2")
    assert {record["prompt"] for record in journal()} == {"the soup was", "we never liked the old train"}


# ---------------------------------------------------------------- the small model

def answer(left, right, said, guess=0.5):
    return Answer("p", left, right, said, guess)


def test_the_small_model_sees_words_marks_and_length_and_has_no_side():
    assert spelled("Is it?") == "Is it? _63"
    assert spelled("a b c, d e") == "a b c, d e _44 _over2 _over4"   # 5 words
    given = [answer("is it?", "it is", "left"), answer("it is so", "is it so?", "right"),
             answer("it is", "so it is", "tie")]
    taste = Taste(given)
    assert taste.guess("was it?", "it was") > 0.6
    assert taste.guess("was it?", "it was") + taste.guess("it was", "was it?") == pytest.approx(1)
    shorter = Taste([answer("one two three four five", "one two", "right")] * 3)
    assert shorter.guess("a b c d e f g", "a") < 0.4


def test_without_answers_or_words_seen_twice_it_has_no_opinion_and_ties_and_skips_give_none():
    for given in ([], [answer("a", "b", "left")], [answer("good x", "bad x", "skip")] * 4,
                  [answer("good x", "bad x", "tie")] * 4):
        assert Taste(given).guess("good", "bad") == pytest.approx(0.5, abs=1e-4)


def test_an_answer_is_foreseen_by_what_came_before_it_and_not_by_itself(tell):
    tell("l", "r", "l", "r")
    said = [Answer(**record) for record in journal()]
    assert said[0].guess == 0.5
    assert said[3].guess == Taste(said[:3]).guess(said[3].left, said[3].right)
    assert said[3].guess != Taste(said).guess(said[3].left, said[3].right)


def test_the_report_counts_preferences_alone_and_no_opinion_half(tell, capsys):
    given = [answer("a", "b", "left", 0.9), answer("a", "b", "right", 0.9), answer("a", "b", "tie", 0.9),
             answer("a", "b", "left", 0.5), answer("a", "b", "skip", 0.1), answer("a", "b", "right", 0.1)]
    assert right(given) == [1, 0, 0.5, 1]
    # (1 + 0 + 0.5 + 1) / 4 = 62.5 %, printed to even
    assert label.report(given) == ("5 answers: 2 left, 2 right, 1 tie, 1 skip; a bag of words foresaw 62% of "
                                   "the preferences, 62% of the last 4")
    tell("t", "t", "t", "t", "t", flags="--every 2")
    out = capsys.readouterr().out
    assert [f"{n} answers: 0 left, 0 right, {n} tie" in out for n in (1, 2, 3, 4, 5)] == [
        False, True, False, True, True]   # the last: at the end


# ---------------------------------------------------------------- scripted labellers

@pytest.mark.parametrize("rule, better, worse, equal", [
    ("shorter", "two words", "it is three", "also two"),
    ("actors", "a fine CAST", "a broadcast", "an actress and her performances"),
    ("questions", "why?", "why", "who? me?"),
])
def test_a_rule_prefers_by_its_trait_and_has_no_side(rule, better, worse, equal):
    rule = labellers.labeller(rule)
    assert (rule(better, worse), rule(worse, better), rule(better, equal)) == (1, -1, 0)


def test_the_noisy_one_contradicts_the_shorter_one_in_a_fifth_of_the_cases_whatever_the_order():
    many = [(f"a {i}", f"a b {i}") for i in range(2000)]
    said = Counter(labellers.noisy(*pair) for pair in many)
    assert said.keys() == {1, -1} and 346 <= said[-1] <= 454   # 400 +- 3 deviations of 17.9
    assert all(labellers.noisy(one, other) == -labellers.noisy(other, one) for one, other in many)
    assert labellers.MEANT["noisy"]("a", "a b") == 1 and labellers.noisy("a b", "c d") == 0


def test_a_function_of_one_s_own_answers_first_preferred_left(tell, place):
    (place / "my_rules.py").write_text("def longer(one, other):\n"
                                       "    return (len(one) > len(other)) - (len(one) < len(other))\n")
    try:
        tell(flags="--labeller my_rules:longer --count 12")
    finally:
        sys.modules.pop("my_rules", None)
    said = journal()
    assert len(said) == 12 and {"left", "right"} <= {record["answer"] for record in said}
    assert all(len(row["chosen"]) > len(row["rejected"]) for row in data_file())


# ---------------------------------------------------------------- what the stages make of it

def test_ids_leave_85_percent_to_the_reward_model_and_fill_every_part():
    def parts(count):
        return {part: len(rows) for part, rows in split([Row(id, "-") for id in answers.ids(count)]).items()}
    # of every 20 two are prompts and one is a test; the very first is the judge's: 200 - 1 - 10 * 3
    assert parts(200) == {"reward": 169, "judge": 1, "prompts": 20, "test": 10}
    assert parts(5) == {"reward": 1, "judge": 1, "prompts": 2, "test": 1}
    assert answers.ids(0) == [] and answers.ids(7) == answers.ids(200)[:7]
    assert len(set(answers.ids(500))) == 500


def test_the_reward_model_learns_from_the_file(tell, capsys):
    tell(flags="--labeller shorter --count 40")
    assert [row.rejected for row in read("labels.jsonl")] == [row["rejected"] for row in data_file()]
    arguments = ("--model pretrain --data labels.jsonl --out taste --device cpu --precision fp32 --passes 1 "
                 "--normalize-samples 8 --response-length 8")
    train_reward.main(parse(train_reward.Config, "", arguments.split()))
    err = capsys.readouterr().err
    assert "left out" not in err and "not used" not in err   # every row, every column is used
    assert os.path.exists("taste/model.pt")


# ---------------------------------------------------------------- mistakes

def spoil(place, name, content):
    (place / name).write_bytes(content)


MISTAKES = {
    "--model nothing": "nothing: no trained model here",
    "--out data.csv/labels.jsonl": "data.csv/labels.answers.jsonl: cannot be written",
    "--out labels.csv": "--out labels.csv: name a file that ends in .jsonl",
    "--out a.answers.jsonl": "--out a.answers.jsonl: name a file that ends in .jsonl",
    "--out theirs.jsonl": "--out theirs.jsonl is there and was not written by minippo label",
    "--out other.jsonl": "other.answers.jsonl line 1: no answer of minippo label",
    "--out list.jsonl": "list.answers.jsonl line 2: no answer of minippo label",
    "--out set.jsonl": "set.answers.jsonl line 1: no answer of minippo label",
    "--out twice.jsonl": "twice.answers.jsonl line 2: no answer of minippo label",
    "--out folder.jsonl": "folder.jsonl: a folder, where a file",
    "--prompts nothing.txt": "--prompts nothing.txt: cannot be read",
    "--prompts empty.txt": "--prompts empty.txt: no prompt in it",
    "--prompts blank.txt": "--prompts blank.txt: empty; give a prompt a line",
    "--prompts binary.txt": "--prompts binary.txt, line 1: not UTF-8; write it as UTF-8",
    "--prompts long.txt": "shorten the prompt",
    "--response-length 47": "the response length leaves the model's context no room",
    "--reward reward": "--reward chooses pairs; give --choose",
    "--shortest-prompt 9": "--shortest-prompt 9 is longer than --longest-prompt 8; swap them",
    "--labeller nobody": "--labeller nobody: no such rule; give shorter, actors, questions, noisy",
    "--labeller json:nobody": "--labeller json:nobody: AttributeError",
    "--labeller no_such_module:f": "--labeller no_such_module:f: ModuleNotFoundError",
    "--labeller os:sep": "--labeller os:sep is no function",
    "--labeller os.path:join": "--labeller os.path:join said",
    "--labeller json:loads": "--labeller json:loads: TypeError",
    "--labeller leaves_early:rule": "--labeller leaves_early:rule: SystemExit",
}


@pytest.mark.parametrize("flags", MISTAKES)
def test_a_mistake_is_one_line_that_names_it_and_changes_no_file(tell, place, capsys, flags):
    spoil(place, "theirs.jsonl", b'{"text": "mine"}\n')
    spoil(place, "other.answers.jsonl", b'{"text": "mine"}\n')
    spoil(place, "list.answers.jsonl", b'{"answer": "undo"}\n[1]\n')
    spoil(place, "set.answers.jsonl", b'{"settings": 5}\n')
    spoil(place, "twice.answers.jsonl", b'{"settings": {}}\n{"settings": {}}\n')
    spoil(place, "blank.txt", b"")
    spoil(place, "binary.txt", b"\xff\xfe\x00")
    spoil(place, "empty.txt", b"\n \n")
    spoil(place, "long.txt", b"word " * 200)
    spoil(place, "leaves_early.py", b"def rule(one, other):\n    raise SystemExit(0)\n")
    (place / "folder.jsonl").mkdir()
    (place / "folder.answers.jsonl").write_bytes(b"")
    before = {path.name: path.read_bytes() for path in place.glob("*.*") if path.is_file()}
    with pytest.raises(SystemExit) as left:
        tell("l", "q", flags=flags)
    error = capsys.readouterr().err
    assert left.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    assert MISTAKES[flags] in error
    after = {path.name: path.read_bytes() for path in place.glob("*.*") if path.is_file()}
    assert {name: after[name] for name in before} == before


def test_two_at_once_do_not_mix(tell, capsys):
    pytest.importorskip("fcntl")
    tell("l")
    first = answers.Answers("labels.jsonl", {})
    with pytest.raises(SystemExit) as left:
        tell("r")
    first.close()
    assert left.value.code == 2 and "another run is writing it" in capsys.readouterr().err
    assert len(journal()) == 1


def test_a_model_that_writes_one_thing_only_is_said(tell, monkeypatch, capsys):
    monkeypatch.setattr(pairs, "generate", lambda *given, **more: torch.tensor([[5], [5]]))
    with pytest.raises(SystemExit) as left:
        tell("l")
    assert left.value.code == 2 and "100 prompts without two different responses" in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_what_was_saved_is_whole(tell, monkeypatch, capsys):
    tell("l", "r")

    def full(descriptor):
        raise OSError(28, "No space left on device")
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as left:
        patch.setattr(answers.os, "fsync", full)
        tell("l")
    assert left.value.code == 2 and "cannot be written (No space left on device)" in capsys.readouterr().err
    assert [row["chosen"] for row in data_file()] == [journal()[0]["left"], journal()[1]["right"]]
