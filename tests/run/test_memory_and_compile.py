"""What the flags about the device do: memory kept and counted, blocks compiled."""

import platform
import shutil
import subprocess
import sys

import pytest
import torch

from minippo.run.devices import compile_blocks, peak_memory
from minippo.tokens import pad_left, pad_right
from minippo.transformer import TransformerConfig, build


def test_the_peak_of_memory_is_in_mb_and_stays_when_memory_is_freed():
    before = peak_memory(torch.device("cpu"))
    block = torch.ones(int(before * 1e6) + 100_000_000, dtype=torch.uint8)
    peak = peak_memory(torch.device("cpu"))
    del block
    assert 90 < peak - before < 2 * before + 200   # what was free already may have been used
    assert peak_memory(torch.device("cpu")) == peak


FREED = """
import resource, sys, torch
from minippo.run.devices import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
torch.ones(10_000_000)   # 40 MB in pages of 4 KiB: 9,766 of them
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only the C library of Linux is asked")
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries cannot be asked")
def test_freed_memory_is_used_again():
    fetched = {}
    for how in ("returned", "kept"):
        done = subprocess.run([sys.executable, "-c", FREED, how], capture_output=True, text=True)
        fetched[how] = int(done.stdout)   # pages
    assert fetched["kept"] < fetched["returned"] / 5   # once, and not ten times


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
@pytest.mark.parametrize("architecture", ["decoder", "seq2seq"])
def test_compiled_blocks_compute_the_same_for_any_number_of_tokens(architecture):
    torch.manual_seed(0)
    lm = build(TransformerConfig(11, 0, architecture, width=16, heads=2, layers=2, context=32))
    query, response = pad_left([[0, 3, 4], [0]]), pad_right([[1, 2, 0], [9, 8, 7]])
    inputs = [(query, response), (query[:1], response[:1]), (query[1:, 1:], response[1:, :2])]
    expected = [lm(*x) for x in inputs]
    compile_blocks(lm)
    for x, logits in zip(inputs, expected):
        assert torch.allclose(lm(*x), logits, atol=1e-5)
