"""The one error that scripts turn into a message instead of a traceback, and what a message may hold."""

import sys

# Controls but newline and tab: C0, DEL, C1, and what turns the direction of letters (Unicode's bidi)
CONTROLS = (*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
LETTERS = {code: repr(chr(code))[1:-1] for code in CONTROLS}   # escape: the four letters \x1b


class UserError(ValueError):
    """A mistake that a user can fix: what is wrong, where, and what to do, on one line.

    Scripts print the text and leave with status 2. Whatever spans several lines (the output of
    another program, a strange file name) is folded into one.
    """

    def __init__(self, message):
        super().__init__(" ".join(str(message).split()))


def printable(text):
    """The text, its control characters written in letters: a terminal would obey them."""
    return text.translate(LETTERS)


def complain(message, status=2):
    """One line on stderr, the middle of a very long one left out; returns the exit status."""
    line = printable(" ".join(str(message).split()))
    line = line if len(line) <= 1000 else f"{line[:500]} ... {line[-500:]}"
    print("error:", line, file=sys.stderr)
    return status
