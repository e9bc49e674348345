"""A run may be stopped at any moment: state.pt holds all it needs to go on to the same end."""

import hashlib
import os
import signal
import time
from contextlib import contextmanager

import torch
import torch.nn as nn

from minippo import checkpoint
from minippo.config import settings
from minippo.errors import UserError
from minippo.finite import NonFiniteError


@contextmanager
def resumable(config, folder, total, generator, origin, **parts):
    """The iterations still to do, `with resumable(...) as iterations: for iteration in iterations`.

    The whole state is written every `config.save_every` seconds, at the end, and when the run is
    asked to stop. With it the run ends byte for byte as if it had not been stopped (on a CPU).

    generator  the CPU generator of all random choices
    origin     what the run is made from (rows, modules, device): a changed one is refused
    parts      what changes while training, each with state_dict() and load_state_dict();
               `metrics` is one of them
    Raises     NonFiniteError, with the iteration added; KeyboardInterrupt after saving
    """
    path = folder / "state.pt"
    about = {"settings": settings(config), "origin": digest(*origin)}
    with deferred_signals() as signals:
        done = 0
        if path.exists() and not config.overwrite:
            done = restore(path, about, total, generator, parts)
        else:
            checkpoint.clear(folder)
            parts["metrics"].load_state_dict({"bytes": 0, "iterations": 0, "seconds": 0.0})

        def iterations():
            nonlocal done
            saved = time.monotonic()
            while done < total:
                yield done
                done += 1
                if signals or done == total or time.monotonic() - saved >= config.save_every:
                    save(path, about, done, generator, parts)
                    saved = time.monotonic()
                if signals:
                    raise KeyboardInterrupt

        try:
            yield iterations()
            if signals:   # it came after the last iteration
                raise KeyboardInterrupt
        except NonFiniteError as error:
            kept = f"; {path} holds an earlier state" if path.exists() else ""
            raise NonFiniteError(f"iteration {done}: {error}{kept}") from None


def save(path, about, done, generator, parts):
    """Write the state after `done` iterations; `restore` reads it."""
    states = {name: part.state_dict() for name, part in parts.items()}
    checkpoint.save_tensors(path, about | random_states(generator) | {
        "iteration": done, "parts": states})


def restore(path, about, total, generator, parts):
    """Put a saved state into the parts; returns how many of the iterations it has done."""
    damaged = UserError(f"{path}: damaged, or of another program; begin again with --overwrite")
    try:
        state = checkpoint.load_tensors(path)
    except UserError:
        raise damaged from None
    try:
        checkpoint.check_settings(path, state["settings"], about["settings"])
        if state["origin"] != about["origin"]:
            raise UserError(f"{path}: the data, models or device that this run began with have "
                            "changed; begin again with --overwrite")
        if state["iteration"] not in range(1, total + 1):
            raise damaged
        generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])
        if state["cuda"] is not None:   # of a run on the same kind of device: see `origin`
            torch.cuda.set_rng_state(state["cuda"])
        for name, part in parts.items():
            part.load_state_dict(state["parts"][name])
    except UserError:
        raise
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError):
        raise damaged from None
    return state["iteration"]


def random_states(generator):
    """The states of the stage's generator, and of torch's (initialisation, dropout), a dict."""
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    return {"generator": generator.get_state(), "torch": torch.get_rng_state(), "cuda": cuda}


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


@contextmanager
def deferred_signals():
    """Ctrl-C and SIGTERM are noted in the list given; a second one acts at once.

    One that is ignored (of a job in the background) stays so.
    """
    noted = []

    def note(number, frame):
        if noted:
            raise KeyboardInterrupt
        noted.append(number)
        os.write(2, b"\nstopping after this iteration; once more stops at once\n")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)
              if signal.getsignal(number) != signal.SIG_IGN}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
