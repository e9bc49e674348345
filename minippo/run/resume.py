"""state.pt: all that a stopped run needs to go on to the same end."""

import hashlib

import torch
import torch.nn as nn

from minippo.run import checkpoint, parallel
from minippo.run.errors import UserError
from minippo.run.sizes import AROUND_A_TENSOR


def save(path, about, done, generator, training):
    """Write the state after `done` iterations; `restore` reads it.

    about      what the run is, a dict: settings and origin
    training   what changes while training: with state_dict() and load_state_dict(), or plain attributes
    """
    drawn = random_states(generator)   # of all processes; the first writes
    if parallel.rank():
        return
    states = {name: x.state_dict() if hasattr(x, "state_dict") else vars(x) for name, x in training.items()}
    checkpoint.save_tensors(path, about | drawn | {"iteration": done, "training": states})


def restore(path, about, total, generator, training):
    """Put a saved state into what is trained; returns how many of the iterations it has done."""
    damaged = UserError(f"{path}: damaged, or of another program; begin again with --overwrite")
    try:
        state = checkpoint.load_tensors(path, largest(training))
    except UserError:
        raise damaged from None
    try:
        checkpoint.check_settings(path, state["settings"], about["settings"])
        if state["origin"] != about["origin"]:
            raise UserError(f"{path}: the data, models, file of --score or device that this run began "
                            "with have changed; begin again with --overwrite")
        if type(state["iteration"]) is not int or not 1 <= state["iteration"] <= total:
            raise damaged
        if state["torch"].dim() != 2:   # of an earlier version
            raise damaged
        if len(state["torch"]) != parallel.count():
            before = len(state["torch"])
            how = f"torchrun --nproc-per-node {before}" if before > 1 else "no torchrun"
            raise UserError(f"{path}: of a run of {before} {'processes' if before > 1 else 'process'}; go on "
                            f"with {how}, or begin again with --overwrite")
        generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"][parallel.rank()].clone())
        if state["cuda"] is not None:   # of a run on the same kind of device: see `origin`
            torch.cuda.set_rng_state(state["cuda"])
        for name, x in training.items():
            put_back(x, state["training"][name])
    except UserError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError):
        raise damaged from None
    return state["iteration"]


def largest(training):
    """Bytes that its state.pt may have: of each weight AdamW keeps three tensors; 16 MiB for all else."""
    modules = [x for x in training.values() if isinstance(x, nn.Module)]
    weights = [x for module in modules for x in module.state_dict().values()]
    return sum(4 * (x.nbytes + AROUND_A_TENSOR) for x in weights) + 2**24


def put_back(x, state):
    """A saved state into what is trained; KeyError if it has other attributes."""
    if hasattr(x, "load_state_dict"):
        x.load_state_dict(state)
    elif state.keys() != vars(x).keys():
        raise KeyError(*state.keys() ^ vars(x).keys())
    else:
        vars(x).update(state)


def random_states(generator):
    """The states of the stage's generator, and of torch's (dropout) in each process, a dict."""
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    return {"generator": generator.get_state(), "cuda": cuda,
            "torch": parallel.everywhere(torch.get_rng_state())}


def digest(*things):
    """A fingerprint of modules (their weights) and of anything with a repr."""
    sha = hashlib.sha256()
    for thing in things:
        if isinstance(thing, nn.Module):
            for name, x in thing.state_dict().items():
                sha.update(name.encode())
                sha.update(x.detach().cpu().contiguous().numpy().tobytes())
        else:
            sha.update(repr(thing).encode())
    return sha.hexdigest()
