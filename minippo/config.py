"""A dataclass is the command line: each field is a flag, its default, its help and its range."""

import argparse
import os
import signal
import sys
from dataclasses import asdict, dataclass, field, fields

from minippo.errors import UserError
from minippo.finite import NonFiniteError

LARGEST = 10**9   # what a number may be that has no limit of its own: more fits no memory


def option(default, help, low=None, high=None, choices=None):
    """A dataclass field that is also a flag. low, high: the smallest and largest value allowed."""
    meta = {"help": help, "low": low, "high": high, "choices": choices}
    return field(default=default, metadata=meta)


@dataclass
class DeviceConfig:
    """The flags of everything that computes."""
    seed: int = option(0, "fixes initialisation, order and sampling", low=0, high=2**63 - 1)
    device: str = option("auto", "where to compute", choices=("auto", "cpu", "cuda", "mps"))
    precision: str = option("auto", "of the matrix products; auto: bf16 where the processor has it",
                            choices=("auto", "bf16", "fp32"))


@dataclass
class StageConfig(DeviceConfig):
    """The flags that all three stages share."""
    out: str = option("", "folder to write")
    data: str = option("movies", "movies (rated snippets, fetched once), toy (made here), "
                                 "or your own file or folder")
    resume: bool = option(False, "go on where a run was stopped; without one, begin")
    overwrite: bool = option(False, "delete the run that --out holds, and begin again")
    save_every: float = option(60.0, "seconds between two savings of the whole state", low=0)


def settings(config):
    """What makes a run the run it is, a dict: all flags but where and how it is kept."""
    kept = ("out", "resume", "overwrite", "save_every")
    return {name: value for name, value in asdict(config).items() if name not in kept}


def parse(config_class, description, arguments=None, prog=None):
    """Command line -> a config. A wrong flag or value leaves with one line and status 2."""
    parser = argparse.ArgumentParser(prog=prog, description=description, allow_abbrev=False,
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for f in fields(config_class):
        flag, meta = "--" + f.name.replace("_", "-"), f.metadata
        if f.type is bool or f.type == "bool":
            kind = {"action": argparse.BooleanOptionalAction}
        else:
            kind = {"type": within(type(f.default), meta["low"], meta["high"]),
                    "choices": meta["choices"]}
        parser.add_argument(flag, default=f.default, help=meta["help"], **kind)
    parser.error = lambda message: sys.exit(complain(f"{message} (see --help)"))
    return config_class(**vars(parser.parse_args(arguments)))


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


def run(main, config_class, description, arguments=None, prog=None):
    """Run a script: whatever a user can cause is one line on stderr, never a traceback.

    Exit status  2 for a mistake, 3 for numbers that are not finite, 130 for Ctrl-C and SIGTERM,
                 141 if nobody reads the output
    """
    if signal.getsignal(signal.SIGTERM) != signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.default_int_handler)   # as Ctrl-C
    if hasattr(sys.stdout, "reconfigure"):   # a model writes what no 8-bit terminal can show
        sys.stdout.reconfigure(errors="replace")
    try:
        main(parse(config_class, description, arguments, prog))
        sys.stdout.flush()
    except UserError as error:
        sys.exit(complain(error))
    except BrokenPipeError:   # as in `... | head`: nobody reads on, which is no mistake
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)         # as of a program that SIGPIPE ends
    except OSError as error:
        sys.exit(complain(f"{error}; mend that, and try again"))
    except NonFiniteError as error:
        again = " and --overwrite" if hasattr(config_class, "overwrite") else ""
        sys.exit(complain(f"{error}; train again with a lower --lr{again}", status=3))
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        sys.exit(complain("out of memory; ask for smaller batches, fewer samples or a smaller "
                          "model, or try another --device"))
    except KeyboardInterrupt:
        hint = ("; the same command with --resume, and no --overwrite, goes on"
                if hasattr(config_class, "resume") else "")
        sys.exit(complain("stopped" + hint, status=130))


def out_of_memory(error):
    """Whether Python or torch found no room; torch has no kind of error for it everywhere."""
    words = ("out of memory", "allocate memory")
    return isinstance(error, MemoryError) or any(some in str(error) for some in words)


def complain(message, status=2):
    """One line on stderr, of something too long its begin and end; returns the exit status."""
    line = " ".join(str(message).split())
    line = line if len(line) <= 1000 else f"{line[:500]} ... {line[-500:]}"
    print("error:", line, file=sys.stderr)
    return status
