"""minippo in float64 against oracle.py, and both against finite differences."""

from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import oracle
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from minippo.memory import PPOMemory, Rollout
from minippo.policy import ActorCritic, at_tokens, entropy_of, log_softmax
from minippo.ppo import PPOConfig, collect, ppo_loss, update
from minippo.tokens import PAD, pad_left, pad_right

VOCABULARY, LENGTH, END = 5, 6, 0
START = VOCABULARY                     # the state before the first token, where states are shared
LR, EPS = 0.1, 1e-5
CONFIG = PPOConfig(
    response_length=LENGTH, kl_coef=0.3, gamma=1.0, lam=0.95, clip=0.2, value_clip=0.2,
    value_coef=0.5, entropy_coef=0.0, epochs=3, minibatch_size=5, microbatch_size=5,
    max_grad_norm=0.0, whiten_rewards=False, missing_end_score=0.0, early_stop_kl=0.0, max_ratio=0.0)
SHARES = {"ppo/policy/clipfrac", "tokens/ended", "tokens/responses_len_mean"}   # means of counts


@pytest.fixture(autouse=True)
def float64():
    """Numbers that torch makes itself, such as one count divided by another, are float64 too."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Tabular(nn.Module):
    """The oracle's tables as parameters. The last token of a query is the number of its episode.

    states   None: each token of each episode has its own; "shared": the token before it
    script   what to respond: one list of tokens per episode
    """
    end = END

    def __init__(self, tables, states, script=()):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(tables.logits))
        self.values = nn.Parameter(torch.tensor(tables.values))
        self.temperature, self.states, self.script = tables.temperature, states, script

    def generate(self, query, length, generator=None):
        return pad_right([self.script[i] for i in query[:, -1].tolist()])

    def forward(self, query, response):
        if self.states == "shared":
            states = F.pad(response[:, :-1], (1, 0), value=START).clamp(min=0)
        else:
            states = query[:, -1:] * LENGTH + torch.arange(response.shape[1])
        logprobs, pad = log_softmax(self.logits[states], self.temperature), response == PAD
        return (at_tokens(logprobs, response), self.values[states].masked_fill(pad, 0),
                entropy_of(logprobs).masked_fill(pad, 0))


class Recorded(PPOMemory):
    """Remembers which episodes each minibatch held."""

    def __init__(self):
        super().__init__()
        self.order = []

    def minibatches(self, size, generator=None):
        for part in super().minibatches(size, generator):
            self.order.append(part.query[:, -1].tolist())
            yield part


class World:
    """Random tables of a policy and a reference, and random episodes with random scores."""

    def __init__(self, seed=0, states=None, temperature=1.0, sizes=(12,), lengths=(LENGTH,)):
        self.random, self.states = np.random.default_rng(seed), states
        rows = START + 1 if states == "shared" else sum(sizes) * LENGTH
        self.policy, self.reference = (
            oracle.Tables(self.random.normal(size=(rows, VOCABULARY)),
                          self.random.normal(size=rows), temperature) for _ in range(2))
        first = [sum(sizes[:i]) for i in range(len(sizes))]
        self.rollouts = [range(start, start + size) for start, size in zip(first, sizes)]
        self.lengths = lengths           # the longest response of each rollout

    def respond(self):
        """New responses, some ended and some cut off; scores; queries of 1 to 4 tokens."""
        draw = self.random.integers
        self.script, self.queries = [], []
        for rollout, longest in zip(self.rollouts, self.lengths):
            for i in rollout:
                length = draw(1, longest + 1)
                words = draw(1, VOCABULARY, length).tolist()
                if length < longest or draw(2):
                    words[-1] = END
                self.script.append(words)
                self.queries.append([*draw(0, VOCABULARY, draw(4)).tolist(), i])
        self.scores = self.random.normal(size=len(self.script))

    def episodes(self, rollout):
        return [oracle.Episode(self.states_of(i), self.script[i], self.scores[i],
                               END in self.script[i]) for i in rollout]

    def states_of(self, i):
        if self.states == "shared":
            return [START, *self.script[i][:-1]]
        return [i * LENGTH + t for t in range(len(self.script[i]))]

    def score(self, query, response):
        return torch.tensor(self.scores)[query[:, -1]]


def assert_close(actual, expected, what, tolerance=1e-9):
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what}: {actual.shape} is not {expected.shape}"
    largest = np.abs(actual - expected).max()
    assert largest <= tolerance, f"{what}: the largest difference is {largest:.1e}"


def assert_same_figures(actual, expected):
    assert actual.keys() == expected.keys() - {"value_clipfrac"}
    names = set(actual)
    if actual.get("ppo/skipped"):
        names -= {"ppo/grad_norm"}   # that of a minibatch without a step may or may not count
    for name in sorted(names):
        assert_close(actual[name], expected[name], name, 1e-6 if name in SHARES else 1e-9)


def assert_same_rollout(rollout, episodes):
    for name in (f.name for f in fields(Rollout) if f.name not in ("query", "response", "mask")):
        numbers = getattr(rollout, name)
        assert numbers.dtype == torch.float64 and not numbers[~rollout.mask].any(), name
        assert_close(numbers[rollout.mask], np.concatenate([getattr(e, name) for e in episodes]),
                     name)


def collect_both(world, policy, config, memory):
    """Fill the memory, and return the oracle's episodes, found equal."""
    policy.script, episodes = world.script, []
    reference = Tabular(world.reference, world.states)
    for numbers in world.rollouts:
        query = pad_left([world.queries[i] for i in numbers])
        rollout, seen = collect(policy, reference, world.score, query, config)
        memory.store(rollout)
        part = world.episodes(numbers)
        assert_same_figures(seen, oracle.judge(part, world.policy, world.reference, config))
        assert_same_rollout(rollout, part)
        episodes += part
    return episodes


