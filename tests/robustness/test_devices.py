"""The tests of devices.py, in a process of their own: the device they need stays with torch."""

import subprocess
import sys

import pytest

from tests.outside import ROOT, environment


def test_no_stage_mixes_devices_and_all_end_with_the_cpu_s_numbers():
    done = subprocess.run([sys.executable, "-m", "pytest", "-x", "-q", "--color=no", "-p",
                           "no:cacheprovider", "tests/robustness/devices.py"],
                          cwd=ROOT, env=environment(PYTEST_ADDOPTS=""),
                          capture_output=True, text=True)
    if done.returncode == 5:
        pytest.skip("this torch cannot pretend to have another device")
    assert done.returncode == 0, done.stdout + done.stderr
