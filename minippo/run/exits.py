"""Exit statuses: whatever a user can cause is one line on stderr, never a traceback."""

import os
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from minippo.data import DataError
from minippo.run import parallel
from minippo.run.errors import UserError, complain
from minippo.run.flags import parse
from minippo.run.signals import stop_as_ctrl_c
from minippo.run.terminal import Screen
from minippo.training import NonFiniteError


def launch(main, config_class, description, arguments=None, prog=None):
    """Run a script: main(config of the command line).

    Exit status  1 if another process of a run by torchrun is gone, 2 for a mistake, 3 for NaN or
                 infinity, 4 if all went well but some output could not be written, 130 for Ctrl-C,
                 SIGTERM and SIGHUP, 141 if nobody reads the output: a tool stops then, a stage trains
                 to its end and saves
    """
    stop_as_ctrl_c()
    stage = hasattr(config_class, "resume")
    with parallel.quick_exit(), screens(stops=not stage, muted=stage and parallel.silent()):
        try:
            main(parse(config_class, description, arguments, prog))
        except (UserError, DataError) as error:
            sys.exit(complain(error))
        except OSError as error:
            sys.exit(complain(f"{error}; fix that, and try again"))
        except NonFiniteError as error:
            again = " and --overwrite" if hasattr(config_class, "overwrite") else ""
            sys.exit(complain(f"{error}; train again with a lower --lr{again}", status=3))
        except (MemoryError, RuntimeError) as error:
            if parallel.lost(error):
                sys.exit(complain("another process is gone, or failed (if so, its line is above or below); "
                                  "this one ends, too; the same command with --resume, and no --overwrite, "
                                  "goes on", status=1))
            if not out_of_memory(error):
                raise
            sys.exit(complain("out of memory; ask for smaller batches, fewer samples or a smaller "
                              "model, or try another --device"))
        except KeyboardInterrupt:
            if stage and parallel.silent():   # all stop together
                sys.exit(130)
            hint = "; the same command with --resume, and no --overwrite, goes on" if stage else ""
            sys.exit(complain("stopped" + hint, status=130))


@contextmanager
def screens(stops=True, muted=False):
    """Inside, stdout and stderr are Screens. SystemExit afterwards if something could not be written.

    stops   whether a script that nobody reads any more ends at once
    muted   whether nothing is shown, as another process says the same
    """
    fill_gaps()
    if hasattr(sys.stdout, "reconfigure"):   # a model writes what no 8-bit terminal can show
        sys.stdout.reconfigure(errors="replace")
    both = out, err = [Screen(stream, stops, muted) for stream in (sys.stdout, sys.stderr)]
    with redirect_stdout(out), redirect_stderr(err):
        left = None
        try:
            yield
        except SystemExit as error:
            left = error
        finally:
            for screen in both:
                screen.stops = False
                screen.flush()
        lost = out.lost or err.lost
        if left and (left.code or not lost):
            raise left
        if lost:
            sys.exit(141 if isinstance(lost, BrokenPipeError) else complain(
                f"some output could not be written ({lost.strerror})", status=4))


def fill_gaps():
    """Open what is closed of the system's three streams: else a file of ours becomes the new stderr."""
    while (number := os.open(os.devnull, os.O_RDONLY)) <= 2:
        pass
    os.close(number)


def out_of_memory(error):
    """Whether Python or torch found no room; torch has no kind of error for it everywhere."""
    words = ("out of memory", "allocate memory")
    return isinstance(error, MemoryError) or any(some in str(error) for some in words)
