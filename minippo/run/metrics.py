"""metrics.jsonl, one JSON object per iteration, and the line that tells a person how far it is."""

import json
import math
import os
import sys
import time
from pathlib import Path

from minippo.run.errors import UserError
from minippo.run.files import open_own, unwritable


class Metrics:
    """A run's record: the file stays open until `close`.

    folder   metrics.jsonl is written there
    total    iterations of the whole run
    shown    what the progress line shows: {label: key of the statistics}
    """

    def __init__(self, folder, total, shown):
        self.path = Path(folder) / "metrics.jsonl"
        self.total, self.shown = total, shown
        self.begin = self.done = 0
        self.before, self.printed = 0.0, -10.0   # seconds
        self.file = open_own(self.path)
        self.events = None   # a SummaryWriter, with --tensorboard
        self.start = self.last = time.perf_counter()
        self.terminal = sys.stderr.isatty()

    def state_dict(self):
        """How far the record is, and that far it is on the disk."""
        os.fsync(self.file.fileno())
        if self.events:
            self.events.flush()
        return {"bytes": self.file.tell(), "iterations": self.done, "seconds": self.elapsed()}

    def clear(self):
        """Begin the record anew."""
        self.load_state_dict({"bytes": 0, "iterations": 0, "seconds": 0.0})

    def load_state_dict(self, state):
        """Cut the record back to a state; what was written after it is done again."""
        if self.path.stat().st_size < state["bytes"]:
            raise UserError(f"{self.path}: shorter than state.pt says; "
                            "begin again with --overwrite")
        self.file.truncate(state["bytes"])
        self.begin = self.done = state["iterations"]
        self.before = state["seconds"]
        self.start = self.last = time.perf_counter()

    def elapsed(self):
        """Seconds up to the last record, those before a stop included."""
        return self.before + self.last - self.start

    def log(self, iteration, stats, tokens):
        """Record iteration number `iteration` (from 0), which worked through so many tokens."""
        now, self.done = time.perf_counter(), iteration + 1
        took, self.last = now - self.last, now
        speed = {"time/seconds": self.elapsed(), "time/tokens_per_second": tokens / took}
        row = {"iteration": iteration, **stats, **speed}
        row = {key: x if math.isfinite(x) else None for key, x in row.items()}   # JSON has no inf
        line = json.dumps(row) + "\n"
        try:
            self.file.write(line.encode())
            self.file.flush()
        except OSError as error:
            raise unwritable(self.path, error) from None
        if self.events:
            for key in [key for key in row if key != "iteration"]:
                self.events.add_scalar(key, math.nan if row[key] is None else row[key], iteration)
        if self.terminal or self.done == self.total or now - self.start - self.printed >= 10:
            self.printed = now - self.start
            self.show(stats, tokens / took)

    def show(self, stats, rate):
        """The progress line: rewritten in place on a terminal, a line of its own elsewhere."""
        each = (self.last - self.start) / (self.done - self.begin)
        values = "  ".join(f"{label} {stats[key]:.3f}" for label, key in self.shown.items())
        begin = "\r\033[K" if self.terminal else ""
        end = "\n" if self.done == self.total or not self.terminal else ""
        left = clock(each * (self.total - self.done))
        write = getattr(sys.stderr, "write_codes", sys.stderr.write)   # a Screen shows codes as letters
        write(f"{begin}{self.done:>6}/{self.total}  {values}  {rate:,.0f} tokens/s  {left} left{end}")
        sys.stderr.flush()

    def close(self):
        self.file.close()


def clock(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
