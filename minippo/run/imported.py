"""A function that a flag names as module:function, imported as Python would: never one that a file names."""

import importlib
import sys
import traceback
from contextlib import contextmanager

from minippo.run.errors import UserError


def imported(flag, name, takes, others=""):
    """The function that module:function names.

    flag     such as --score: what the message begins with
    takes    what the function is of, such as "of two texts"
    others   what else the flag may be, such as "shorter, actors, or "
    Raises   UserError if there is no such function, whatever its module does while it is imported
    """
    module, colon, function = name.partition(":")
    if not (module and colon and function):
        raise UserError(f"{flag} {name}: no such rule; give {others}module:function")
    if "" not in sys.path:   # the command minippo, unlike python -m, does not look into the present folder
        sys.path.insert(0, "")
    with blamed(flag, name, "give module:function that Python can import from here"):
        found = getattr(importlib.import_module(module), function)
    if not callable(found):
        raise UserError(f"{flag} {name} is no function; give one {takes}")
    return found


@contextmanager
def blamed(flag, name, advice):
    """What module:function, or its module, raises in here becomes a UserError: which error, in which line.

    To leave the program is a mistake, too. An error of ours says it itself.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == source(name)]
        where = f" (line {lines[-1]} of {source(name)})" if lines else ""
        raise UserError(f"{flag} {name}: {type(error).__name__}: {error}{where}; {advice}") from None


def source(name):
    """The file of the module that module:function names, once it was imported; "" if it has none."""
    return getattr(sys.modules.get(name.partition(":")[0]), "__file__", None) or ""
