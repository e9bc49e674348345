"""Peak memory of one PPO iteration (that of benchmarks/iteration.py): ours and TRL's.

Each side runs in processes of its own, in turn, --pairs times, with the same settings and lengths. Reported
are the peak of the whole process, and how far it rose above that of an iteration of a tiny model, when all
imports were done: imports are most of the whole. In MB. First the check of benchmarks/iteration.py, that
both compute the same, is made.
"""

import json
import subprocess
import sys
from dataclasses import dataclass

import torch

from benchmarks import iteration, models
from benchmarks.paired import ENOUGH, say, short, spread
from minippo.run.devices import keep_freed_memory, peak_memory
from minippo.run.errors import UserError
from minippo.run.exits import launch
from minippo.run.flags import option
from minippo.tokens import PAD

CPU = torch.device("cpu")


@dataclass
class Config:
    GROUP = "what is measured"
    peer: str = option("trl-0.11.4", "TRL's release; each needs an environment of its own",
                      choices=tuple(models.RELEASES))
    lengths: str = option("fixed", "lengths of the responses: all the longest, or 8 to that",
                          choices=("fixed", "varied"))
    shape: str = option("s", "the model", choices=("s", "tiny"))
    pairs: int = option(ENOUGH, "processes of each side", low=1)
    seed: int = option(0, "fixes weights, queries and lengths", low=0)
    side: str = option("", "measure this side in this process: what the processes are started with",
                       choices=("", "ours", "theirs"))


def main(config):
    models.need("trl", models.RELEASES[config.peer])
    if config.side:
        print(json.dumps(one_side(config)))
        return
    same = iteration.agreement(settings_of(config))
    found = {"ours": [], "theirs": []}
    for _ in range(config.pairs):
        for side, seen in found.items():
            seen.append(in_a_process(config, side))
    if found["ours"][0]["tokens"] != found["theirs"][0]["tokens"]:
        raise UserError("the two sampled different numbers of tokens; they did not do the same work")
    figures = {f"{side}_{name}": spread([x[name] for x in seen])
               for side, seen in found.items() for name in ("peak", "above_imports")}
    shares = {f"share_of_{name}": spread([a[name] / b[name] for a, b in zip(*found.values())])
              for name in ("peak", "above_imports")}
    say("memory", config, unit="MB", **figures, **shares,
        pairs=config.pairs, tokens=found["ours"][0]["tokens"], agreement=same)


def settings_of(config, **changes):
    """The settings of benchmarks/iteration.py."""
    same = {name: getattr(config, name) for name in ("peer", "lengths", "shape", "seed")}
    return iteration.Config(**same | changes)


def one_side(config):
    """Peak memory, how far above the imports, and the tokens sampled, a dict. One iteration."""
    keep_freed_memory()   # as every run of ours does
    make = iteration.ours_alone if config.side == "ours" else iteration.theirs_alone
    make(settings_of(config, shape="tiny"))().iteration()   # imports all that is imported late
    before = peak_memory(CPU)
    side = make(settings_of(config))()
    side.iteration()
    after = peak_memory(CPU)
    tokens = int((side.response != PAD).sum())
    return {"peak": short(after), "above_imports": short(after - before), "tokens": tokens}


def in_a_process(config, side):
    flags = [f"--{name}={getattr(config, name)}" for name in ("peer", "lengths", "shape", "seed")]
    done = subprocess.run([sys.executable, "-m", "benchmarks.memory", f"--side={side}", *flags],
                          capture_output=True, text=True)
    if done.returncode:
        why = (done.stderr.strip() or "no message").splitlines()[-1]
        raise UserError(f"the process of {side} failed ({why}); run it alone: --side {side}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    launch(main, Config, __doc__)
