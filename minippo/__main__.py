"""python -m minippo COMMAND: tools to look at models with, each a module of minippo/tools."""

import importlib
import sys

from minippo.config import complain, run

COMMANDS = ("generate", "overoptimization", "optimum", "ablations")


def main():
    """Run the tool that the command line names, or say which there are."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(f"usage: python -m minippo {{{','.join(COMMANDS)}}} ... (each has its own --help)")
    elif name not in COMMANDS:
        sys.exit(complain(f"{name}: no such command; there is {', '.join(COMMANDS)}"))
    else:
        tool = importlib.import_module(f"minippo.tools.{name}")
        run(tool.main, tool.Config, tool.__doc__, arguments, f"python -m minippo {name}")


if __name__ == "__main__":
    main()
