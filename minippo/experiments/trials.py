"""PPO as stage 3 does it, with changes that no flag makes; and what a policy is worth at its KL."""

from dataclasses import dataclass, replace

import torch

from minippo.experiments.frontier import best_of
from minippo.experiments.proxies import World, learn
from minippo.memory import PPOMemory, in_microbatches
from minippo.policy import ActorCritic, frozen
from minippo.ppo import PPOConfig, collect, update
from minippo.run import checkpoint
from minippo.run.scoring import critic_of
from minippo.tokens import masked_mean
from minippo.tools.shared.comparison import AT_ONCE, best_of_kl, distinct
from minippo.tools.shared.words import Judge
from minippo.training import SCHEDULES

AVERAGES = (0.9, 0.97)        # decay per iteration of averages of the policy's weights
WEIGHTS = (0.75, 0.5)         # the policy's share where its weights are mixed with the reference's
DIVERSE = 512                 # responses of which distinct-2 is taken: it falls with their number


@dataclass
class Trial(PPOConfig):
    """The settings of a run: those of finetune_ppo.py, a test holds them equal, and four that it lacks.

    The price of KL is not steered: each price is a point of the frontier."""
    kl_coef: float = 0.15
    iterations: int = 60
    rollout_size: int = 256
    lr: float = 1e-4
    schedule: str = "linear"
    epsilon: float = 1e-5               # Adam's: what a gradient has to exceed to be followed in full
    separate_critic: bool = False
    last_kl_coef: float | None = None   # the price of KL moves in equal steps from kl_coef to this
    values_first: int = 0               # iterations before the others in which the critic alone learns
    follow: float = 0.0                 # how far the reference moves towards the policy per iteration


class Bench:
    """What the runs of one seed share: the score that they seek, and gold and judge, who see other ratings.

    The score learned from the rows "reward", as in stage 2, gold and judge learned from the rows "judge".
    """

    def __init__(self, config, model, reward, seed, parts):
        self.world, self.config, self.model = World(config, model, reward, seed, parts), config, model
        self.reference, self.placed = self.world.reference, self.world.placed
        self.score, self.gold = self.world.gold, learn(self.world, 0)
        self.judge = Judge(parts["judge"], parts["prompts"] + parts["test"])

    def policy(self, trial):
        """The pretrained model as a policy, with the critic that the trial asks for."""
        lm = checkpoint.load_lm(self.model)[0]
        critic = critic_of(self.score, lm, 1) if trial.separate_critic else None
        return self.placed(ActorCritic(lm, critic, self.world.ppo.temperature)).eval()

    def judged(self, query, response):
        """{name: (B,)} on the CPU, of responses (B, R) to queries: score, gold, judged_positive, ended."""
        texts = [self.world.tokenizer.decode(row) for row in response]
        return {"score": self.world.paid(self.score, query, response),
                "gold": self.world.paid(self.gold, query, response),
                "judged_positive": self.judge.positive(texts).float(),
                "ended": (response == self.reference.end).any(1).float().cpu()}, texts

    @torch.no_grad()
    def worth(self, policy):
        """Figures of a policy, a dict: of responses to prompts that no run learned from."""
        world, generator, found, texts = self.world, self.world.generator(), [], []
        for query in world.fresh.sample(self.config.responses, generator, world.device).split(AT_ONCE):
            response = policy.generate(query, world.ppo.response_length, generator)
            logprobs, reference = (in_microbatches(model, query, response, 0)[0]
                                   for model in (policy, self.reference))
            figures, more = self.judged(query, response)
            found.append(figures | {"kl": (logprobs - reference).sum(1).cpu()})
            texts += more
        return {name: torch.cat([x[name] for x in found]).mean().item() for name in found[0]} | {
            "distinct_2": distinct(texts[:DIVERSE], 2)}


def references(bench):
    """{n: figures} of the best of n responses of the reference by the score; "1" is the reference."""
    figures = bench.judged(*bench.world.draws)[0]
    values = {name: x.view(bench.config.prompts, -1) for name, x in figures.items()}
    found = {str(n): {name: best_of(n, values["score"], x) for name, x in values.items()}
             | {"kl": best_of_kl(n)} for n in bench.config.best_of}
    return found | {"1": bench.worth(bench.reference)}


def measured(bench, trial, variants, log):
    """{"": figures of the trained policy}; with `variants` also those of averaged and of mixed weights."""
    policy, averages = train(bench, trial, log)
    found = {"": bench.worth(policy)}
    if variants:
        found |= {f"average {decay:g}": bench.worth(average) for decay, average in averages.items()}
        found |= {f"weights {share:g}": bench.worth(mixed(policy, bench.reference, share))
                  for share in WEIGHTS}
    return found


def train(bench, trial, log):
    """The loop of finetune_ppo.py; log is called with each iteration's number and statistics.

    Returns   the policy; {decay: average of its weights over the iterations}, ActorCritics
    """
    generator = bench.world.generator()
    torch.manual_seed(bench.world.seed)
    policy = bench.policy(trial)
    reference, averages = policy.reference(), {decay: policy.reference() for decay in AVERAGES}
    optimizer = torch.optim.Adam(policy.parameters(), trial.lr, eps=trial.epsilon, fused=True)
    schedule = SCHEDULES[trial.schedule](optimizer, trial.iterations)
    memory = PPOMemory()
    for i in range(-trial.values_first, trial.iterations):
        ppo = replace(trial, kl_coef=price(trial, max(0, i)))
        query = bench.world.prompts.sample(trial.rollout_size, generator, bench.world.device)
        rollout, seen = collect(policy, reference, bench.score, query, ppo, generator)
        memory.clear()
        memory.store(rollout)
        if i < 0:
            fit_values(policy, memory, ppo, generator)
            continue
        update(policy, optimizer, memory, ppo, generator)
        schedule.step()
        move(reference, policy, trial.follow)
        for decay, average in averages.items():
            move(average, policy, 1 - decay)
        log(i, seen)
    return policy, averages


def price(trial, i):
    """What a nat of KL costs in iteration i."""
    last = trial.kl_coef if trial.last_kl_coef is None else trial.last_kl_coef
    return trial.kl_coef + (last - trial.kl_coef) * i / max(1, trial.iterations - 1)


def fit_values(policy, memory, config, generator):
    """The critic alone learns from a rollout: the value head, or the model that is apart."""
    weights = list((policy.critic or policy.value_head).parameters())
    optimizer = torch.optim.Adam(weights, 1e-4 if policy.critic else 1e-2)
    for _ in range(config.epochs):
        for batch in memory.minibatches(config.minibatch_size, generator):
            values = policy(batch.query, batch.response)[1]
            optimizer.zero_grad()
            masked_mean((values - batch.returns).square(), batch.mask).backward(inputs=weights)
            optimizer.step()


@torch.no_grad()
def move(model, other, share):
    """The language model's weights go `share` of the way towards another's."""
    for weight, towards in zip(model.lm.parameters(), other.lm.parameters()):
        weight.lerp_(towards, share)


def mixed(policy, reference, share):
    """A policy of whose weights `share` is the policy's, the rest the reference's (Wortsman et al. 2022)."""
    found = frozen(reference)
    move(found, policy, share)
    return found
