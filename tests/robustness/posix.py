"""What the tests need of the system they run on."""

import os

import pytest

posix = pytest.mark.skipif(os.name == "nt", reason="Windows lacks fork, flock, FIFOs, permissions, SIGALRM")
