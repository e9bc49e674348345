"""Exit statuses: whatever a user can cause is one line on stderr, never a traceback."""

import os
import signal
import sys

from minippo.data import DataError
from minippo.run.errors import UserError, complain
from minippo.run.flags import parse
from minippo.training import NonFiniteError


def launch(main, config_class, description, arguments=None, prog=None):
    """Run a script: main(config of the command line).

    Exit status  2 for a mistake, 3 for NaN or infinity, 130 for Ctrl-C and SIGTERM, 141 if nobody
                 reads the output
    """
    if signal.getsignal(signal.SIGTERM) != signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.default_int_handler)   # as Ctrl-C
    if hasattr(sys.stdout, "reconfigure"):   # a model writes what no 8-bit terminal can show
        sys.stdout.reconfigure(errors="replace")
    try:
        main(parse(config_class, description, arguments, prog))
        sys.stdout.flush()
    except (UserError, DataError) as error:
        sys.exit(complain(error))
    except BrokenPipeError:   # as in `... | head`: nobody reads on, which is no mistake
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)         # as of a program that SIGPIPE ends
    except OSError as error:
        sys.exit(complain(f"{error}; fix that, and try again"))
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
