"""How the time of sampling and of an update grows with batch, response length, width and vocabulary.

Each is doubled three times around model S (a quarter, a half, once, twice of it), the others stay: 64 queries
of 8 tokens, 48 new tokens, width 256, vocabulary 4,096; one epoch in minibatches of 16 responses. Reported:
seconds, and the exponent e of seconds ~ size^e, the slope of a straight line through the logarithms. 1 = time
grows in proportion. (Matrix products alone: 1 for batch and vocabulary's part of them, 1 and a little for the
response, 2 for width less the head's 1.) No peer is needed.
"""

import math
from dataclasses import dataclass, replace
from functools import partial

import torch

from benchmarks import models
from benchmarks.ours import Ours
from benchmarks.paired import PairedConfig, gates, rounds, say, short, spread
from minippo.policy import ActorCritic
from minippo.run.exits import launch
from minippo.run.flags import option
from minippo.transformer import build

FACTORS = (0.25, 0.5, 1, 2)
QUANTITIES = ("batch", "response", "width", "vocabulary")
MINIBATCH, QUERY = 16, 8


@dataclass
class Config(PairedConfig):
    GROUP = "what is timed"
    what: str = option("all", "what grows", choices=("all", *QUANTITIES))
    shape: str = option("s", "the model around which it grows", choices=("s", "tiny"))
    batch: int = option(64, "responses, around which the batch grows", low=64)
    response: int = option(48, "tokens of a response, around which its length grows", low=8)
    lr: float = option(1e-5, "learning rate", low=0)


def main(config):
    found, thrown = {}, 0
    for what in QUANTITIES if config.what == "all" else (config.what,):
        found[what], away = growth(what, config)
        thrown += away
    say("growth", config, **found, **gates(config, thrown))


def growth(what, config):
    """Sizes, seconds and exponents of one quantity, a dict; rounds thrown away."""
    sizes, sides = zip(*(sized(what, factor, config) for factor in FACTORS))
    rollouts = [side.collect()[0] for side in sides]
    runs = [side.sample for side in sides]
    runs += [partial(side.update, rollout) for side, rollout in zip(sides, rollouts)]
    good, thrown = rounds(runs, config)
    table = {"sizes": sizes}
    for i, name in enumerate(("sample", "update")):
        each = [[seconds for seconds, _ in one[i * len(sizes):(i + 1) * len(sizes)]] for one in good]
        table[name] = {"exponent": spread([exponent(sizes, seconds) for seconds in each]),
                       "seconds": [spread(column)["median"] for column in zip(*each)]}
    return table, thrown


def sized(what, factor, config):
    """The size that `what` has at this factor, and our side of that size."""
    shape, batch, response = models.config(config.shape), config.batch, config.response
    if what == "batch":
        size = batch = int(batch * factor)
    elif what == "response":
        size = response = int(response * factor)
    elif what == "width":
        size = int(shape.width * factor)
        shape = replace(shape, width=size)
    else:
        size = int(shape.vocab_size * factor)
        shape = replace(shape, vocab_size=size)
    shape = replace(shape, context=QUERY + response)
    torch.manual_seed(config.seed)
    policy = ActorCritic(build(shape)).eval()
    query = models.queries(batch, QUERY, shape.vocab_size, config.seed)
    lengths = models.response_lengths("fixed", batch, response)
    return size, Ours(policy, policy.reference(), query, lengths, 1, max(1, batch // MINIBATCH), config.lr)


def exponent(sizes, seconds):
    """The slope of log seconds against log size, by least squares."""
    x, y = [math.log(size) for size in sizes], [math.log(second) for second in seconds]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    above = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y))
    return short(above / sum((a - mean_x)**2 for a in x))


if __name__ == "__main__":
    launch(main, Config, __doc__)
