"""The comparison with TRL: what it needs, what it calls agreement, and that its page is current."""

import importlib.util
import re
import subprocess
import sys

import pytest
import torch

from tests.outside import ROOT, environment

SCRIPT = ROOT / "benchmarks/trl_agreement.py"
PAGE = (ROOT / "docs/agreement.md").read_text(encoding="utf-8")


def rows(text):
    """Of a printed table: (quantity, largest difference, verdict) of each row."""
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert all(len(row) == 5 for row in cells) and cells[0][4] == "verdict"
    return [(row[0], float(row[3]), row[4]) for row in cells[1:]]


def run(*words):
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True,
                          env=environment())


@pytest.fixture(scope="module")
def script():
    """The script as a module, whether or not TRL is there."""
    spec = importlib.util.spec_from_file_location("trl_agreement", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["trl_agreement"] = module   # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["trl_agreement"]


def test_without_trl_one_line_says_what_to_install():
    done = run("-c", "import sys, runpy; sys.modules['trl'] = None; "
                     f"sys.argv = ['x']; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')")
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert 'pip install ".[peers]"' in done.stderr


@pytest.mark.parametrize("theirs, reason, verdict", [
    (1.000009, "", "agrees"), (0.999991, "they round", "agrees"),
    (1.00002, "", "DIFFERS"), (1.00002, "they round", "they round"),
    (0.99998, "", "DIFFERS"), (float("nan"), "they round", "DIFFERS")])
def test_a_difference_above_1e_5_needs_a_reason(script, theirs, reason, verdict):
    one, other = torch.tensor([0.0, theirs]), torch.tensor([0.0, 1.0])
    assert script.Row("x", one, other, reason).verdict == verdict


def test_the_page_calls_agreement_what_is_within_1e_5_and_explains_the_rest():
    found = rows(PAGE)
    assert len(found) > 30
    assert all((difference <= 1e-5) is (verdict == "agrees") for _, difference, verdict in found)
    assert "DIFFERS" not in PAGE and sum(verdict == "agrees" for *_, verdict in found) > 25


def test_the_page_names_the_versions_that_the_extra_pins():
    pinned = re.search(r"^peers = \[(.*)\]", (ROOT / "pyproject.toml").read_text(), re.M).group(1)
    for package in ("trl", "transformers"):
        version = re.search(rf'"{package}==([\d.]+)"', pinned).group(1)
        assert f"{package} {version}" in PAGE


@pytest.mark.slow
def test_the_page_is_what_the_script_finds():
    pytest.importorskip("trl")
    done = run(str(SCRIPT))
    assert done.returncode == 0, done.stdout + done.stderr
    assert [(name, verdict) for name, _, verdict in rows(done.stdout)] == \
        [(name, verdict) for name, _, verdict in rows(PAGE)]