def train_both(world, config, iterations=2):
    """So many collections and updates, each found equal; the figures of the updates."""
    policy = Tabular(world.policy, world.states)
    optimizer = torch.optim.Adam(policy.parameters(), LR, eps=EPS)
    adam, generator = oracle.Adam(LR, EPS), torch.Generator().manual_seed(0)
    history = []
    for _ in range(iterations):
        world.respond()
        memory = Recorded()
        episodes = collect_both(world, policy, config, memory)
        learned = update(policy, optimizer, memory, config, generator)
        minibatches = [[episodes[i] for i in numbers] for numbers in memory.order]
        expected = oracle.update(world.policy, adam, minibatches, config)
        assert_same_figures(learned, expected)
        assert_close(policy.logits.detach(), world.policy.logits, "the policy's logits")
        assert_close(policy.values.detach(), world.policy.values, "the critic's values")
        if not expected["ppo/early_stops"]:
            seen = [i for numbers in memory.order for i in numbers]
            assert sorted(seen) == sorted([*range(len(episodes))] * config.epochs)
        history.append(expected | {"minibatches": len(memory.order)})
    return history


# ---------------------------------------------------------------- whole updates

@pytest.mark.parametrize("changes", [
    {},
    {"entropy_coef": 0.05},
    {"kl_coef": 0.0, "value_coef": 0.0},
    {"max_grad_norm": 0.1},
    {"whiten_rewards": True},
    {"missing_end_score": -1.5},
    {"missing_end_score": 0.5},
    {"microbatch_size": 2, "entropy_coef": 0.05},
    {"gamma": 0.9, "lam": 0.0},
    {"gamma": 0.9, "lam": 0.95},
    {"gamma": 0.9, "lam": 1.0},
    {"clip": 0.05, "value_clip": 0.05, "epochs": 4, "minibatch_size": 3},
    {"minibatch_size": 1, "microbatch_size": 64, "epochs": 1},
], ids=str)
@pytest.mark.parametrize("states", ["own", "shared"])
def test_two_iterations_of_ppo_equal_the_oracle_s(states, changes):
    config = replace(CONFIG, **changes)
    history = train_both(World(states=states), config)
    if config.epochs > 1:        # every branch was taken
        assert all(learned["ppo/policy/clipfrac"] > 0 for learned in history)
        assert all(learned["value_clipfrac"] > 0 for learned in history) or not config.value_coef
    assert all(learned["ppo/grad_norm"] > config.max_grad_norm for learned in history)


