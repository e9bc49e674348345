"""Turns and replies: what is kept of a chat, how chats are split, and whom a reply is compared with."""

import json
from collections import Counter

import pytest

from minippo.corpora import chat
from minippo.corpora.read import read
from minippo.data import split
from minippo.run.errors import UserError
from tests.corpora.packages import like, real, wheel


def said(*texts, sender="someone"):
    return [{"text": text, "timestamp": "2018-05-02T19:38:15Z", "sender": sender} for text in texts]


@pytest.fixture
def chats(internet, tmp_path, monkeypatch):
    """A function: the rows of these chats, {name: turns}."""
    def rows(found):
        found = {name: {"messages": turns, "start": "2018", "prompt": "What?", "ratings": {"witty": 5}}
                 for name, turns in found.items()}
        content = wheel(**{chat.FILE: json.dumps(found)})
        internet.files[chat.WHEEL.file] = content
        monkeypatch.setattr(chat, "WHEEL", like(chat.WHEEL, content))
        return read("chat", tmp_path)
    return rows


@pytest.fixture
def unsplit(monkeypatch):
    """All rows in one part."""
    monkeypatch.setattr(chat, "split", lambda rows: {"all": list(rows)})


def test_a_turn_is_the_prompt_and_what_follows_it_the_reply(chats, unsplit):
    rows = chats({"a": [said("Hello", "How are  you?"), said("im good\n", "YOU?"), said("me too", "thanks")],
                  "b": [said("what a day"), said("tell me"), said("nothing then")]})
    assert [(row.id, row.prompt, row.text, row.group, row.votes) for row in rows] == [
        ("chat-a-0", "hello how are you?\n", "im good you?", "a", ()),
        ("chat-a-1", "im good you?\n", "me too thanks", "a", ()),
        ("chat-b-0", "what a day\n", "tell me", "b", ()),
        ("chat-b-1", "tell me\n", "nothing then", "b", ())]


def test_senders_and_times_are_in_no_row(chats, unsplit):
    rows = chats({"a": [said("hello there"), said("hi there", sender="someone else")]})
    assert "someone" not in repr(rows) and "2018" not in repr(rows)


@pytest.mark.parametrize("turn, kept", [
    ("two words", True), ("word", False), ("", False),
    (" ".join(["w"] * 20), True), (" ".join(["w"] * 21), False),
    ("abcdefghij " * 9 + "abcdefghij", True), ("abcdefghij " * 9 + "abcdefghijk", False),   # 109, 110 letters
    ("it is at http://here", False), ("it is at www.here", False), ("it is at here.com", False),
    ("we saw dot.comics", True), ("write to me@home", False), ("call 5550123 now", False),
    ("call 555012 now", True), ("oh " + "h" * 24, True), ("oh " + "h" * 25, False), ("a caf\u00e9", False),
])
def test_turns_that_are_not_for_a_model_are_left_out(turn, kept):
    assert chat.fits(turn) == kept


def test_a_turn_that_is_left_out_is_neither_prompt_nor_reply(chats, unsplit):
    rows = chats({"a": [said("hello there"), said("hi"), said("how are you"), said("very well")]})
    assert [(row.prompt, row.text) for row in rows] == [("how are you\n", "very well")]


def test_the_same_turn_with_the_same_reply_is_one_row_and_with_others_several(chats, unsplit):
    rows = chats({"a": [said("hello there"), said("hi there")], "b": [said("hello there"), said("hi there")],
                  "c": [said("hello there"), said("oh hello")]})
    assert [(row.group, row.text) for row in rows] == [("a", "hi there"), ("c", "oh hello")]


MANY = {f"chat {i}": [said(f"turn {i} {j}") for j in range(2 + i % 5)] for i in range(400)}


def test_a_chat_stays_in_one_part_and_so_do_the_replies_of_its_rejected_side(chats):
    rows = chats(MANY)
    parts = split(rows)
    assert [row for part in parts.values() for row in part] == rows
    assert len(rows) == 1200   # 1, 2, 3, 4 or 5 pairs a chat
    names = [{row.group for row in part} for part in parts.values()]
    assert sum(map(len, names)) == len(set().union(*names)) == 400
    for part in parts.values():
        # every reply once chosen and once rejected, never in its own chat
        assert Counter(row.text for row in part) == Counter(row.rejected for row in part)
        assert not [row for row in part if row.rejected.split()[1] == row.group.split()[1]]


def test_the_pairs_do_not_depend_on_anything_but_the_file(chats):
    assert chats(MANY) == chats(MANY)


def test_without_a_network_the_chats_are_an_error_in_one_line(tmp_path, offline):
    with pytest.raises(UserError, match=r"cannot get the chats \(no network\): try again with a network"):
        read("chat", tmp_path)


@pytest.mark.slow
def test_the_real_chats_are_61422_pairs_that_share_no_chat_between_parts(offline):
    rows = real("chat")
    # of 62,784 different pairs of 2 to 20 ASCII words without "http"; 110 characters, words of 25 letters,
    # other links, addresses and numbers of 7 digits cost 1,362
    assert len(rows) == len({row.id for row in rows}) == len({row.texts for row in rows}) == 61422
    assert {name: len(part) for name, part in split(rows).items()} == {
        "reward": 36991, "judge": 18583, "prompts": 4065, "test": 1783}
    chats = {row.text: set() for row in rows}
    for row in rows:
        chats[row.text].add(row.group)
    own = [row for row in rows if row.group in chats[row.rejected]]
    assert sum(row.text == row.rejected for row in rows) == 1
    assert len(own) < 0.02 * len(rows)   # "that's cool" was said in many a chat
