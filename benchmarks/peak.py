"""How much of the machine's float32 matmul rate one PPO iteration of model S uses (benchmarks/iteration.py).

What counts are the matrix products that the iteration cannot do without, of real tokens only; padding, norms,
softmax, sampling, value head and optimizer count nothing, though their time does. A forward pass of a row of
n tokens of which r are predicted, in L layers of width D with a vocabulary of V:

    L (24 D^2 n  +  2 D n (n + 1))  +  2 D V r

    24 D^2 n      2 per weight and token: 4 D^2 weights of attention, 8 D^2 of the MLP
    2 D n (n+1)   queries by keys, and weights by values: 2 D each for every pair of a token and one
                  that it sees, n (n + 1) / 2 of them
    n             query + response - 1: the last token of a response predicts nothing

sample: one pass (with a cache each token is computed once). collect: two, of policy and reference. update:
three times a pass (backward costs two) per epoch. The rate is that of the fastest product just afterwards.
"""

import time
from dataclasses import dataclass

from benchmarks import iteration, models
from benchmarks.ours import in_bf16
from benchmarks.paired import gates, peak, rounds, say, short, spread
from minippo.run.devices import check_compiler, compile_blocks
from minippo.run.exits import launch
from minippo.run.flags import option

PHASES = ("sample", "collect", "update")


@dataclass
class Config(iteration.Config):
    peer: str = option("", "unused: no peer is needed", choices=("",))


def forward_flops(shape, query, lengths):
    """Operations of one forward pass over rows of `query` tokens and responses of these lengths, (B,)."""
    n = query + lengths - 1
    layers = shape.layers * (24 * shape.width**2 * n + 2 * shape.width * n * (n + 1))
    return int((layers + 2 * shape.width * shape.vocab_size * lengths).sum())


def main(config):
    models.check(config)
    side = iteration.ours_alone(config)()
    in_bf16(config.bf16, side.policy, side.reference)
    if config.compile:
        check_compiler(side.query.device)
        compile_blocks(side.policy.lm)
    shape = models.config(config.shape)
    one = forward_flops(shape, config.query, side.lengths)
    flops = {"sample": one, "collect": 2 * one, "update": 3 * config.epochs * one}
    good, thrown = rounds([lambda: (phases(side), peak())], config)
    seconds, peaks = zip(*(found for ((_, found),) in good))
    whole = [sum(flops.values()) / sum(each.values()) / rate / 1e9 for each, rate in zip(seconds, peaks)]
    table = {name: {"gflop": short(flops[name] / 1e9), "seconds": spread([each[name] for each in seconds]),
                    "share": spread([flops[name] / each[name] / rate / 1e9
                                     for each, rate in zip(seconds, peaks)])}
             for name in PHASES}
    say("peak", config, share=spread(whole),
        gflop=short(sum(flops.values()) / 1e9), phases=table, peak_gflops=spread(peaks),
        **gates(config, thrown))


def phases(side):
    """One iteration, and the seconds of each phase of it, a dict."""
    generate, spent = side.policy.generate, []

    def timed(*words):
        start = time.perf_counter()
        response = generate(*words)
        spent.append(time.perf_counter() - start)
        return response
    side.policy.generate = timed
    start = time.perf_counter()
    rollout, _ = side.collect()
    middle = time.perf_counter()
    side.update(rollout)
    end = time.perf_counter()
    del side.policy.generate
    return {"sample": spent[0], "collect": middle - start - spent[0], "update": end - middle}


if __name__ == "__main__":
    launch(main, Config, __doc__)
