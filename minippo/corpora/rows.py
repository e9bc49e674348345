"""One row of a corpus."""

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """One text with people's votes on it; or, if `rejected` is not empty, a pair of responses."""

    id: str
    text: str  # of a pair: the chosen response
    votes: tuple[float, ...] = ()
    prompt: str = ""  # what both responses of a pair follow; may be empty
    rejected: str = ""
    where: str = field(default="", compare=False, repr=False)  # it was read from, for messages
    group: str = field(default="", repr=False)  # rows of one group stay in one part of the split

    @property
    def texts(self):
        """(prompt, text, rejected): rows that agree in them are the same."""
        return self.prompt, self.text, self.rejected

    @property
    def rating(self):
        """The mean of the votes, or None without votes."""
        return sum(self.votes) / len(self.votes) if self.votes else None


def fingerprint(*texts):
    """An id that depends on the texts alone, never on where they stand."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
