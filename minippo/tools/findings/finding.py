"""What a finding is, a run as findings see it, and the findings of any stage and of stages 1 and 2.

Those of stage 3 stand in causes.py and symptoms.py. To add one: a function Seen -> evidence, or None, and a
Finding with it in the list of its file, at the place that its gravity asks for: the first that fits is named
first. A test looks at the record alone, never at the flags: a flag says what was asked for, a curve what came
of it. Limits are reasoned, and each test says how.
"""

import math
from dataclasses import dataclass, field
from statistics import fmean as mean
from statistics import stdev
from typing import NamedTuple

MANY = 10   # iterations; a trend over fewer, or a mean over fewer, is mostly noise


class Finding(NamedTuple):
    name: str
    test: object   # Seen -> a line of evidence with the numbers, or None
    why: str
    do: str        # names flags; doctor adds what they were


@dataclass
class Seen:
    """A run as its folder shows it: rows of metrics.jsonl, what comparison.json holds, and how it stands."""
    rows: list
    figures: dict
    held_out: dict = field(default_factory=dict)   # what calibration.json holds
    finished: bool = True
    broken_off: bool = False   # neither finished, nor going on, nor stopped with its state saved
    decayed: bool = True       # whether the learning rate falls to 0 (--schedule constant: it does not)

    def column(self, key, rows=None):
        """The finite numbers of a key, a list; one NaN if there are none."""
        rows = self.rows if rows is None else rows
        return [row[key] for row in rows if row.get(key) is not None] or [math.nan]

    def part(self, first, last):
        """The rows from one share of the run to another; at least one."""
        n = len(self.rows)
        return self.rows[int(first * n):max(int(last * n), int(first * n) + 1)]

    def start(self, key):
        return mean(self.column(key, self.rows[:1]))

    def early(self, key):
        return mean(self.column(key, self.part(0, 0.25)))

    def late(self, key):
        return mean(self.column(key, self.part(0.75, 1)))

    def change(self, key):
        """Late minus start, and its standard error: the start is a rollout that scatters as late ones do."""
        late = self.column(key, self.part(0.75, 1))
        error = stdev(late) * (1 + 1 / len(late)) ** 0.5 if len(late) > 1 else math.nan
        return mean(late) - self.start(key), error

    @property
    def many(self):
        return len(self.rows) >= MANY


def error_of_mean(numbers):
    return stdev(numbers) / len(numbers) ** 0.5 if len(numbers) > 1 else math.nan


def not_finite(seen):
    """Of the model's numbers: how much memory was taken is none where the system does not say (Windows)."""
    bad = [(row["iteration"], key) for row in seen.rows for key, x in row.items()
           if x is None and not key.startswith(("memory/", "time/"))]
    if bad:
        return f"{bad[0][1]} is NaN or infinite in iteration {bad[0][0]}; so are {len(bad)} numbers in all"


def broke_off(seen):
    if seen.broken_off:
        end = f"ends after iteration {seen.rows[-1]['iteration']}" if seen.rows else "has no iteration"
        return f"the record {end}; the run is not finished, nobody writes it, no state was saved at its end"


# ---------------- stage 2

def no_better_than_chance(seen):
    """Of two texts chance picks the better one every other time. A twentieth more says nothing that PPO
    could follow (two people agree on nine pairs of ten), nor does a standard error if that is larger.

    Noise can be learned by heart, so texts that were not trained on decide once they are measured. Chance's
    share of n pairs has an error of 0.5 / sqrt(n); pairs of few texts say no more than so many texts.
    """
    right, which = seen.column("accuracy/train", seen.part(0.75, 1)), "in the last quarter of the run"
    share, error = mean(right), error_of_mean(right)
    if independent := min(seen.held_out.get(key, 0) for key in ("pairs", "texts")):
        share, error = seen.held_out["accuracy"], 0.5 / independent ** 0.5
        which = f"of {seen.held_out['texts']:,} held-out texts"
    elif not (seen.many and seen.finished):   # it may come late
        return None
    if share < 0.5 + max(0.05, error):
        return f"it orders {share:.1%} ± {error:.1%} of the pairs rightly {which}; chance: 50%"


# ---------------- stage 1

def loss_jumps(seen):
    """The first loss is that of guessing all tokens alike, log V; a fifth more is no noise."""
    losses = seen.column("loss/train")
    if (worst := max(losses)) > 1.2 * losses[0]:
        return (f"the loss jumps to {worst:.2f} nats in iteration {losses.index(worst)}; "
                f"it was {losses[0]:.2f} before the first step")


def loss_does_not_fall(seen):
    """A twentieth: the most frequent tokens alone, learned in the first steps, are worth more."""
    before, after = seen.start("loss/train"), seen.late("loss/train")
    if seen.many and after > 0.95 * before:
        return f"the loss is {after:.2f} nats in the last quarter of the run; it began at {before:.2f}"


ANY_STAGE = [
    Finding("not finite", not_finite,
            "a step threw the weights so far that numbers overflow, or a score or a log-probability is "
            "infinite",
            "lower --lr; look at what gives the scores"),
    Finding("broke off", broke_off,
            "NaN or infinity ends a run (exit status 3, and the last line it printed says which number); "
            "so does a kill, or an error before the first iteration",
            "if it was NaN or infinity, lower --lr, and begin again with --overwrite; after a kill go on "
            "with --resume"),
]
STAGE_2 = [
    Finding("no better than chance", no_better_than_chance,
            "the preferences contradict each other or stand in the wrong columns, the steps are too large "
            "or too few, or the language model is too weak to read the texts",
            "look at the data; change --lr; raise --passes; pretrain longer"),
]
STAGE_1 = [
    Finding("loss jumps", loss_jumps,
            "a step threw the model so far that it is worse than guessing",
            "lower --lr, or raise --warmup"),
    Finding("loss does not fall", loss_does_not_fall,
            "the steps are too small, or too few",
            "raise --lr, or --passes"),
]
