"""The one error that scripts turn into a message instead of a traceback."""


class UserError(ValueError):
    """A mistake that a user can mend: what is wrong, where, and what to do, on one line.

    Scripts print the text and leave with status 2. Whatever spans several lines (the output of
    another program, a strange file name) is folded into one.
    """

    def __init__(self, message):
        super().__init__(" ".join(str(message).split()))
