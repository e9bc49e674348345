"""A device for tests: the CPU computes its tensors, but none of them may meet a tensor of the CPU.

What a GPU would refuse is refused here: tensors of two devices in one operation, but for numbers
(0-d) and indices on the CPU; and random draws there from a generator of the CPU.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("elsewhere")
DEVICE = torch.device("elsewhere", 0)
INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
MOVING = ("aten::_to_copy", "aten::copy_")


class Elsewhere(torch.Tensor):
    """A tensor that says it is on DEVICE; `inner` holds its numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner):
        self = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, device=DEVICE)
        self.inner = inner
        return self

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})

    def tolist(self):
        return self.inner.tolist()

    def __reduce_ex__(self, protocol):   # as it is saved
        return self.inner.__reduce_ex__(protocol)


class Everywhere(TorchDispatchMode):
    """Inside it tensors can be made on DEVICE and moved there."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


def compute(func, args, kwargs):
    """The result of an operation, where it belongs. RuntimeError if devices are mixed."""
    name = func._schema.name
    checked = (args[0], args[2:], kwargs) if name in INDEXING else (args, kwargs)
    away = {is_away(x) for x in tree_leaves(checked)
            if is_away(x) or (isinstance(x, torch.Tensor) and x.dim())}
    indices_away = name in INDEXING and any(map(is_away, args[1])) and not is_away(args[0])
    if name not in MOVING and (len(away) > 1 or indices_away):
        raise RuntimeError(f"{name}: tensors of two devices")
    goes = any(map(is_away, tree_leaves((args, kwargs))))
    if kwargs.get("device") is not None:
        goes = torch.device(kwargs["device"]).type == DEVICE.type
        kwargs = kwargs | ({"device": "cpu"} if goes else {})
    if goes and kwargs.get("generator") is not None:
        raise RuntimeError(f"{name}: a generator of the CPU on another device")
    result = func(*tree_map(inner, args), **tree_map(inner, kwargs))
    if func._schema.is_mutable and result is not None:   # in place: the tensor that was given
        return args[0]
    return tree_map(lambda x: Elsewhere(x) if isinstance(x, torch.Tensor) else x,
                    result) if goes else result


def is_away(x):
    return isinstance(x, Elsewhere)


def inner(x):
    return x.inner if is_away(x) else x
