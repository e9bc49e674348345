"""What each detail of PPO is worth where the optimum is known: one at a time, off or wrong."""

import contextlib
import sys
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev

import torch
from torch.optim.lr_scheduler import LambdaLR

from minippo import ppo
from minippo.experiments import optimum
from minippo.generation import generate
from minippo.policy import ActorCritic
from minippo.run.errors import UserError
from minippo.run.flags import option
from minippo.training import NonFiniteError

# Student's t, two-sided 95 %, of 2 ... 10 seeds
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass
class Config(optimum.TaskConfig):
    architecture: str = option("decoder", "architecture of the model", choices=tuple(optimum.ARCHITECTURES))
    seed_count: int = option(5, "how many seeds", low=2, high=len(T95) + 1)
    iterations: int = option(40, "rollouts with an update each", low=2)
    rollout_size: int = option(256, "responses per iteration", low=2)
    minibatch_size: int = option(128, "episodes per optimizer step", low=1)
    only: str = option("", "names of the rows to run, with commas between; all if empty")


@dataclass(frozen=True)
class Ablation:
    """A detail, and how it is made wrong from outside.

    settings   fields of the config
    patches    {(module or class, attribute): original -> what stands there instead}
    """
    detail: str
    changed: str
    settings: dict = field(default_factory=dict)
    patches: dict = field(default_factory=dict)


@contextlib.contextmanager
def patched(patches):
    """The attributes are replaced inside, and what they were afterwards, whatever happens."""
    with contextlib.ExitStack() as stack:
        for (owner, name), change in patches.items():
            original = getattr(owner, name)
            stack.callback(setattr, owner, name, original)
            setattr(owner, name, change(original))
        yield


# ------------------------------------------- the faults: original function -> what replaces it

def not_whitened(_):
    return lambda x, mask: x.masked_fill(~mask, 0)


def not_centred(whiten):
    return lambda x, mask: whiten(x, mask, shift_mean=False)


def over_pads_too(_):
    return lambda x, mask: x.float().mean()


def kl_times(factor):
    return lambda rewards: lambda score, old, reference, mask, beta: rewards(
        score, old, reference, mask, factor * beta)


def rewards_times(factor):
    return lambda rewards: lambda *given: factor * rewards(*given)


def k3_as_penalty(rewards):
    def fault(score, logprobs, reference_logprobs, mask, beta):
        k3 = ppo.kl_estimates(logprobs, reference_logprobs)[2]
        return (rewards(score, logprobs, logprobs, mask, 0.0) - beta * k3).masked_fill(~mask, 0)
    return fault


def score_at(place):
    """place: mask (B, R) -> the share (B, R) of the score that each token gets."""
    return lambda rewards: lambda score, logprobs, reference_logprobs, mask, beta: rewards(
        score[:, None] * place(mask), logprobs, reference_logprobs, mask, beta)


def first(mask):
    return (mask.cumsum(1) == 1).float()


def one_early(mask):
    count = mask.cumsum(1)
    return (count == (count[:, -1:] - 1).clamp(min=1)).float() * mask


def one_late(mask):
    """On the first pad, where rewards are masked; a response that fills all columns has none."""
    return (~mask).float() * ((~mask).cumsum(1) == 1)


def evenly(mask):
    return mask / mask.sum(1, keepdim=True)


def returns_of_whitened(rollout):
    def fault(*given):
        right = rollout(*given)
        return replace(right, returns=right.advantages + right.values)
    return fault


def smaller_value_error(_):
    def fault(values, old_values, returns, mask, clip):
        clipped = old_values + (values - old_values).clamp(-clip, clip)
        better = torch.min((values - returns).square(), (clipped - returns).square())
        return ppo.masked_mean(better, mask) / 2
    return fault


def optimistic_policy_loss(policy_loss):
    def fault(logprobs, old_logprobs, advantages, mask, clip):
        ratio = (logprobs - old_logprobs).exp()
        gain = torch.max(advantages * ratio, advantages * ratio.clamp(1 - clip, 1 + clip))
        fraction = policy_loss(logprobs, old_logprobs, advantages, mask, clip)[1]
        return -ppo.masked_mean(gain, mask), fraction
    return fault


def policy_as_reference(collect):
    return lambda policy, reference, *given: collect(policy, policy, *given)


def with_dropout(function):
    """collect or update, which are given the policy first, with dropout 0.1 in it."""
    def fault(policy, *given):
        for module in policy.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.1
        policy.train()
        try:
            return function(policy, *given)
        finally:
            policy.eval()
    return fault


def sampled(temperature=1.0, **filters):
    """Responses sampled otherwise than the log-probabilities say."""
    return lambda _: lambda self, query, length, generator=None: generate(
        self.lm, query, length, temperature * self.temperature, generator=generator, **filters)


