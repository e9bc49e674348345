"""Several processes, begun by torchrun, that train as one.

All draw the same random numbers and see the same batch. Of each call of a model every process computes
some rows; the outputs are put together, so every process has all of them, and whitening, KL and losses are
computed as if it were alone. Backward each process has the gradient of its own rows, and
DistributedDataParallel adds them up.
"""

import os
import sys
from contextlib import contextmanager
from datetime import timedelta
from functools import partial

import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from minippo.run.errors import UserError
from minippo.tokens import PAD

PATIENCE = timedelta(minutes=10)   # with a process that has not left and does not answer; it may download


def count():
    """How many processes there are: 1 unless torchrun began this one."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def rank():
    """The number of this process. 0 alone writes."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def silent():
    """Whether this process leaves it to another one of this machine to say what all have to say."""
    return count() > 1 and int(os.environ["LOCAL_RANK"]) > 0


def connect(device):
    """Wait for the others. UserError for a device on which several processes have not been tried."""
    if count() > 1:
        if device.type != "cpu":
            raise UserError(f"--device {device.type}: several processes compute on CPUs so far; "
                            "give --device cpu, or one process")
        try:
            dist.init_process_group("gloo", timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"the processes of torchrun cannot reach each other ({error}); is "
                            "GLOO_SOCKET_IFNAME the network that joins them?") from None


@contextmanager
def first_alone():
    """Process 0 goes through the block before the others: it alone downloads, and finds mistakes."""
    if rank():
        dist.barrier()
    yield
    if count() > 1 and not rank():
        dist.barrier()


def anywhere(*flags):
    """For each of these truths whether it holds in some process."""
    if count() == 1:
        return flags
    found = torch.tensor([bool(flag) for flag in flags], dtype=torch.uint8)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return [bool(flag) for flag in found]


def everywhere(x):
    """A tensor of each process, one below the other; all have the same shape."""
    if count() == 1:
        return x[None]
    found = [torch.empty_like(x) for _ in range(count())]
    dist.all_gather(found, x)
    return torch.stack(found)


def leave():
    """After training: what is left to do the first process does alone. SystemExit in all others."""
    if count() > 1:
        dist.destroy_process_group()
        if rank():
            sys.exit()


@contextmanager
def quick_exit():
    """Of several processes each leaves from here, torch not taken apart: its threads may abort the process
    while that goes on, and torchrun would take a run that ended well for a failed one."""
    status = 0
    try:
        yield
    except SystemExit as error:
        if count() == 1:
            raise
        status = error.code or 0
    if count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def check_same(text):
    """UserError unless all processes give the same text (of the same length)."""
    found = everywhere(torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8))
    if (found != found[0]).any():
        raise UserError("the processes do not begin from the same data, models and --out; if they are on "
                        "several machines, put these where all see them")


def lost(error):
    """Whether a RuntimeError comes from the network: another process is gone, or did something else."""
    return count() > 1 and "gloo" in str(error).lower()


class Spread:
    """Something called with rows, (query, response, ...): each process computes its share of them.

    call      returns tensors, or a tuple of them: (B, ...) put together in the order of the rows, or 0-d,
              a mean over the real tokens of the responses; anything else stays what it is
    trained   the module whose gradients are added up; None: call, if it is one that is trained
    """

    def __init__(self, call, trained=None):
        self.model, self.spread = call, call   # model: whose attributes these are, too
        if trained is None and any(p.requires_grad for p in getattr(call, "parameters", list)()):
            trained = call
        if trained is not None:
            self.spread = DistributedDataParallel(Called(trained, call), gradient_as_bucket_view=True)

    def __getattr__(self, name):
        return getattr(self.model, name)

    def __call__(self, query, response, *others):
        if not dist.is_initialized():   # the other processes have left
            return self.model(query, response, *others)
        rows, real = mine(len(query)), response != PAD
        outputs = self.spread(query[rows], response[rows], *others)
        share = real[rows].sum() / real.sum().clamp(min=1)
        whole = [Whole.apply(x if x.dim() else x * share, rows, len(query))
                 if isinstance(x, torch.Tensor) else x
                 for x in (outputs if isinstance(outputs, tuple) else [outputs])]
        return tuple(whole) if isinstance(outputs, tuple) else whole[0]

    def generate(self, query, length, generator=None):
        """As ActorCritic.generate, with the numbers that one process alone would draw."""
        if not dist.is_initialized():
            return self.model.generate(query, length, generator)
        rows, draws = mine(len(query)), torch.rand(length, len(query), generator=generator)
        response = self.model.generate(query[rows], length, draws[:, rows])
        response = F.pad(response, (0, length - response.shape[1]), value=PAD)
        response = Whole.apply(response, rows, len(query))
        return response[:, :max(1, (response != PAD).sum(1).max())]


def spread(call, trained=None):
    """What is called in the place of `call`: the rows dealt out if torchrun began several processes.

    trained   a module, given to `call` before all else; None: call may be one itself
    """
    call = partial(call, trained) if trained else call
    return Spread(call, trained) if count() > 1 else call


def unwrapped(x):
    """What a Spread was made of; anything else as it is."""
    return x.model if isinstance(x, Spread) else x


class Called(nn.Module):
    """A module that does `call`: the form in which DistributedDataParallel takes it."""

    def __init__(self, trained, call):
        super().__init__()
        self.trained, self.called = trained, [call]   # in a list: it may be the module itself

    def forward(self, *given):
        return self.called[0](*given)


def mine(total):
    """Which of so many rows this process computes; if there are too few, the first a second time."""
    rows = torch.arange(total)[rank()::count()]
    return rows if len(rows) else torch.arange(1)


class Whole(torch.autograd.Function):
    """Every process's rows (or its 0-d part) -> all rows (or the sum), the same in every process."""

    @staticmethod
    def forward(ctx, x, rows, total):
        ctx.own = rows if x.dim() else None
        ctx.weight = float(rank() < total)   # 0: the first row a second time
        whole = x.new_zeros(total, *x.shape[1:]) if x.dim() else x * ctx.weight
        if x.dim() and ctx.weight:
            whole[rows] = x
        dist.all_reduce(whole)   # every row comes from one process; all others add 0
        return whole

    @staticmethod
    def backward(ctx, gradient):
        own = gradient if ctx.own is None else gradient[ctx.own]
        return own * (ctx.weight * count()), None, None   # DistributedDataParallel takes the mean
