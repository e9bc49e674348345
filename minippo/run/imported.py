"""A function that a flag names as module:function, imported as Python would: never one that a file names."""

import importlib
import sys
import traceback

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
    try:
        found = getattr(importlib.import_module(module), function)
    except (Exception, SystemExit) as error:   # ImportError, AttributeError, or whatever the module does
        raise failed(flag, name, error, "give module:function that Python can import from here") from None
    if not callable(found):
        raise UserError(f"{flag} {name} is no function; give one {takes}")
    return found


def failed(flag, name, error, advice):
    """The UserError that says which error the function, or its module, raised, and in which line of it.

    An error of ours says it itself.
    """
    if isinstance(error, UserError):
        return error
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == source(name)]
    where = f" (line {frames[-1].lineno} of {frames[-1].filename})" if frames else ""
    return UserError(f"{flag} {name}: {type(error).__name__}: {error}{where}; {advice}")


def source(name):
    """The file of the module that module:function names, once it was imported; "" if it has none."""
    return getattr(sys.modules.get(name.partition(":")[0]), "__file__", None) or ""
