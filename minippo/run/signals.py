"""Ctrl-C and SIGTERM wait until an iteration has ended."""

import os
import signal
from contextlib import contextmanager


@contextmanager
def deferred_signals():
    """Ctrl-C and SIGTERM are noted in the list given; a second one acts at once.

    One that is ignored (of a job in the background) stays so.
    """
    noted = []

    def note(number, frame):
        if noted:
            raise KeyboardInterrupt
        noted.append(number)
        os.write(2, b"\nstopping after this iteration; once more stops at once\n")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)
              if signal.getsignal(number) != signal.SIG_IGN}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
