"""The one error that scripts turn into a message instead of a traceback."""

import sys


class UserError(ValueError):
    """A mistake that a user can fix: what is wrong, where, and what to do, on one line.

    Scripts print the text and leave with status 2. Whatever spans several lines (the output of
    another program, a strange file name) is folded into one.
    """

    def __init__(self, message):
        super().__init__(" ".join(str(message).split()))


def complain(message, status=2):
    """One line on stderr, the middle of a very long one left out; returns the exit status."""
    line = " ".join(str(message).split())
    line = line if len(line) <= 1000 else f"{line[:500]} ... {line[-500:]}"
    print("error:", line, file=sys.stderr)
    return status
