"""minippo COMMAND: each is a module of the folder of minippo/ that FOLDERS names."""

import importlib
import sys

from minippo.run.errors import complain
from minippo.run.exits import launch, screens

FOLDERS = {
    "tools": ("generate", "chat", "report", "compare", "microscope", "doctor", "label"),
    "bridges": ("import-gpt2", "export-gpt2"),
    "experiments": ("overoptimization", "levers", "optimum", "ablations", "walkthrough"),
}
COMMANDS = {name: f"minippo.{folder}.{name.replace('-', '_')}"
            for folder, names in FOLDERS.items() for name in names}


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
    return importlib.import_module(COMMANDS[command])
