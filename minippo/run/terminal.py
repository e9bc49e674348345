"""What people read: no text commands their terminal, and output that cannot be written stops no work."""

import os
import sys
from contextlib import suppress

from minippo.run.errors import printable


class Screen:
    """stdout or stderr as `print` needs them: all text is made printable, and no error gets out.

    stream   sys.stdout or sys.stderr; None if it was closed from the start
    stops    whether to end with status 141, as by SIGPIPE, when nobody reads on
    muted    whether nothing is shown
    lost     the OSError that kept something from being written, None if there was none; what is
             written after it goes nowhere
    """

    def __init__(self, stream, stops, muted=False):
        if stream is None:   # one that no write can succeed on
            stream = open(os.open(os.devnull, os.O_RDONLY), "w", errors="replace")
        self.stream, self.stops, self.muted, self.lost = stream, stops, muted, None

    def __getattr__(self, name):   # isatty, fileno, encoding, ...
        return getattr(self.stream, name)

    def write(self, text):
        if not self.muted:
            self.attempt(self.stream.write, printable(text))
        return len(text)

    def write_codes(self, text):
        """Text of our own, its control characters as they are."""
        if not self.muted:
            self.attempt(self.stream.write, text)

    def flush(self):
        self.attempt(self.stream.flush)

    def attempt(self, action, *given):
        try:
            action(*given)
        except OSError as error:
            self.lost = error
            silence(self.stream)
            if self.stops and isinstance(error, BrokenPipeError):
                sys.exit(141)


def silence(stream):
    """What waits in the stream's buffer, and what is written from here on, goes nowhere."""
    with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
