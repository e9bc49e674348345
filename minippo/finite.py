"""Numbers that are no numbers stop a run before they reach a weight."""

import torch


class NonFiniteError(ArithmeticError):
    """A tensor holds NaN or infinity; the text says which, and where in the run."""


def check_finite(where="", **tensors):
    """NonFiniteError naming the first of these tensors or numbers that is not finite."""
    for name, x in tensors.items():
        if not torch.as_tensor(x).isfinite().all():
            raise NonFiniteError(f"{where}{name} is not finite")


def clip_gradients(model, max_norm, where=""):
    """Scale the gradients down to a joint norm of at most max_norm (0 = never).

    Returns  their norm before, a number
    Raises   NonFiniteError naming the first parameter whose gradient is not finite
    """
    gradients = {f"gradient of {name}": p.grad for name, p in model.named_parameters()
                 if p.grad is not None}
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    if not norm.isfinite():
        check_finite(where, **gradients)
        raise NonFiniteError(f"{where}norm of all gradients is not finite")
    if max_norm:
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    return norm.item()
