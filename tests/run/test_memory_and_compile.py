"""What the flags about the device do: memory kept and counted, blocks compiled."""

import shutil
from types import SimpleNamespace

import pytest
import torch

from minippo.run import devices
from minippo.run.devices import check_compiler, compile_blocks, keep_freed_memory, peak_memory
from minippo.run.errors import UserError
from minippo.tokens import pad_left, pad_right
from minippo.transformer import TransformerConfig, build


def test_the_peak_of_memory_is_in_mb_and_stays_when_memory_is_freed():
    before = peak_memory(torch.device("cpu"))
    block = torch.ones(int(before * 1e6) + 100_000_000, dtype=torch.uint8)
    peak = peak_memory(torch.device("cpu"))
    del block
    assert 90 < peak - before < 2 * before + 200   # what was free already may have been used
    assert peak_memory(torch.device("cpu")) == pytest.approx(peak, abs=2)   # the system counts pages in parts


THRESHOLD, TRIM = -3, -1   # malloc.h: M_MMAP_THRESHOLD, M_TRIM_THRESHOLD


@pytest.mark.parametrize("most, expected", [
    (2**40, [(THRESHOLD, 67_108_864), (TRIM, 268_435_456)]),
    (2**25, [(THRESHOLD, 67_108_864), (THRESHOLD, 33_554_432), (TRIM, 268_435_456)]),
    (0, [(THRESHOLD, 67_108_864), (THRESHOLD, 33_554_432)])])   # the other alone would fix a low threshold
def test_the_c_library_of_linux_is_asked_to_keep_tensors_as_large_as_it_allows(monkeypatch, most, expected):
    asked = []
    allowed = {TRIM: 2**40, THRESHOLD: most}
    library = SimpleNamespace(mallopt=lambda *what: asked.append(what) or what[1] <= allowed[what[0]])
    monkeypatch.setattr(devices.ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(devices.sys, "platform", "linux")
    keep_freed_memory()
    assert asked == expected


def test_another_c_library_or_system_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(devices.ctypes, "CDLL", lambda name: SimpleNamespace())
    keep_freed_memory()
    monkeypatch.setattr(devices.sys, "platform", "win32")
    monkeypatch.setattr(devices.ctypes, "CDLL", None)
    keep_freed_memory()


@pytest.mark.parametrize("before", ["", "backend='inductor' raised:\n"])   # as older releases begin
def test_without_a_compiler_a_line_says_what_to_do(monkeypatch, before):
    def none(function):
        def compiled(x):
            raise RuntimeError(before + "InvalidCxxCompiler: No working C++ compiler found\nand more")
        return compiled
    monkeypatch.setattr(torch, "compile", none)
    with pytest.raises(UserError, match=r"\(InvalidCxxCompiler: No .* found\); install a C\+\+ compiler"):
        check_compiler(torch.device("cpu"))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
def test_compiled_blocks_compute_the_same_for_any_number_of_tokens():
    torch.manual_seed(0)   # in its encoder a Seq2Seq has blocks like a decoder's too
    lm = build(TransformerConfig(11, 0, "seq2seq", width=16, heads=2, layers=2, context=32))
    query, response = pad_left([[0, 3, 4], [0]]), pad_right([[1, 2, 0], [9, 8, 7]])
    inputs = [(query, response), (query[:1], response[:1]), (query[1:, 1:], response[1:, :2])]
    expected = [lm(*x) for x in inputs]
    compile_blocks(lm)
    for x, logits in zip(inputs, expected):
        assert torch.allclose(lm(*x), logits, atol=1e-5)
