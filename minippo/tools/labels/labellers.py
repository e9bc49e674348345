"""Rules that answer in a person's place: (one, other) -> 1 prefers the one, -1 the other, 0 neither."""

import hashlib
import re

from minippo.run.errors import UserError
from minippo.run.imported import blamed, imported

ACTORS = re.compile(r"\b(actors?|actress(es)?|cast|performances?)\b", re.IGNORECASE)
WRONG = 0.2   # share of cases in which `noisy` says the opposite


def shorter(one, other):
    """Fewer words."""
    return sign(len(other.split()) - len(one.split()))


def actors(one, other):
    """Speaks of who acts in the film: how often does not matter."""
    return sign(bool(ACTORS.search(one)) - bool(ACTORS.search(other)))


def questions(one, other):
    """Has a question mark."""
    return sign(("?" in one) - ("?" in other))


def noisy(one, other):
    """Fewer words, but wrong about 20 % of the pairs: always about the same ones, whatever their order."""
    digest = hashlib.sha256("\0".join(sorted((one, other))).encode("utf-8", "replace")).digest()
    wrong = int.from_bytes(digest[:8], "big") < WRONG * 2**64
    return -shorter(one, other) if wrong else shorter(one, other)


def said(rule, left, right):
    """What the labeller of a rule answers to a pair: "left", "right" or "tie"."""
    return ("right", "tie", "left")[rule(left, right) + 1]


def sign(x):
    return (x > 0) - (x < 0)


RULES = {"shorter": shorter, "actors": actors, "questions": questions, "noisy": noisy}
MEANT = RULES | {"noisy": shorter}   # what each would say if it made no mistakes


def labeller(name):
    """The rule of this name, or the function that module:function names; what it says is checked.

    Raises   UserError if there is none, and, when called, if it fails or says something else
    """
    rule = RULES[name] if name in RULES else imported("--labeller", name, "of two texts",
                                                               f"{', '.join(RULES)}, or ")

    def checked(one, other):
        """What the rule says, -1, 0 or 1."""
        with blamed("--labeller", name, "the function takes two texts"):
            found = rule(one, other)
        if found not in (-1, 0, 1):
            raise UserError(f"--labeller {name} said {found!r:.40}; it has to be -1, 0 or 1")
        return found
    return checked
