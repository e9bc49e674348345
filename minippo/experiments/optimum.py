"""How close PPO comes to the best policy there is, on a task so small that it is known exactly.

K queries, M responses: all there are. Every number of a policy is a (K, M) table of log-probs:

    J(pi) = E_pi[r] - beta KL(pi || pi_ref)          what PPO maximises
    pi*   = pi_ref exp(r / beta) / Z,  J* = beta log Z   where it ends at best
    KL(pi || pi*) = (J* - J(pi)) / beta              how far it is from there
"""

import copy
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F

from minippo import ppo
from minippo.memory import PPOMemory
from minippo.policy import ActorCritic, frozen
from minippo.run.files import write_atomically
from minippo.run.flags import option
from minippo.tokens import PAD, pad_left, pad_right
from minippo.tools.shared import curves
from minippo.training import linear_decay
from minippo.transformer import ARCHITECTURES, TransformerConfig, build

END = 0
PARTS = 12   # of a run, after each of which the distance is measured


@dataclass
class TaskConfig(ppo.PPOConfig):
    seed: int = option(0, "first seed; each has its own reference, rewards and samples", low=0)
    seed_count: int = option(5, "how many seeds", low=1)
    vocabulary: int = option(8, "tokens in the vocabulary, the end token included", low=2, high=16)
    response_length: int = option(4, "tokens a response may have, the end token included",
                                  low=1, high=4)
    queries: int = option(2, "different queries", low=1, high=4)
    kl_coef: float = option(0.4, "beta: price of KL, in PPO and in J; above 0", low=1e-6, high=1000)
    temperature: float = option(1.0, "temperature of reference and policy", low=0.01)
    value_coef: float = option(0.5, "c1: weight of the value loss", low=0)
    iterations: int = option(60, "rollouts with an update each", low=1)
    rollout_size: int = option(512, "responses per iteration", low=2)
    minibatch_size: int = option(256, "episodes per optimizer step", low=1)
    microbatch_size: int = option(512, "episodes computed at once: same gradient", low=1)
    missing_end_score: float = option(0.0, "0 = off: the table of rewards also has what is cut off",
                                      high=0)
    lr: float = option(2e-3, "learning rate, falling to 0", low=0)


@dataclass
class Config(TaskConfig):
    architecture: str = option("both", "architecture of the model", choices=(*ARCHITECTURES, "both"))
    plot: str = option("", "a figure of KL(pi || pi*) is written to this file, such as optimum.png")


def every_response(vocabulary, length, end=END):
    """All responses: ended within the limit, or cut off by it. (M, length), PAD after the end."""
    others = [token for token in range(vocabulary) if token != end]
    ended = [(*begin, end) for n in range(length) for begin in product(others, repeat=n)]
    return pad_right(ended + list(product(others, repeat=length)))


@torch.no_grad()
def response_logprobs(policy, queries, responses):
    """Log-probability of every response (M, R) to every query (K, Q), summed over tokens.

    Returns  (K, M) nats, float64; a row's probabilities sum to 1
    """
    return torch.stack([policy(query.expand(len(responses), -1), responses)[0].double().sum(1)
                        for query in queries])


def objective(logprobs, reference_logprobs, rewards, beta):
    """J(pi) = E_pi[r] - beta KL(pi || pi_ref), mean over queries. (K, M) each -> float"""
    gain = rewards - beta * (logprobs - reference_logprobs)
    return (logprobs.exp() * gain).sum(1).mean().item()


def optimum(reference_logprobs, rewards, beta):
    """log pi* = log pi_ref + r / beta - log Z (K, M), and J* = beta log Z, mean over queries.

    Source   Ziegler et al. 2019, eq. 3 (arXiv:1909.08593); its proof: the identity at the top
    """
    tilted = reference_logprobs + rewards / beta
    log_z = tilted.logsumexp(1, keepdim=True)
    return tilted - log_z, beta * log_z.mean().item()


def divergence(logprobs, others):
    """KL(pi || other) in nats, mean over queries. (K, M) each -> float"""
    return (logprobs.exp() * (logprobs - others)).sum(1).mean().item()


@dataclass
class Task:
    reference: ActorCritic       # frozen
    queries: torch.Tensor        # (K, Q)
    responses: torch.Tensor      # (M, R)
    rewards: torch.Tensor        # (K, M)

    def score(self, query, response):
        """The rewards (B,) of responses (B, <= R) to queries (B, Q), looked up."""
        response = F.pad(response, (0, self.responses.shape[1] - response.shape[1]), value=PAD)
        return self.rewards[places(query, self.queries), places(response, self.responses)]


def places(rows, table):
    """Where in the table (N, T) each of the rows (B, T) stands: B indices."""
    where = {tuple(row): i for i, row in enumerate(table.tolist())}
    return [where[tuple(row)] for row in rows.tolist()]


