"""Ctrl-C, SIGTERM and SIGHUP wait until an iteration has ended."""

import os
import signal
from contextlib import contextmanager, suppress

from minippo.run import parallel

HANGUP = getattr(signal, "SIGHUP", None)   # a closed terminal; Windows has none
STOPPING = [number for number in (signal.SIGINT, signal.SIGTERM, HANGUP) if number]


def heeded():
    """The signals that stop a script: not those that are ignored (in the background, under nohup)."""
    return [number for number in STOPPING if signal.getsignal(number) != signal.SIG_IGN]


def stop_as_ctrl_c():
    """SIGTERM and SIGHUP raise KeyboardInterrupt too; SIGHUP once: a closed terminal sends it twice."""
    for number in heeded():
        if number != signal.SIGINT:
            signal.signal(number, hang_up if number == HANGUP else signal.default_int_handler)


def hang_up(number, frame):
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextmanager
def deferred_signals():
    """Signals that stop are noted in the list given; a second one acts at once.

    But for SIGHUP: a terminal that is closed sends it twice, from the shell and from the system.
    """
    noted = []

    def note(number, frame):
        if noted and number != HANGUP:
            raise KeyboardInterrupt
        if not noted and not parallel.silent():
            with suppress(OSError):   # nobody may be there to read it
                os.write(2, b"\nstopping after this iteration; once more stops at once, without saving\n")
        noted.append(number)

    before = {number: signal.signal(number, note) for number in heeded()}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            gone = number == HANGUP and HANGUP in noted
            signal.signal(number, signal.SIG_IGN if gone else handler)