def values_at_pads(forward):
    def fault(self, query, response):
        logprobs, _, entropy = forward(self, query, response)
        return logprobs, forward(self, query, response.clamp(min=0))[1], entropy
    return fault


def adam_epsilon(adam):
    return lambda parameters, lr, eps: adam(parameters, lr, eps=1e-8)


def never_zeroed(_):
    return lambda self, set_to_none=True: None


def constant_rate(_):
    return lambda optimizer, steps: LambdaLR(optimizer, lambda n: 1.0)


OFF = 1e9   # a clip so wide never clips
REWARDS, COLLECT, UPDATE = (ppo, "penalized_rewards"), (ppo, "collect"), (ppo, "update")
WHITEN, SAMPLE = (ppo, "whiten"), (ActorCritic, "generate")

ABLATIONS = {
    "baseline": Ablation("as shipped", "nothing"),
    # advantages
    "no-whitening": Ablation("advantages whitened", "not whitened", patches={WHITEN: not_whitened}),
    "no-centring": Ablation("advantages whitened", "scaled only, mean kept",
                            patches={WHITEN: not_centred}),
    "lambda-0": Ablation("lambda", "0", {"lam": 0.0}),
    "lambda-1": Ablation("lambda", "1", {"lam": 1.0}),
    "gamma-0.9": Ablation("gamma", "0.9", {"gamma": 0.9}),
    "pads-in-gae": Ablation("values 0 at pads", "GAE runs through the critic's values of pads",
                            patches={(ActorCritic, "forward"): values_at_pads}),
    "pads-in-means": Ablation("means over real tokens", "over pads too",
                              patches={(ppo, "masked_mean"): over_pads_too}),
    "returns-of-whitened": Ablation("returns before whitening", "from whitened advantages",
                                    patches={(ppo, "Rollout"): returns_of_whitened}),
    # rewards
    "no-kl": Ablation("KL penalty", "none", patches={REWARDS: kl_times(0)}),
    "kl-half": Ablation("KL penalty", "beta halved", patches={REWARDS: kl_times(0.5)}),
    "kl-sign": Ablation("KL penalty", "sign flipped", patches={REWARDS: kl_times(-1)}),
    "kl-k3": Ablation("KL penalty by k1", "by k3", patches={REWARDS: k3_as_penalty}),
    "reference-moves": Ablation("reference frozen", "is the policy itself",
                                patches={COLLECT: policy_as_reference}),
    "score-first": Ablation("score at the last token", "at the first",
                            patches={REWARDS: score_at(first)}),
    "score-early": Ablation("score at the last token", "one token early",
                            patches={REWARDS: score_at(one_early)}),
    "score-late": Ablation("score at the last token", "one token late, on a pad",
                           patches={REWARDS: score_at(one_late)}),
    "score-spread": Ablation("score at the last token", "spread evenly over the tokens",
                             patches={REWARDS: score_at(evenly)}),
    "scale-10": Ablation("scale of the score", "10 times, beta too (same optimum)",
                         patches={REWARDS: rewards_times(10)}),
    "scale-10-weight": Ablation("scale of the score", "10 times, beta too; value loss times 0.005",
                                {"value_coef": 0.005}, {REWARDS: rewards_times(10)}),
    "scale-0.1": Ablation("scale of the score", "0.1 times, beta too (same optimum)",
                          patches={REWARDS: rewards_times(0.1)}),
    "whiten-rewards": Ablation("rewards as they are", "whitened, mean kept",
                               {"whiten_rewards": True}),
    # losses
    "no-clip": Ablation("ratio clip", "off", {"clip": OFF}),
    "policy-min-max": Ablation("pessimistic policy loss", "min and max swapped",
                               patches={(ppo, "policy_loss"): optimistic_policy_loss}),
    "no-value-clip": Ablation("value clip", "off", {"value_clip": OFF}),
    "value-min-max": Ablation("larger of the value errors", "the smaller",
                              patches={(ppo, "value_loss"): smaller_value_error}),
    "no-critic": Ablation("critic", "none: values 0", {"value_coef": 0.0}),
    "no-critic-lambda-1": Ablation("critic and lambda", "none, and lambda 1: clipped REINFORCE",
                                   {"value_coef": 0.0, "lam": 1.0}),
    "value-coef-0.1": Ablation("weight of the value loss", "0.1", {"value_coef": 0.1}),
    "entropy": Ablation("no entropy bonus", "0.05", {"entropy_coef": 0.05}),
    # sampling and dropout
    "sample-colder": Ablation("one temperature", "sampled at 0.7 of it",
                              patches={SAMPLE: sampled(0.7)}),
    "sample-hotter": Ablation("one temperature", "sampled at 1.4 of it",
                              patches={SAMPLE: sampled(1.4)}),
    "sample-top-k": Ablation("plain sampling", "top-k 3", patches={SAMPLE: sampled(top_k=3)}),
    "sample-greedy": Ablation("plain sampling", "greedy", patches={SAMPLE: sampled(top_k=1)}),
    "dropout": Ablation("no dropout", "0.1 in rollouts and updates",
                        patches={COLLECT: with_dropout, UPDATE: with_dropout}),
    "dropout-rollout": Ablation("no dropout", "0.1 in rollouts, so in the old log-probs",
                                patches={COLLECT: with_dropout}),
    "dropout-update": Ablation("no dropout", "0.1 in updates", patches={UPDATE: with_dropout}),
    # optimisation
    "one-epoch": Ablation("epochs", "1", {"epochs": 1}),
    "eight-epochs": Ablation("epochs", "8", {"epochs": 8}),
    "eight-epochs-no-clip": Ablation("epochs and ratio clip", "8, off", {"epochs": 8, "clip": OFF}),
    "adam-epsilon": Ablation("Adam's epsilon 1e-5", "1e-8",
                             patches={(torch.optim, "Adam"): adam_epsilon}),
    "no-decay": Ablation("learning rate falls to 0", "constant",
                         patches={(optimum, "linear_decay"): constant_rate}),
    "no-norm-clip": Ablation("gradient norm clipped", "not clipped", {"max_grad_norm": 0.0}),
    "not-zeroed": Ablation("gradients zeroed", "added up over the whole run",
                           patches={(torch.optim.Optimizer, "zero_grad"): never_zeroed}),
}


