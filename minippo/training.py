"""What all three stages do around their loops."""

import os
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.optim.lr_scheduler import LambdaLR

from minippo import checkpoint, corpora, data
from minippo.config import settings
from minippo.errors import UserError
from minippo.files import hold
from minippo.finite import check_finite, clip_gradients
from minippo.tokens import PAD

FINISHED, UNFINISHED = "a finished run", "an unfinished run"
WITH_RESUME = {FINISHED: "keep it with --resume, ", UNFINISHED: "go on with --resume, "}


def start(config):
    """From a config: device, CPU generator of every random choice, rows by part, output folder."""
    folder = Path(config.out)
    check_free(folder, config)   # said before anything takes time
    device = pick_device(config.device)
    if hasattr(config, "model"):
        before = checkpoint.read_config(config.model)["settings"].get("data")
        if before not in (None, config.data):
            print(f"note: {config.model} was trained on --data {before}, not on {config.data}; "
                  "unless you mean that, give the same",
                  file=sys.stderr)
    torch.manual_seed(config.seed)  # for initialisation and dropout
    generator = torch.Generator().manual_seed(config.seed)
    parts = data.split(corpora.read(config.data))
    claim(folder)
    check_free(folder, config)   # another run may have ended here meanwhile
    return device, generator, parts, folder


def claim(folder):
    """Make the folder to write, and keep other processes from it until this one ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        hold(folder / "metrics.jsonl")
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be written ({error.strerror}); "
                        "name another folder") from None


def check_free(folder, config):
    """UserError unless a run with these flags may write to a folder; SystemExit if it is done."""
    if not config.out.strip():
        raise UserError("--out is empty; name a folder")
    read = [getattr(config, name) for name in ("model", "reward") if hasattr(config, name)]
    if os.path.realpath(folder) in map(os.path.realpath, read):
        raise UserError(f"--out {folder} is also read from; name another folder")
    if config.resume and config.overwrite:
        raise UserError("--resume keeps the run that is there, --overwrite deletes it; give one")
    found = held_by(folder)
    if found and not (config.overwrite or config.resume and found in WITH_RESUME):
        raise UserError(f"--out {folder} holds {found}: {WITH_RESUME.get(found, '')}"
                        "delete it with --overwrite, or name another --out")
    if found == FINISHED and config.resume:
        before = checkpoint.read_config(folder)["settings"]
        checkpoint.check_settings(folder, before, settings(config))
        for name in read:
            if finished_at(name) > finished_at(folder):
                print(f"note: {name} is newer than {folder}; --overwrite makes it anew",
                      file=sys.stderr)
        print(f"{folder}: finished already")
        sys.exit(0)


def held_by(folder):
    """FINISHED, UNFINISHED, or the name of a file that is left in the folder, "" if none."""
    there = {name for name in checkpoint.FILES
             if os.path.exists(folder / name)}   # Path.exists raises for a name too long
    record = folder / "metrics.jsonl"
    begun = os.path.exists(record) and record.stat().st_size > 0
    if "state.pt" in there or begun and not there:
        return UNFINISHED
    if {"config.json", "model.pt", "tokenizer.json"} <= there:
        return FINISHED
    return min(there, default="")


def finished_at(folder):
    """When the run in a folder was finished, seconds since 1970; 0 if it is not there."""
    path = Path(folder) / "config.json"
    return path.stat().st_mtime if path.exists() else 0.0


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


def cross_entropy(lm, states, response):
    """Nats per real token of the responses, a scalar.

    Only those go through the head, some at a time: their logits are what takes memory and time.

    states    (B, R + 1, D) of `lm.states`; response (B, R)
    """
    pad = (response == PAD).flatten()
    real = len(pad) - int(pad.sum())
    kept = pad.argsort(stable=True)[:real + -real % 64]   # of few sizes: see data.WIDTHS
    states, tokens = states[:, :-1].flatten(0, 1)[kept], response.flatten()[kept]
    with lm.autocast():   # entered once: one bfloat16 copy of the head for all parts
        nats = sum(F.cross_entropy(lm.logits(x).float(), y, ignore_index=PAD, reduction="sum")
                   for x, y in zip(states.split(256), tokens.split(256)))
    return nats / real


def linear_decay(optimizer, steps, warmup=0.0):
    """Scheduler: up to the optimizer's rate over a share `warmup` of the steps, then down to 0.

    Without warmup step t = 1 ... N has the rate lr (1 - (t - 1) / N), as in Ziegler et al. 2019.
    """
    rising = round(warmup * steps)
    falling = max(1, steps - rising)
    return LambdaLR(optimizer, lambda n: (n + 1) / rising if n < rising else (steps - n) / falling)


def step(model, optimizer, schedule, loss, max_grad_norm=1.0):
    """One optimizer step on a loss; returns the gradient's norm before clipping.

    Raises   NonFiniteError before anything changes, if the loss or a gradient is not finite
    """
    check_finite(loss=loss)
    optimizer.zero_grad()
    loss.backward()
    norm = clip_gradients(model, max_grad_norm)
    optimizer.step()
    schedule.step()
    return norm
