"""Where to compute, and how precisely."""

import torch

from minippo.run.errors import UserError


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
