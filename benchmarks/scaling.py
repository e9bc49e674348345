"""Tokens per second and memory of each stage with several processes, by the size of the model.

    python -m benchmarks.scaling
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist

from minippo.memory import PPOMemory
from minippo.policy import ActorCritic, frozen
from minippo.ppo import PPOConfig, collect, update
from minippo.reward import RewardModel, judge, preference_loss
from minippo.run import parallel
from minippo.run.devices import keep_freed_memory, peak_memory, place
from minippo.run.errors import UserError
from minippo.run.exits import launch
from minippo.run.flags import numbers, option
from minippo.tools.shared.tables import markdown
from minippo.training import cross_entropy, linear_decay, step
from minippo.transformer import TransformerConfig, build

CPU = torch.device("cpu")
SIZES = {   # million weights: vocabulary, width, heads, layers; 124 is GPT-2's smallest
    4: (16384, 192, 3, 2), 30: (16384, 512, 8, 7), 124: (50257, 768, 12, 12)}
QUERY, RESPONSE, TEXTS, ROLLOUT = 8, 24, 32, 64   # tokens, tokens, texts per step, responses per iteration
STAGES = ("pretrain", "reward", "ppo")


@dataclass
class Config:
    sizes: str = option("4,30,124", f"million weights: some of {', '.join(map(str, SIZES))}")
    processes: str = option("1,2,4", "how many processes, with commas between them")
    threads: int = option(0, "threads of each process; 0: the machine's cores, shared out", low=0)
    steps: int = option(3, "steps that are timed, after one that is not", low=1)
    precision: str = option("auto", "precision of the matrix products", choices=("auto", "bf16", "fp32"))
    worker: str = option("", "for this command's own use: one size and one stage, with a comma between them")


def main(config):
    if config.worker:
        work(config)
        return
    found, sizes = [], numbers(config.sizes, int, 1)
    if unknown := set(sizes) - SIZES.keys():
        raise UserError(f"--sizes {min(unknown)}: there is no model of that size; give some of {[*SIZES]}")
    for size in sizes:
        for count in numbers(config.processes, int, 1):
            for stage in STAGES:
                found.append(measured(config, size, count, stage))
                print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    print(table(found) + "\n\n" + exponents(found))


def measured(config, size, count, stage):
    """The figures of one stage, a dict."""
    threads = config.threads or max(1, torch.get_num_threads() // count)
    command = [sys.executable, *f"-m torch.distributed.run --standalone --nproc-per-node {count} -m "
               f"benchmarks.scaling --worker {size},{stage} --steps {config.steps} "
               f"--precision {config.precision}".split()]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, check=False,
                          stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"{stage}, {size} million weights, {count} processes: failed; its lines are above")
    return {"size": size, "processes": count, "stage": stage, "threads": threads} | json.loads(done.stdout)


def work(config):
    """One process of several: prints the figures if it is the first."""
    keep_freed_memory()
    parallel.connect(CPU)
    size, stage = config.worker.split(",")
    vocab, width, heads, layers = SIZES[int(size)]
    torch.manual_seed(0)
    before = peak_memory(CPU)
    lm = build(TransformerConfig(vocab, 0, width=width, heads=heads, layers=layers))
    weights = sum(p.numel() for p in lm.parameters())
    place(lm, CPU, config.precision)
    run, tokens = {"pretrain": pretraining, "reward": preferences, "ppo": ppo}[stage](lm)
    run()
    begin = time.perf_counter()
    for _ in range(config.steps):
        run()
    seconds = (time.perf_counter() - begin) / config.steps
    figures = {"weights": weights, "seconds": seconds, "tokens_per_second": tokens / seconds,
               "mb": peak_memory(CPU) - before, "all_reduce": adding(weights)}
    if not parallel.rank():
        print(json.dumps(figures))


def adding(weights):
    """Seconds in which the processes add up a gradient of so many weights."""
    if parallel.count() == 1:
        return 0.0
    gradient = torch.ones(weights)
    dist.all_reduce(gradient)
    begin = time.perf_counter()
    dist.all_reduce(gradient)
    return time.perf_counter() - begin


def texts(lm, count):
    """Random queries (count, QUERY) and responses (count, RESPONSE) that end."""
    query, response = (torch.randint(1, lm.config.vocab_size, (count, n)) for n in (QUERY, RESPONSE))
    response[:, -1] = lm.end
    return query, response


def pretraining(lm):
    """A step of stage 1 to be called, and its tokens."""
    optimizer = torch.optim.AdamW(lm.parameters(), fused=True)
    schedule = linear_decay(optimizer, 1000)
    nats = parallel.spread(lambda lm, *texts: cross_entropy(lm, lm.states(*texts), texts[1]), lm)

    def run():
        step(lm, optimizer, schedule, nats(*texts(lm, TEXTS)))
    return run, TEXTS * (QUERY + RESPONSE)


def preferences(lm):
    """A step of stage 2 to be called, and its tokens: by both opinions the first half is preferred."""
    reward_model = RewardModel(lm)
    optimizer = torch.optim.AdamW(reward_model.parameters(), fused=True)
    schedule = linear_decay(optimizer, 1000)
    judged = parallel.spread(judge, reward_model)

    def run():
        opinions, nats = judged(*texts(lm, TEXTS), 0.5)
        chosen, rejected = opinions.chunk(2)
        step(reward_model, optimizer, schedule, nats + 2 * preference_loss(chosen, rejected))
    return run, TEXTS * (QUERY + RESPONSE)


def ppo(lm):
    """An iteration of stage 3 to be called, and its sampled tokens."""
    policy = ActorCritic(lm).eval()
    optimizer = torch.optim.Adam(policy.parameters(), fused=True)
    models = [parallel.spread(x) for x in (policy, policy.reference(), frozen(RewardModel(lm)))]
    config, memory = PPOConfig(missing_end_score=0.0), PPOMemory()
    generator = torch.Generator().manual_seed(0)

    def run():
        query = torch.randint(1, lm.config.vocab_size, (ROLLOUT, QUERY), generator=generator)
        rollout, _ = collect(*models, query, config, generator)
        memory.clear()
        memory.store(rollout)
        update(models[0], optimizer, memory, config, generator)
    return run, ROLLOUT * RESPONSE


def table(found):
    """Markdown: a row for each size, stage and number of processes."""
    alone = {(x["size"], x["stage"]): x["seconds"] for x in found if x["processes"] == 1}
    rows = []
    for x in found:
        first = alone.get((x["size"], x["stage"]))
        rows.append([f"{x['weights'] / 1e6:.1f}", x["stage"], f"{x['processes']} x {x['threads']}",
                     f"{x['tokens_per_second']:,.0f}", f"{first / x['seconds']:.2f}" if first else "",
                     f"{x['mb']:,.0f}", f"{1e6 * x['mb'] / x['weights']:.1f}",
                     f"{1000 * x['all_reduce']:,.0f}"])
    return markdown(["million weights", "stage", "processes x threads", "tokens/s", "of one process's",
                     "MB per process", "bytes per weight", "adding a gradient, ms"], rows)


def exponents(found):
    """Markdown: how seconds and memory of each stage grow with the weights, as fitted powers."""
    rows = []
    for stage in STAGES:
        for count in sorted({x["processes"] for x in found}):
            mine = [x for x in found if (x["stage"], x["processes"]) == (stage, count)]
            if len(mine) > 1:
                size = np.log([x["weights"] for x in mine])
                slopes = (np.polyfit(size, np.log([x[name] for x in mine]), 1)[0]
                          for name in ("seconds", "mb"))
                rows.append([stage, str(count), *(f"{slope:.2f}" for slope in slopes)])
    return markdown(["stage", "processes", "seconds ~ weights to the", "memory ~ weights to the"], rows)


if __name__ == "__main__":
    launch(main, Config, __doc__)