@pytest.mark.parametrize("states", ["own", "shared"])
@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_the_temperature_divides_the_logits_and_so_their_gradients(states, temperature):
    world = World(1, states, temperature)
    train_both(world, replace(CONFIG, entropy_coef=0.05, max_grad_norm=0.5))


@pytest.mark.parametrize("states", ["own", "shared"])
def test_rollouts_of_different_widths_are_whitened_apart_and_learnt_from_together(states):
    world = World(2, states, sizes=(5, 1, 7), lengths=(2, 3, LENGTH))
    train_both(world, replace(CONFIG, microbatch_size=3, entropy_coef=0.02, whiten_rewards=True))


def test_everything_at_once():
    world = World(3, "shared", 0.7, sizes=(9, 6), lengths=(LENGTH, 4))
    train_both(world, replace(
        CONFIG, entropy_coef=0.03, gamma=0.95, lam=0.9, max_grad_norm=0.2, whiten_rewards=True,
        missing_end_score=-1.0, microbatch_size=2, max_ratio=5.0, early_stop_kl=5.0), iterations=4)


def test_an_update_ends_at_the_same_minibatch():
    history = train_both(World(4), replace(CONFIG, early_stop_kl=0.02, epochs=5))
    # the one before the last lies between the target and one and a half targets: it was taken
    assert all(learned["ppo/early_stops"] == 1 and 1 < learned["minibatches"] < 15
               for learned in history)


def test_the_same_minibatches_are_skipped():
    history = train_both(World(5), replace(CONFIG, max_ratio=1.01, epochs=5))
    assert any(0 < learned["ppo/skipped"] < learned["minibatches"] for learned in history)


# ---------------------------------------------------------------- the actor-critic

class Bigram(nn.Module):
    """The least that ActorCritic asks of a language model: a state is the token before, one-hot."""
    end, config = END, SimpleNamespace(width=START + 1)

    def __init__(self, table):
        super().__init__()
        self.table = nn.Parameter(torch.tensor(table))

    def states(self, query, response):
        return F.one_hot(F.pad(response, (1, 0), value=START).clamp(min=0), START + 1).double()

    def logits(self, states):
        return states @ self.table


def actor_critic(tables):
    """The shared tables as an ActorCritic. Its critic's bias stays 0: the oracle has none."""
    policy = ActorCritic(Bigram(tables.logits), temperature=tables.temperature)
    policy.value_head.bias.requires_grad_(False)
    with torch.no_grad():
        policy.value_head.weight[0] = torch.tensor(tables.values)
    return policy


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_an_actor_critic_of_one_linear_layer_equals_the_oracle(temperature):
    """To 1e-5 only: ActorCritic works on float32 logits."""
    world, config = World(6, "shared", temperature), replace(CONFIG, entropy_coef=0.05)
    world.respond()
    policy, reference = actor_critic(world.policy), actor_critic(world.reference)
    policy.generate = lambda query, length, generator: pad_right(world.script)
    rollout, _ = collect(policy, reference, world.score, pad_left(world.queries), config)
    episodes, memory = world.episodes(range(12)), Recorded()
    oracle.judge(episodes, world.policy, world.reference, config)
    for name in ("logprobs", "values", "advantages", "returns"):
        assert_close(getattr(rollout, name)[rollout.mask],
                     np.concatenate([getattr(e, name) for e in episodes]), name, 1e-5)
    memory.store(rollout)
    update(policy, torch.optim.Adam(policy.parameters(), LR, eps=EPS), memory, config)
    oracle.update(world.policy, oracle.Adam(LR, EPS),
                  [[episodes[i] for i in numbers] for numbers in memory.order], config)
    assert_close(policy.lm.table.detach(), world.policy.logits, "the policy's logits", 1e-5)
    assert_close(policy.value_head.weight[0].detach(), world.policy.values, "the values", 1e-5)


