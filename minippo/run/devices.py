"""Where to compute, and how precisely."""

import ctypes
import re
import sys
from pathlib import Path

import torch

from minippo.run.errors import UserError
from minippo.transformer import Block


def pick_device(name):
    """torch.device for --device; UserError if this machine does not have it."""
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in has.items() if there)
    if not has[name]:
        raise UserError(f"--device {name}: this machine has none that torch can use; "
                        "try --device auto")
    return torch.device(name)


def use_bf16(precision, device):
    """Whether matrix products run in bfloat16; "auto": where the hardware multiplies it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8
    # torch has no public question for this
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return device.type == "cpu" and native()


def place(model, device, precision):
    """The model on a device, its language model's matrix products as --precision says."""
    getattr(model, "lm", model).bf16 = use_bf16(precision, device)
    return model.to(device)


def keep_freed_memory():
    """Ask the C library to keep freed memory for the next tensor: getting it anew takes a tenth of a step."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    # glibc has it. M_MMAP_THRESHOLD: only larger tensors than 64 MiB (before glibc 2.35: 32) go back at once
    if mallopt and (mallopt(-3, 2**26) or mallopt(-3, 2**25)):
        mallopt(-1, 2**28)   # M_TRIM_THRESHOLD: with more than 256 MiB unused at the end, that goes back


def peak_memory(device):
    """The most memory that this process has used so far, in MB: the GPU's, or else its own."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    status = Path("/proc/self/status")   # Linux; what getrusage tells there begins at the peak of the parent
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:   # Windows
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024   # bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def check_compiler(device):
    """UserError if torch finds nothing to compile with."""
    try:
        torch.compile(lambda x: x + 1)(torch.ones(1, device=device))
    except RuntimeError as error:
        lines = [line for line in str(error).splitlines() if line.strip() and not line.endswith("raised:")]
        raise UserError(f"--compile: torch cannot compile here ({''.join(lines[:1]):.80}); install a C++ "
                        "compiler (on a GPU: triton), or leave --compile out") from None


def compile_blocks(lm):
    """Let torch compile each block, once for any number of tokens, when it is first used."""
    for module in lm.modules():
        if isinstance(module, Block):
            module.compile(dynamic=True)
