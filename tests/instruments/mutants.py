"""Faults, one at a time, in a copy of the project: each must make a test fail.

    python -m tests.instruments.mutants                    all of them; status 1 if one survives
    python -m tests.instruments.mutants --only NAME ...    some of them
    python -m tests.instruments.mutants --list             their names, files and lines

A test suite is as good as the faults it finds; these are in faults.py. A fault meets the tests
named beside it; if they let it live, the whole suite (without the tests marked slow).
For Linux and macOS.
"""

import argparse
import contextlib
import itertools
import multiprocessing
import multiprocessing.connection
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.instruments.faults import FAULTS
from tests.outside import ROOT

COPIED = ("minippo", "tests", "benchmarks", "docs", "README.md", "pyproject.toml", "*.py")
LIMIT = 100   # seconds for a fault's own tests; ten times as many for the whole suite
LATE = "time limit"

LOCK = threading.Lock()   # to start a process also asks how the other threads' have ended
FORKS = multiprocessing.get_context("forkserver")   # a process a trial: torch is imported once
FORKS.set_forkserver_preload(["torch", "torch._dynamo", "tokenizers", "hypothesis", "pytest"])


class Mutant(NamedTuple):
    name: str
    file: str      # relative to the root, like the tests
    old: str
    new: str
    tests: tuple   # arguments of pytest


def parsed(faults):
    """The list as Mutants."""
    found = []
    for file, tests, lines in faults:
        for line in lines.strip().splitlines():
            name, _, change = line.strip().partition(": ")
            old, _, new = change.partition("=>")
            found.append(Mutant(name, file, old.strip(), new.strip(), tuple(tests.split())))
    return found


MUTANTS = parsed(FAULTS)


def mutated(root, mutant):
    """The file's text with the fault in it. ValueError unless its place is found exactly once."""
    text = (root / mutant.file).read_text(encoding="utf-8")
    if (times := text.count(mutant.old)) != 1:
        raise ValueError(f"{mutant.name}: {mutant.old!r} occurs {times} times in {mutant.file}")
    return text.replace(mutant.old, mutant.new)


def trial(root, mutant, tests, limit):
    """Run tests on a copy of the project with the fault in it; mutant None: without any.

    Returns  the test that failed, or LATE; None if all passed
    Raises   RuntimeError if the tests could not be run
    """
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        folder = Path(folder)
        copy(root, folder)
        if mutant:
            (folder / mutant.file).write_text(mutated(root, mutant), encoding="utf-8")
        return first_failure(folder, tests, limit)


def copy(root, folder):
    """The project, as far as its tests need it, into an empty folder."""
    for path in (path for pattern in COPIED for path in root.glob(pattern)):
        if path.is_dir():
            shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns(
                "__pycache__", "test_mutants.py"))   # it sees every fault, and tests none
        else:
            shutil.copy(path, folder)


def first_failure(folder, tests, limit):
    """What `trial` returns and raises."""
    process = FORKS.Process(target=run_pytest, args=(folder, tests))
    with LOCK:
        process.start()
    try:
        multiprocessing.connection.wait([process.sentinel], limit)
    finally:
        with LOCK:
            if late := process.is_alive():
                with contextlib.suppress(ProcessLookupError):   # of one that has only just begun
                    os.killpg(process.pid, signal.SIGKILL)   # and what the tests have started
                process.kill()
            process.join()
    if late:
        return LATE
    output = (folder / "output").read_text(encoding="utf-8")
    if process.exitcode not in (0, 1, 2):   # 2: a file of tests could not be imported
        raise RuntimeError(f"pytest ended with status {process.exitcode}:\n{output}")
    found = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output, re.MULTILINE)
    return (found[1] if found else output.strip()) if process.exitcode else None


def run_pytest(folder, tests):
    """What a process of its own does: run tests in a folder, all output into a file there."""
    os.setsid()
    os.chdir(folder)
    with open("output", "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.path.insert(0, str(folder))
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"   # half of the start
    os.environ.pop("PYTEST_ADDOPTS", None)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]   # of the project that hunts; meant are those of the folder
    import pytest
    sys.exit(pytest.main(["-x", "-q", "-m", "not slow", "--tb=no", "-rfE", "--color=no",
                          "-p", "no:cacheprovider", *tests]))


def hunt(root, mutants, jobs, limit, say):
    """Try every mutant on its own tests, and those that live on the whole suite; the survivors.

    say(mutant, killer)   is called for each as it is known; killer None: it survived
    Raises                RuntimeError if one of the tests that killed fails without any fault, too;
                          ValueError, before anything is tried, if a fault has no place
    """
    for mutant in mutants:
        mutated(root, mutant)
    os.environ["OMP_NUM_THREADS"] = "1"
    alive, killers = mutants, set()
    for whole in (False, True):
        left, seconds = [], 10 * limit if whole else limit
        with ThreadPoolExecutor(jobs) as pool:
            found = pool.map(
                lambda m: trial(root, m, ["tests"] if whole else m.tests, seconds), alive)
            for mutant, killer in zip(alive, found):
                if killer is None:
                    left.append(mutant)
                if killer or whole:
                    say(mutant, killer)
                killers.add(killer)
        alive = left
    killers -= {None, LATE}
    if killers and (broken := trial(root, None, sorted(killers), 10 * limit)):
        raise RuntimeError(f"{broken} fails without any fault: what it killed does not count")
    return alive


def reporter(total):
    """What `hunt` is to call: a line each; on a terminal only those of survivors stay."""
    count, terminal = itertools.count(1), sys.stdout.isatty()

    def say(mutant, killer):
        line = f"{next(count):>4}/{total}  {mutant.name} " + (
            f"killed by {killer}" if killer else
            f"SURVIVED in {mutant.file}: {mutant.old}  =>  {mutant.new}")
        if terminal and killer:
            line = line[:shutil.get_terminal_size().columns - 1]
        print("\r\033[K" * terminal + line, end="" if terminal and killer else "\n", flush=True)
    return say


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m tests.instruments.mutants",
                                     description="Does every fault make a test fail?")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="faults to try; default: all")
    parser.add_argument("--list", action="store_true", help="say which faults there are")
    parser.add_argument("--jobs", type=int, default=1, help="faults to try at the same time")
    options = parser.parse_args(arguments)
    if unknown := set(options.only or ()) - {mutant.name for mutant in MUTANTS}:
        parser.error(f"no such fault: {', '.join(sorted(unknown))} (see --list)")
    mutants = [m for m in MUTANTS if not options.only or m.name in options.only]
    if options.list:
        for m in mutants:
            print(f"{m.name}  {m.file}: {m.old}  =>  {m.new}")
        return 0
    begin = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="mutants-") as folder:   # one may edit meanwhile
            copy(ROOT, Path(folder))
            left = hunt(Path(folder), mutants, options.jobs, LIMIT, reporter(len(mutants)))
    except (RuntimeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"\n{len(mutants) - len(left)} of {len(mutants)} killed "
          f"in {time.monotonic() - begin:.0f} seconds")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
