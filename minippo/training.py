"""What stages 1 and 2 minimise, how the learning rate moves, and one step that refuses NaN."""

import torch
import torch.nn.functional as F
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LambdaLR

from minippo.tokens import PAD, Packed


def cross_entropy(lm, states, response):
    """Nats per real token of the responses, a scalar. states (B, R + 1, D) of `lm.states`; response (B, R)

    Only real tokens go through the head, some at a time: their logits are what takes memory and time.
    """
    packed = Packed(response != PAD)
    states, tokens = packed.pack(states[:, :-1]), packed.pack(response)
    with lm.autocast():   # entered once: one bfloat16 copy of the head for all parts
        nats = sum(F.cross_entropy(lm.logits(x).float(), y, ignore_index=PAD, reduction="sum")
                   for x, y in zip(states.split(256), tokens.split(256)))
    return nats / packed.count


def linear_decay(optimizer, steps, warmup=0.0):
    """Scheduler: up to the optimizer's rate over a share `warmup` of the steps, then down to 0.

    Without warmup step t = 1 ... N has the rate lr (1 - (t - 1) / N), as in Ziegler et al. 2019.
    """
    rising = round(warmup * steps)
    falling = max(1, steps - rising)
    return LambdaLR(optimizer, lambda n: (n + 1) / rising if n < rising else (steps - n) / falling)


SCHEDULES = {"linear": linear_decay, "cosine": CosineAnnealingLR,   # (optimizer, steps) -> scheduler
             "constant": lambda optimizer, steps: ConstantLR(optimizer, 1.0)}


def step(model, optimizer, schedule, loss, max_grad_norm=1.0):
    """One optimizer step on a loss; returns the gradient's norm before clipping.

    Raises   NonFiniteError before anything changes, if the loss or a gradient is not finite
    """
    optimizer.zero_grad()
    loss.backward()
    norm = clip_gradients(model, max_grad_norm, loss=loss)
    optimizer.step()
    schedule.step()
    return norm


def clip_gradients(model, max_norm, where="", **numbers):
    """Scale the gradients down to a joint norm of at most max_norm (0 = never).

    Returns  their norm before, a number
    Raises   NonFiniteError naming the first of the numbers, then of the gradients, that is not finite
    """
    check_finite(where, **numbers)
    gradients = {f"gradient of {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    norm = get_total_norm(gradients.values())
    if not norm.isfinite():
        check_finite(where, **gradients, **{"norm of all gradients": norm})
    clip_grads_with_norm_(model.parameters(), max_norm or torch.inf, norm)
    return norm.item()


class NonFiniteError(ArithmeticError):
    """A tensor holds NaN or infinity; the text says which, and where in the run."""


def check_finite(where="", **tensors):
    """NonFiniteError naming the first of these tensors or numbers that holds NaN or infinity."""
    for name, x in tensors.items():
        if not torch.as_tensor(x).isfinite().all():
            raise NonFiniteError(f"{where}{name} is not finite")
