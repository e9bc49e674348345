"""What the tests need of the system they run on."""

import os

import pytest

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no fork, pipe file, permission bits or SIGTERM")
