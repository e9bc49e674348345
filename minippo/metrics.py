"""metrics.jsonl, one JSON object per iteration, and the line that tells a person how far it is."""

import json
import sys
import time
from pathlib import Path


class Metrics:
    """A run's record.

    folder   metrics.jsonl is written there
    total    iterations to come
    shown    what the progress line shows: {label: key of the statistics}
    """

    def __init__(self, folder, total, shown):
        self.path = Path(folder) / "metrics.jsonl"
        self.total, self.shown = total, shown
        self.file = open(self.path, "w", encoding="utf-8")
        self.start = self.last = time.perf_counter()
        self.printed = -10.0
        self.terminal = sys.stderr.isatty()

    def log(self, iteration, stats, tokens):
        """Record iteration number `iteration` (from 0), which worked through so many tokens."""
        now = time.perf_counter()
        elapsed, took, self.last = now - self.start, now - self.last, now
        done = iteration + 1
        left = elapsed / done * (self.total - done)
        speed = {"time/seconds": elapsed, "time/tokens_per_second": tokens / took}
        self.file.write(json.dumps({"iteration": iteration, **stats, **speed}) + "\n")
        self.file.flush()
        if self.terminal or done == self.total or elapsed - self.printed >= 10:
            self.printed = elapsed
            values = "  ".join(f"{label} {stats[key]:.3f}" for label, key in self.shown.items())
            rate = f"{tokens / took:,.0f} tokens/s  {clock(left)} left"
            begin = "\r\033[K" if self.terminal else ""
            end = "\n" if done == self.total or not self.terminal else ""
            print(f"{begin}{done:>6}/{self.total}  {values}  {rate}",
                  end=end, file=sys.stderr, flush=True)

    def close(self):
        self.file.close()


def clock(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
