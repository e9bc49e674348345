"""minippo COMMAND: tools to look at models with, each a module of minippo/tools."""

import importlib
import sys

from minippo.run.errors import complain
from minippo.run.exits import launch, screens

COMMANDS = ("generate", "chat", "report", "compare", "microscope", "doctor", "label", "walkthrough",
            "overoptimization", "optimum", "ablations")


def main():
    """Run the tool that the command line names, or say which there are."""
    name, *arguments = sys.argv[1:] or ["--help"]
    program = "python -m minippo" if sys.argv[0].endswith("__main__.py") else "minippo"
    if name in COMMANDS:
        module = tool(name)
        does = module.__doc__.splitlines()[0]
        return launch(module.main, module.Config, does, arguments, f"{program} {name}")
    with screens():
        if name not in ("-h", "--help"):
            sys.exit(complain(f"{name}: no such command; there is {', '.join(COMMANDS)}"))
        print(f"usage: {program} COMMAND [flags]; each has its own --help")
        for command in COMMANDS:
            print(f"  {command:<20}{tool(command).__doc__.splitlines()[0]}")


def tool(command):
    return importlib.import_module(f"minippo.tools.{command}")
