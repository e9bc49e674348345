"""The answers of `minippo label`: a journal of all, and the preferences as data for train_reward.py."""

import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from minippo.corpora.rows import Row
from minippo.data import split
from minippo.run.errors import UserError
from minippo.run.files import check_replaceable, hold, read_regular, unwritable, write_atomically
from minippo.run.sizes import LARGEST_RECORD

SIDES, SAID = ("left", "right"), ("left", "right", "tie", "skip")
UNDO = {"answer": "undo"}


@dataclass(frozen=True)
class Answer:
    """What was said to a pair of responses; guess: the probability of `left` that was expected before."""
    prompt: str
    left: str
    right: str
    answer: str
    guess: float

    def preference(self):
        """(chosen, rejected), or None for ties and skips."""
        both = self.left, self.right
        return {"left": both, "right": both[::-1]}.get(self.answer)


class Answers:
    """`with closing(Answers(out, decides)) as answers:`; `answers.given` are those that stand.

    NAME.answers.jsonl   the journal: the settings that decide the questions (`decides`, a dict), then a line
                         for everything that was said, undo included; only appended to
    NAME.jsonl           made from it after every answer: prompt, chosen, rejected, and an id

    Raises   UserError if the files belong to something else, to other settings or to a process that runs,
             are damaged or cannot be written
    """

    def __init__(self, out, decides):
        self.out, self.decides = Path(out), decides
        if self.out.suffix != ".jsonl" or self.out.name.endswith(".answers.jsonl"):
            raise UserError(f"--out {out}: name a file that ends in .jsonl (and not in .answers.jsonl)")
        self.journal = self.out.with_suffix(".answers.jsonl")
        if os.path.lexists(self.out) and not self.journal.exists():
            raise UserError(f"--out {out} is there and was not written by minippo label "
                            f"(no {self.journal.name} beside it); name another file")
        check_replaceable(self.out)
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self.file = hold(self.journal)
        except OSError as error:
            raise unwritable(self.journal, error) from None
        try:
            self.given = self.read()
            if not self.new:   # it may have been killed between the two files
                self.write()
        except BaseException:
            self.close()
            raise

    def close(self):
        with suppress(OSError):   # a full disk, again: it has been said
            self.file.close()

    def read(self):
        """The answers that stand. A last line without its end was never finished: it is cut off."""
        try:
            content = read_regular(self.journal, LARGEST_RECORD)
            whole = content[:content.rfind(b"\n") + 1]
            self.file.truncate(len(whole))
        except OSError as error:
            raise UserError(f"{self.journal}: cannot be read ({error.strerror}); fix that, or name "
                            "another --out") from None
        records = [self.record(*each) for each in enumerate(whole.split(b"\n")[:-1], 1)]
        given, self.new = [], not records
        if records and "settings" in records[0]:
            self.compare(records.pop(0)["settings"])
        elif records:
            print(f"note: {self.journal} is of an older version, which kept no settings; whether these flags "
                  "are those of its answers is not checked", file=sys.stderr)
        for record in records:
            if record != UNDO:
                given.append(Answer(**record))
            elif given:
                given.pop()
        return given

    def record(self, number, line):
        """A line of the journal as a dict that is UNDO or makes an Answer."""
        kinds = {field.name: field.type for field in fields(Answer)}
        try:
            record = json.loads(line.decode("utf-8"))
            fits = record == UNDO or (
                number == 1 and record.keys() == {"settings"} and type(record["settings"]) is dict) or (
                record.keys() == kinds.keys() and record["answer"] in SAID
                and all(type(record[name]) is kind for name, kind in kinds.items()))
        except (ValueError, AttributeError, TypeError, RecursionError):
            fits = False
        if not fits:
            raise UserError(f"{self.journal} line {number}: no answer of minippo label; mend or delete that "
                            "line, or name another --out")
        return record

    def compare(self, kept):
        """UserError if other settings decide the questions than those that the journal has kept."""
        if other := [name for name, value in self.decides.items() if kept.get(name, value) != value]:
            were, are = (", ".join(f"--{name.replace('_', '-')} {str(values[name]) or '(none)':.80}"
                                   for name in other) for values in (kept, self.decides))
            raise UserError(f"{self.journal}: its answers were given with {were}, and now it is {are}; go on "
                            "with what it was, or name another --out")

    def add(self, answer):
        self.append(*[{"settings": self.decides}] * self.new, asdict(answer))
        self.new = False
        self.given.append(answer)
        self.write()

    def undo(self):
        """Take the last answer back; False if there is none."""
        if not self.given:
            return False
        self.append(UNDO)
        self.given.pop()
        self.write()
        return True

    def append(self, *records):
        """Lines to the journal: on the disk when this returns."""
        try:
            self.file.write("".join(json.dumps(record) + "\n" for record in records).encode())
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise unwritable(self.journal, error) from None

    def write(self):
        """The preferences, the file that train_reward.py reads."""
        write_preferences(self.out, self.given)


def write_preferences(path, answers):
    """The preferences among these answers as JSONL: what train_reward.py --data reads."""
    pairs = [(answer.prompt, *answer.preference()) for answer in answers if answer.preference()]
    rows = [{"id": id, "prompt": prompt, "chosen": chosen, "rejected": rejected}
            for id, (prompt, chosen, rejected) in zip(ids(len(pairs)), pairs)]
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def ids(count):
    """Ids of so many rows, in order, that put 85 % of them where the reward model learns.

    A row's part depends on its id alone (data.split), and a third of few labels must not go to a judge
    that pairs do not have. Of every 20 rows 17 are learned from, 3 held out; the first is the judge's.
    """
    if not count:
        return []
    free = split([Row(f"label-{i}", "-") for i in range(3 * count + 300)])
    free = {part: iter(rows) for part, rows in free.items()}
    parts = {0: "judge"}
    return [next(free[parts.get(i, {1: "prompts", 2: "test", 3: "prompts"}.get(i % 20, "reward"))]).id
            for i in range(count)]
