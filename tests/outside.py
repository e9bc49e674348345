"""For tests that start programs of the project: where it is, and an environment in which it is found."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def environment(**variables):
    """The present one; the project is found from any folder, and one thread makes what another one made."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | variables
