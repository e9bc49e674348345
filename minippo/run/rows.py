"""Rows that were read and cannot be used: counted on stderr, with the place of the first."""

import sys

from minippo.data import Prompts
from minippo.run.errors import UserError

ONE_IN = 10   # more than one row in so many is no slip: refused


def note(places, total, what):
    """On stderr, of how many rows (where each stands, of so many) something is true; nothing for none."""
    if places:
        print(f"note: {len(places):,} of {total:,} rows {what}; the first: {first(places)}", file=sys.stderr)


def first(places):
    """The first of some places: those in one file differ in the number of the line alone."""
    return min(places, key=lambda place: (len(place), place))


def place(row):
    """Where a row stands, or the beginning of its text if it was not read from a file."""
    return row.where or repr((row.prompt or row.text)[:40])


def fitting(parts, tokenizer, **rooms):
    """Leaves out the rows whose own prompts are too long for a model, and says so.

    parts    rows by part, see data.split
    rooms    of each part that a stage uses: how many tokens a prompt and what follows may have
    Returns  those parts, a dict
    Raises   UserError, naming a row and its place, if more than a tenth would go, or all of a part
    """
    kept, long, why = {name: [] for name in rooms}, [], {}
    for name, room in rooms.items():
        for row in parts[name]:
            length = 1 + len(tokenizer.encode(row.prompt)) if row.prompt else 0   # the end token before it
            if row.prompt and length >= room:
                long.append(place(row))
                why[place(row)] = f"has a prompt of {length} tokens, and room is for {room - 1}"
            else:
                kept[name].append(row)
    total = sum(len(parts[name]) for name in rooms)
    if len(long) * ONE_IN > total or any(parts[name] and not kept[name] for name in rooms):
        raise UserError(f"{first(long)} {why[first(long)]}: one of {len(long):,} rows of {total:,}, too many "
                        "to leave out; shorten the prompts, or pretrain with a larger --context, or lower "
                        "--response-length")
    note(long, total, "left out, their prompts are too long for the model")
    return kept


def prompts(parts, tokenizer, room, shortest, longest):
    """Prompts that fit: of the part "prompts", which PPO learns from, and of "test", which it never sees."""
    parts = fitting(parts, tokenizer, prompts=room, test=room)
    return [Prompts(part, tokenizer, shortest, longest, room) for part in parts.values()]


def note_long_texts(examples, end, context):
    """On stderr, how many of the examples had to be cut off: they do not close with the end."""
    if long := sum(response[-1] != end for _, response in examples):
        print(f"note: {long:,} of {len(examples):,} texts do not fit into --context {context} "
              "tokens and are cut off there", file=sys.stderr)


def note_unused(parts, end, context, *comparisons):
    """Says how many rows are in none of the Comparisons that were made of these parts, and why; and what of
    these is cut off, end and context of the model given."""
    rows = [row for part in parts.values() for row in part]
    unrated = [place(row) for row in rows if not (row.votes or row.rejected)]
    note(unrated, len(rows), "not used here, they have no rating or label")
    used = {id(row) for some in comparisons for row in some.given or some.rated}
    equal = [place(row) for row in rows if row.rejected and id(row) not in used]
    note(equal, len(rows), "left out, their chosen and rejected are equal in what fits into --context")
    note_long_texts([example for some in comparisons for example in some.examples], end, context)