def make_task(config, architecture, seed):
    """A random model as reference, its weights so large that it is far from uniform.

    Every token is worth N(0, 1), and something else after each query; a response's reward is the
    sum over its tokens, over sqrt(R). (A table of M unrelated rewards would test how much a small
    network can memorise: hundreds of exact gradients leave about a tenth of the gap there.)
    """
    torch.manual_seed(seed)
    lm = build(TransformerConfig(config.vocabulary, END, architecture, width=32, heads=2, layers=1,
                                 context=16))
    for parameter in lm.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    queries = pad_left([[END] + (n + 1) * [1 + n % (config.vocabulary - 1)]
                        for n in range(config.queries)])   # [0, 1], [0, 2, 2], ...
    responses = every_response(config.vocabulary, config.response_length)
    worth = torch.randn(config.queries, config.vocabulary)[:, responses.clamp(min=0)]  # (K, M, R)
    rewards = (worth * (responses != PAD)).sum(2) / config.response_length ** 0.5
    reference = frozen(ActorCritic(lm, temperature=config.temperature))
    return Task(reference, queries, responses, rewards)


def train(task, config, seed):
    """PPO as finetune_ppo.py runs it; yields the policy at the start and after every iteration."""
    lm = copy.deepcopy(task.reference.lm).requires_grad_(True)
    policy = ActorCritic(lm, temperature=config.temperature).eval()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(policy.parameters(), config.lr, eps=1e-5)
    schedule = linear_decay(optimizer, config.iterations)
    query = task.queries[torch.arange(config.rollout_size) % config.queries]
    memory = PPOMemory()
    yield policy
    for _ in range(config.iterations):
        rollout, _ = ppo.collect(policy, task.reference, task.score, query, config, generator)
        memory.clear()
        memory.store(rollout)
        ppo.update(policy, optimizer, memory, config, generator)
        schedule.step()
        yield policy


@dataclass
class Result:
    """Where one run began, ended, and could have ended; J in units of the reward, KL in nats."""
    reference: float
    final: float
    best: float
    curve: list                  # KL(pi || pi*) at the start and after each part of the run

    @property
    def gap(self):
        """What is missing, in % of the way from the reference to the optimum."""
        return 100 * (self.best - self.final) / (self.best - self.reference)


def measure(config, architecture, seed, parts=PARTS):
    """Train on the task of a seed: a Result whose curve has `parts` + 1 points."""
    task = make_task(config, architecture, seed)
    start = response_logprobs(task.reference, task.queries, task.responses)
    best, best_objective = optimum(start, task.rewards, config.kl_coef)
    marks = [round(config.iterations * i / parts) for i in range(parts + 1)]
    seen = {i: response_logprobs(policy, task.queries, task.responses)
            for i, policy in enumerate(train(task, config, seed)) if i in marks}
    ends = [objective(seen[i], start, task.rewards, config.kl_coef) for i in (0, config.iterations)]
    return Result(*ends, best_objective, [divergence(seen[i], best) for i in marks])


def main(config):
    """Print a row per run: objectives, gap, and the distance on the way."""
    if config.plot:   # what is missing shows before the work
        curves.check("--plot", config.plot)
        canvas = curves.figure(6, 4, layout="constrained")
    both, runs = config.architecture == "both", {}
    print(f"{'':16}{'J':>8}{'':>18}{'gap':>11}   KL(pi || pi*) in nats, after\n"
          f"architecture seed{'reference':>10}{'PPO':>9}{'optimum':>9}{'%':>8}"
          + "".join(f"{share:>8} %" for share in (0, 25, 50, 75, 100)))
    for architecture in ARCHITECTURES if both else [config.architecture]:
        for seed in range(config.seed, config.seed + config.seed_count):
            run = runs[architecture, seed] = measure(config, architecture, seed)
            print(f"{architecture:13}{seed:>4}{run.reference:>10.3f}{run.final:>9.3f}"
                  f"{run.best:>9.3f}{run.gap:>8.2f}"
                  + "".join(f"{kl:>10.4f}" for kl in run.curve[::PARTS // 4]), flush=True)
    print(f"largest gap: {max(run.gap for run in runs.values()):.2f} %")
    if config.plot:
        draw(canvas, runs, config)


def draw(canvas, runs, config):
    """KL(pi || pi*) over the iterations, a line per run, written to config.plot."""
    axes = canvas.add_subplot(yscale="log", xlabel="iteration", ylabel="KL(pi || pi*), nats")
    iterations = [config.iterations * i / PARTS for i in range(PARTS + 1)]
    styles = dict(zip(ARCHITECTURES, ("C0-", "C1--")))
    for (architecture, seed), run in runs.items():
        label = architecture if seed == config.seed else None
        axes.plot(iterations, run.curve, styles[architecture], label=label)
    axes.legend()
    drawn = curves.saved(canvas, Path(config.plot).suffix, **{"savefig.transparent": False})
    write_atomically(config.plot, drawn)
