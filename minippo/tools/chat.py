"""Type a line, and a model answers: token by token, with its score if a reward model is there."""

import sys

from minippo.run.errors import UserError, complain
from minippo.tools.shared.tables import flat
from minippo.tools.shared.writing import WritingConfig, say, writers

Config = WritingConfig
QUIT = "/quit"
MOST_BYTES = 2**16   # of a line


def main(config):
    """Answer line after line, each for itself, until /quit, Ctrl-D or Ctrl-C, or the end of a pipe."""
    models, typing = writers(config), bool(sys.stdin and sys.stdin.isatty())
    if typing:
        print(f"Each line is answered for itself; {QUIT} or Ctrl-D ends.")
    try:
        for number, line in lines("> " if typing else ""):
            try:
                answer(models, line, f"line {number}:")
            except UserError as error:
                if not typing:
                    raise
                complain(error)
    except KeyboardInterrupt:   # as exits.launch leaves, but Ctrl-C is no error here
        print()
        sys.exit(130)


def lines(sign):
    """(number, bytes) of the lines on stdin, after each sign; the end of the last prints a new line."""
    number = 0
    while True:
        print(sign, end="", flush=True)
        line = sys.stdin.buffer.readline(MOST_BYTES) if sys.stdin else b""
        text = line.rstrip(b"\r\n")
        if not line or text == QUIT.encode():
            break
        number += 1
        yield number, text
    if sign and not line:   # Ctrl-D leaves the cursor behind the sign
        print()


def answer(models, line, where):
    """Print the answer of each model to a line, bytes; UserError, before any, if it is no prompt of one."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{where} not UTF-8 from byte {error.start} on; write it as UTF-8") from None
    queries = [model.query(text, where) for model in models]
    wide = max(len(model.name) for model in models)
    for model, query in zip(models, queries):
        print(f"{flat(model.name):<{wide}} |" if len(models) > 1 else "", end="", flush=True)
        say(model, query)
