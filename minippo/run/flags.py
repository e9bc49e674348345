"""A dataclass is the command line: each field is a flag, its default, its help and its range."""

import argparse
import math
import sys
from dataclasses import asdict, dataclass, field, fields

from minippo.run.errors import UserError, complain

LARGEST = 10**9   # what a number may be that has no limit of its own: more fits no memory
DATA, MODEL, RUN = "the data", "the model", "the run"   # groups of flags in --help


def option(default, help, low=None, high=None, choices=None, group=""):
    """A dataclass field that is also a flag; default (): one that may be repeated, a tuple of str.

    low, high   the smallest and the largest value allowed
    group       its heading in --help; "": the GROUP of the class that it stands in
    """
    meta = {"help": help, "low": low, "high": high, "choices": choices, "group": group}
    return field(default=default, metadata=meta)


def words(default, help):
    """A dataclass field that takes all words without a flag: a tuple of str; default: such a tuple."""
    return field(default=default, metadata={"help": help, "words": True, "group": ""})


@dataclass
class DeviceConfig:
    """The flags of everything that computes."""
    GROUP = RUN
    seed: int = option(0, "fixes initialisation, order and sampling", low=0, high=2**63 - 1)
    device: str = option("auto", "where to compute; auto: the GPU if there is one",
                         choices=("auto", "cpu", "cuda", "mps"))
    precision: str = option("auto", "precision of the matrix products; auto: bf16 where the processor has it",
                            choices=("auto", "bf16", "fp32"))


@dataclass
class StageConfig(DeviceConfig):
    """The flags that all three stages share."""
    GROUP = RUN
    out: str = option("", "folder to write the run to")
    data: str = option("movies", "movies, amazon, nyt (rated sentences), chat (replies), verses (old to "
                                 "modern English), each fetched once; toy (made here); or the path of "
                                 "your own file or folder", group=DATA)
    resume: bool = option(False, "go on with the run that --out holds; begin one if there is none")
    overwrite: bool = option(False, "delete the run that --out holds, and begin again")
    compile: bool = option(False, "compile the transformer's blocks (needs a C++ compiler, and 80 seconds)")
    recompute: bool = option(False, "keep no states inside blocks for backward: less memory, more time")
    tensorboard: bool = option(False, "write the record also for TensorBoard, to OUT/tensorboard "
                                      "(pip install tensorboard)")
    save_every: float = option(60.0, "seconds from one saving of the whole state to the next", low=0)

    def __post_init__(self):
        if self.resume and self.overwrite:
            raise UserError("--resume keeps the run that is there, --overwrite deletes it; give one")


def settings(config):
    """What makes a run the run it is, a dict: all flags but where and how it is kept."""
    kept = ("out", "resume", "overwrite", "save_every", "tensorboard")
    return {name: value for name, value in asdict(config).items() if name not in kept}


def defaults(config):
    """The settings of the same script without a flag, a dict."""
    return settings(type(config)())


def parse(config_class, description, arguments=None, prog=None):
    """Command line -> a config. A wrong flag or value leaves with one line and status 2."""
    parser = argparse.ArgumentParser(prog=prog, description=description, allow_abbrev=False)
    parser.color = False   # of Python 3.14: our terminal shows no codes
    titles = {f.name: group_of(config_class, f) for f in fields(config_class)}
    ordered = sorted(set(titles.values()), key=lambda t: (t == RUN, t not in (DATA, MODEL), t))
    groups = {title: parser.add_argument_group(title) if title else parser for title in ordered}
    for f in sorted(fields(config_class), key=lambda f: ordered.index(titles[f.name])):
        flag, meta = "--" + f.name.replace("_", "-"), f.metadata
        if "words" in meta:
            flag, kind = f.name, {"nargs": "*", "default": f.default, "metavar": f.name.upper(),
                                  "help": f"{meta['help']} (default: {' '.join(f.default)})"}
        elif type(f.default) is tuple:
            kind = {"action": "append", "metavar": "TEXT", "help": f"{meta['help']}; may be repeated"}
        elif type(f.default) is bool:
            kind = {"action": "store_true", "help": meta["help"]}
        else:
            kind = {"type": within(type(f.default), meta["low"], meta["high"]), "choices": meta["choices"],
                    "default": f.default,
                    "help": meta["help"] + (f" (default: {f.default})" if f.default != "" else "")}
        groups[titles[f.name]].add_argument(flag, **kind)
    parser.error = lambda message: sys.exit(complain(f"{message} (see --help)"))
    found = vars(parser.parse_args(arguments))
    return config_class(**{name: tuple(x) if type(x) is list else x for name, x in found.items()
                           if x is not None})   # None: a flag to be repeated that was not given


def group_of(config_class, f):
    """The heading of a field: its own, or that of the class that gives its default."""
    owner = next(c for c in config_class.__mro__ if f.name in vars(c))
    return f.metadata["group"] or getattr(owner, "GROUP", getattr(config_class, "GROUP", ""))


def within(kind, low, high):
    """A converter for argparse: text -> int, float or str in [low, high]; never NaN, infinity."""
    least, most = (-LARGEST if low is None else low), (LARGEST if high is None else high)

    def convert(text):
        value = kind(text)
        if kind is not str and not least <= value <= most:
            small = high is None and value < least
            limits = f"at least {least}" if small else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{text} is not {limits}")
        return value
    convert.__name__ = kind.__name__  # argparse names it in "invalid int value"
    return convert


def checked(config_class, given):
    """A config of these settings {name: value}, as a file holds them; those not named have their defaults.

    Raises   UserError for a value that its flag would refuse
    """
    found = {f.name: given[f.name] for f in fields(config_class) if f.name in given}
    for f in fields(config_class):
        value, choices = found.get(f.name, f.default), f.metadata["choices"]
        try:
            if type(value) not in ((int, float) if f.type is float else (f.type,)):
                raise argparse.ArgumentTypeError(f"is no {f.type.__name__}")
            if choices and value not in choices:
                raise argparse.ArgumentTypeError(f"is not {' or '.join(choices)}")
            within(f.type, f.metadata["low"], f.metadata["high"])(value)
        except (argparse.ArgumentTypeError, OverflowError) as error:
            reason = str(error).removeprefix(f"{value} ")
            raise UserError(f"{f.name} {value!r:.60} {reason:.100}") from None
    return config_class(**found)


def numbers(text, kind, low):
    """Numbers with commas between them, sorted, each once; UserError for anything else."""
    try:
        found = sorted({kind(part) for part in text.split(",") if part.strip()})
    except ValueError:
        found = []
    if not found or not all(low <= x < math.inf for x in found):
        raise UserError(f"{text!r}: give numbers from {low} on, with commas between them")
    return found
