"""For tests that start programs of the project: where it is, and an environment in which it is found."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def environment(**variables):
    """That of this process, with the project to import, and one thread: as in these tests, so bytes agree."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | variables