# ---------------------------------------------------------------- finite differences

STEP = 1e-5


def moved_on(states, temperature):
    """A memory and the oracle's episodes of it, and a policy that has moved on: (0.3)^2 noise."""
    world, memory = World(7, states, temperature, sizes=(6,)), PPOMemory()
    world.respond()
    episodes = collect_both(world, Tabular(world.policy, states), CONFIG, memory)
    world.policy.logits += 0.3 * world.random.normal(size=world.policy.logits.shape)
    world.policy.values += 0.3 * world.random.normal(size=world.policy.values.shape)
    return world.policy, episodes, memory.all()


def distance_to_a_kink(policy, episodes, config):
    """How near a ratio or a value comes to where the loss has no slope."""
    nearest = []
    for episode in episodes:
        for t, (state, token) in enumerate(zip(episode.states, episode.tokens)):
            ratio = np.exp(policy.logprobs(state)[token] - episode.logprobs[t])
            moved = policy.values[state] - episode.values[t]
            missing = episode.returns[t] - episode.values[t]
            nearest += [abs(abs(ratio - 1) - config.clip), abs(abs(moved) - config.value_clip)]
            if abs(moved) > config.value_clip:   # held and free value equally wrong
                held = np.copysign(config.value_clip, moved)
                nearest.append(abs(abs(moved - missing) - abs(held - missing)))
    return min(nearest)


def slopes(loss, table):
    """Central differences of loss() in every entry of the table, which is left as it was."""
    result = np.zeros_like(table)
    for at in np.ndindex(table.shape):
        here = table[at]
        sides = []
        for table[at] in (here + STEP, here - STEP):
            sides.append(loss())
        table[at] = here
        result[at] = (sides[0] - sides[1]) / (2 * STEP)
    return result


@pytest.mark.parametrize("states, temperature", [("own", 1.0), ("own", 0.5), ("shared", 1.7)])
def test_finite_differences_confirm_both_gradients(states, temperature):
    tables, episodes, batch = moved_on(states, temperature)
    config = replace(CONFIG, entropy_coef=0.1)
    assert distance_to_a_kink(tables, episodes, config) > 10 * STEP
    policy = Tabular(tables, states)
    loss, _ = ppo_loss(policy, batch, config)
    loss.backward()
    figures, dlogits, dvalues = oracle.loss_and_gradients(tables, episodes, config)
    assert figures["ppo/policy/clipfrac"] > 0 and figures["value_clipfrac"] > 0
    assert_close(loss.item(), figures["ppo/loss/total"], "the loss", 1e-12)
    assert_close(policy.logits.grad, dlogits, "autograd in the logits", 1e-12)
    assert_close(policy.values.grad, dvalues, "autograd in the values", 1e-12)

    def by_oracle():
        return oracle.loss_and_gradients(tables, episodes, config)[0]["ppo/loss/total"]

    @torch.no_grad()
    def by_minippo():
        return ppo_loss(policy, batch, config)[0].item()

    for name, exact in (("logits", dlogits), ("values", dvalues)):
        scale = np.abs(exact).max()
        own, other = getattr(tables, name), getattr(policy, name).detach().numpy()
        assert_close(slopes(by_oracle, own) / scale, exact / scale, f"oracle, {name}", 1e-6)
        assert_close(slopes(by_minippo, other) / scale, exact / scale, f"minippo, {name}", 1e-6)
