"""One PPO iteration against TRL: 64 queries of 8 tokens, 48 new tokens, 4 epochs of 4 minibatches.

Model S: 4 layers, width 256, 4 heads, vocabulary 4,096, random weights; float32, Adam. Sampling, scoring
and update are timed together. First one step of both on the same responses has to give the same log-probs,
values, score, KL, value loss and change of all weights. Both sides give every response the same length: all
tokens ("fixed"), or from 8 to all, drawn once ("varied"). The score, the share of even tokens, costs nothing.

trl-0.11.4   PPOTrainer: `generate` with the whole batch at once, then `step`. Value head on the policy.
trl-1.12.0   trl.experimental.ppo: one call of `train()` that is one iteration long; what it does before and
             after its loop is timed, too (next to nothing: models and optimizer are set up elsewhere).
             A separate critic on both sides. Its old log-probs are those of sampling, so where an end is
             forced ("varied") they are 0: that changes what it learns, not how long it takes.
"""

from dataclasses import dataclass

import torch
from torch.nn.utils import parameters_to_vector

from benchmarks import models
from benchmarks.ours import Ours, in_bf16
from benchmarks.paired import PairedConfig, agree, compare, peak, say, short
from minippo.policy import ActorCritic
from minippo.reward import RewardModel
from minippo.run.devices import check_compiler, compile_blocks
from minippo.run.errors import UserError
from minippo.run.exits import launch
from minippo.run.flags import option
from minippo.tokens import PAD
from minippo.transformer import build as build_lm

TOLERANCE = 2e-3   # of the largest number: Adam divides small gradients, and their rounding, by their size


@dataclass
class Config(PairedConfig):
    GROUP = "what is timed"
    peer: str = option("trl-0.11.4", "TRL's release; each needs an environment of its own",
                       choices=tuple(models.RELEASES))
    lengths: str = option("fixed", "lengths of the responses: all the longest, or 8 to that",
                          choices=("fixed", "varied"))
    shape: str = option("s", "the model", choices=("s", "tiny"))
    batch: int = option(64, "responses per iteration", low=4)
    query: int = option(8, "tokens of a query", low=1)
    response: int = option(48, "tokens of the longest response", low=2)
    epochs: int = option(4, "passes over the rollout", low=1)
    minibatches: int = option(4, "optimizer steps per pass", low=1)
    lr: float = option(1e-5, "learning rate", low=0)
    bf16: bool = option(False, "our matrix products in bfloat16; theirs stay in float32")
    compile: bool = option(False, "the blocks of our policy compiled; theirs are not")


def main(config):
    models.need("trl", models.RELEASES[config.peer])
    models.check(config)
    same = agreement(config)
    ours, theirs = build(config)(checked=False)
    in_bf16(config.bf16, ours.policy, ours.reference)
    if config.compile:
        check_compiler(ours.query.device)
        compile_blocks(ours.policy.lm)
    result = compare(ours.iteration, theirs.iteration, config)
    check_lengths(ours, theirs)
    say("iteration", config, **result, tokens=int(ours.lengths.sum()), agreement=same,
        peak_gflops=short(peak()))


def agreement(config):
    """The largest difference of each quantity in one step, a dict; UserError if they differ."""
    sides = build(config)
    return agree(steps_of(*sides(checked=True), untouched=sides(checked=True)[1]), TOLERANCE)


def build(config):
    """A function (checked) -> our side and theirs, on the same weights, queries and lengths.

    checked   one epoch of one minibatch, a policy that has left its reference, and no end before the last
              token: for the check that both compute the same
    """
    theirs_of = theirs_alone(config)

    def sides(checked):
        theirs = theirs_of(checked)
        policy, reference = theirs.as_ours()
        return Ours(policy, reference, *work(config, checked)), theirs
    return sides


def work(config, checked=False):
    """Queries, lengths, epochs, minibatches and learning rate."""
    kind = "fixed" if checked else config.lengths
    query = models.queries(config.batch, config.query, models.config(config.shape).vocab_size, config.seed)
    lengths = models.response_lengths(kind, config.batch, config.response, config.seed)
    return query, lengths, *((1, 1, 1e-3) if checked else (config.epochs, config.minibatches, config.lr))


def theirs_alone(config):
    """A function (checked) -> their side; TRL is imported here."""
    if config.peer == "trl-0.11.4":
        from benchmarks.trl_classic import Classic as Theirs
    else:
        from benchmarks.trl_latest import Latest as Theirs
    return lambda checked=False: Theirs(models.config(config.shape), *work(config, checked), config.seed,
                                        moved=checked)


def ours_alone(config):
    """A function -> our side with weights of its own: no peer is needed, and none imported."""
    def make():
        shape = models.config(config.shape)
        torch.manual_seed(config.seed)
        critic = RewardModel(build_lm(shape)) if config.peer == "trl-1.12.0" else None
        policy = ActorCritic(build_lm(shape), critic).eval()
        return Ours(policy, policy.reference(), *work(config))
    return make


def steps_of(ours, theirs, untouched):
    """Name -> (ours, theirs): of one step on the responses that theirs sampled.

    untouched   theirs once more, which does not learn
    """
    seen = theirs.iteration()   # what TRL logs
    ours.query = untouched.query = theirs.query   # TRL 1.12.0 shuffles them
    seen |= untouched.judge(theirs.response)
    found = ours.learn_from(theirs.response)
    start, mine = weights(untouched), parameters_to_vector(trained(ours.policy)).detach()
    checks = {name: (found[name], torch.as_tensor(x, dtype=torch.float32)) for name, x in seen.items()}
    return checks | {"change of all weights": (mine - start, weights(theirs) - start)}


def trained(policy):
    """Its parameters that are trained."""
    return [p for p in policy.parameters() if p.requires_grad]


def weights(theirs):
    """Their weights in the order of ours, in one row."""
    return parameters_to_vector(trained(theirs.as_ours()[0])).detach().clone()


def check_lengths(ours, theirs):
    """UserError unless both sampled responses of the lengths that were asked for."""
    for name, side in [("ours", ours), ("theirs", theirs)]:
        found = (side.response != PAD).sum(1)
        if not torch.equal(found, ours.lengths):
            raise UserError(f"{name} sampled {int(found.sum())} tokens instead of "
                            f"{int(ours.lengths.sum())}: the two did not do the same work")


if __name__ == "__main__":
    launch(main, Config, __doc__)
