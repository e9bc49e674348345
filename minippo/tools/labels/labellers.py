"""Rules that answer in a person's place: (one, other) -> 1 prefers the one, -1 the other, 0 neither."""

import hashlib
import importlib
import re
import sys

from minippo.run.errors import UserError

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
    rule = RULES[name] if name in RULES else imported(name)

    def checked(one, other):
        """What the rule says, -1, 0 or 1."""
        try:
            found = rule(one, other)
        except Exception as error:   # of a function that is not ours
            raise UserError(f"--labeller {name}: {type(error).__name__}: {error}; the function takes two "
                            "texts") from None
        if found not in (-1, 0, 1):
            raise UserError(f"--labeller {name} said {found!r:.40}; it has to be -1, 0 or 1")
        return found
    return checked


def imported(name):
    """The function that module:function names; UserError if there is none."""
    module, colon, function = name.partition(":")
    if not (module and colon and function):
        raise UserError(f"--labeller {name}: no such rule; there is {', '.join(RULES)}, or give "
                        "module:function")
    if "" not in sys.path:   # the command minippo, unlike python -m, does not look into the present folder
        sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:   # ImportError, AttributeError, or whatever the module does
        raise UserError(f"--labeller {name}: {type(error).__name__}: {error}; give module:function that "
                        "Python can import from here") from None
    if not callable(found):
        raise UserError(f"--labeller {name} is no function; give one of two texts")
    return found