def run(ablation, config):
    """Results of an ablation, one per seed; None for a run whose numbers were not finite."""
    changed, results = replace(config, **ablation.settings), []
    with patched(ablation.patches):
        for seed in range(config.seed, config.seed + config.seed_count):
            try:
                results.append(optimum.measure(changed, config.architecture, seed, parts=2))
            except NonFiniteError:
                results.append(None)
    return results


def interval(numbers):
    """Mean and half the width of its 95 % interval, by Student's t over the seeds."""
    return fmean(numbers), T95[len(numbers) - 2] * stdev(numbers) / len(numbers) ** 0.5


def row(ablation, results, baseline):
    """A line of the table. The difference is paired: both runs of a seed have the same task."""
    begin = f"| {ablation.detail} | {ablation.changed} |"
    if None in results:
        return f"{begin} stopped: not finite on {results.count(None)} of {len(results)} seeds ||||"
    gap, width = interval([run.gap for run in results])
    more, more_width = interval([run.gap - was.gap for run, was in zip(results, baseline)])
    difference = f"{more:+.2f} ± {more_width:.2f}" if results is not baseline else ""
    if abs(more) > more_width:
        difference = f"**{difference}**"
    half, end = (fmean(run.curve[i] for run in results) for i in (1, 2))
    return f"{begin} {gap:.2f} ± {width:.2f} | {difference} | {half:.3f} | {end:.3f} |"


def head(config):
    """What the table shows, and its first lines."""
    return (f"{config.architecture}, {config.seed_count} seeds from {config.seed}, each with "
            f"{config.iterations} iterations of {config.rollout_size} responses; "
            f"beta {config.kl_coef:g}, lambda {config.lam:g}, gamma {config.gamma:g}, clips "
            f"{config.clip:g} and {config.value_clip:g}, value loss times {config.value_coef:g}, "
            f"{config.epochs} epochs, learning rate {config.lr:g}. 95 % intervals over the seeds; "
            "bold: the interval leaves out 0.\n\n"
            "| detail | changed to | gap, % | more than the baseline, paired by seed "
            "| KL(pi, pi*) half-way | at the end |\n|---|---|---|---|---|---|")


def main(config):
    """Run them, a line to stderr for each, and print the table."""
    names = config.only.split(",") if config.only else list(ABLATIONS)
    if unknown := [name for name in names if name not in ABLATIONS]:
        raise UserError(f"--only {','.join(unknown)}: no such row; there is {', '.join(ABLATIONS)}")
    baseline, rows = run(ABLATIONS["baseline"], config), [head(config)]
    if None in baseline:
        raise UserError("the baseline's numbers are not finite; lower --lr")
    for i, name in enumerate(names, 1):
        results = baseline if name == "baseline" else run(ABLATIONS[name], config)
        rows.append(row(ABLATIONS[name], results, baseline))
        print(f"{i}/{len(names)}  {name}: {rows[-1]}", file=sys.stderr, flush=True)
    print("\n".join(rows))
