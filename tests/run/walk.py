"""A run with little to do: a random walk, all of whose parts must come through a stop."""

import json

import torch

from minippo.ppo import AdaptiveKL
from minippo.run.flags import StageConfig
from minippo.run.stage import Run


class Walk(torch.nn.Module):
    """Its weight takes steps from the stage's generator and from torch's."""

    def __init__(self, start=0.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((3,), start, dtype=torch.float64))


def corpus(folder, word="film"):
    """A small file of rows that fill all parts, rows.txt; returns its name."""
    path = folder / "rows.txt"
    path.write_text("\n".join(f"{word} {i}" for i in range(150)))
    return str(path)


def flags_of(folder, **flags):
    """A StageConfig whose --out is the folder; it saves after every iteration."""
    usual = {"out": str(folder), "device": "cpu", "precision": "fp32", "save_every": 0.0}
    return StageConfig(**usual | {"data": str(folder / "rows.txt")} | flags)


def walk(folder, total, stop=None, start=0.0, **flags):
    """Run `total` iterations; `stop(iteration)` may raise or send a signal. Returns where the walk ends."""
    with Run(flags_of(folder, **flags), {}) as run:
        model, steering = Walk(start), AdaptiveKL(1.0, 2.0, 100.0)
        optimizer = torch.optim.Adam(model.parameters(), 0.1)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1 / (n + 1))
        for iteration in run.iterations(total, model=model, optimizer=optimizer, schedule=schedule,
                                        steering=steering):
            draws = torch.rand(3, generator=run.generator) + 2 * torch.rand(3)
            optimizer.zero_grad()
            (steering.kl_coef * model.weight * draws).sum().backward()
            optimizer.step()
            schedule.step()
            steering.update(iteration, 40)
            run.log({"x": model.weight[0].item()}, 1)
            if stop:
                stop(iteration)
    return [*model.weight.tolist(), steering.kl_coef]


def values(folder):
    """What was recorded, iteration by iteration."""
    return [json.loads(line)["x"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def interrupt_at(last):
    def stop(iteration):
        if iteration == last:
            raise RuntimeError("power cut")
    return stop
