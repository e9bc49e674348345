"""Where the time of a step goes, stage by stage: the share of each kind of work, as torch's profiler sees it.

Pretraining and the reward model: steps on groups of 32 movie sentences; PPO: one iteration of 256 responses.
"""

from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.paired import timed
from minippo.corpora.read import read
from minippo.data import Comparisons, Prompts, batches, encode, random_cut, split, tensors
from minippo.memory import PPOMemory
from minippo.policy import ActorCritic
from minippo.ppo import PPOConfig, collect, update
from minippo.reward import RewardModel, judge, preference_loss
from minippo.run import checkpoint
from minippo.run.devices import keep_freed_memory
from minippo.run.exits import launch
from minippo.run.flags import option
from minippo.training import cross_entropy, linear_decay, step

KINDS = {   # the first kind that holds the start of an operation's name
    "matrix products": ("aten::mm", "aten::addmm"),
    "attention": ("aten::bmm", "aten::_softmax", "aten::masked_fill"),
    "log-softmax, entropy, sampling": ("aten::_log_softmax", "aten::exp", "aten::cumsum", "aten::div",
                                       "aten::nll_loss", "aten::gather", "aten::searchsorted"),
    "GELU and layer norm": ("aten::gelu", "aten::native_layer_norm"),
    "dropout": ("aten::bernoulli", "aten::native_dropout"),
    "optimizer, clipping": ("aten::_fused_adam", "aten::linalg_vector_norm", "aten::_foreach"),
    "packing, copies, zeros": ("aten::index", "aten::copy", "aten::fill", "aten::cat", "aten::clone"),
}


@dataclass
class Config:
    pretrained: str = option("runs/pretrain", "folder of the pretrained model")
    reward: str = option("runs/reward", "folder of the reward model")
    steps: int = option(10, "steps of stages 1 and 2", low=1)


def shares(work):
    """How `work()` spends its time: {kind: share}, seconds. It runs once before, to warm up."""
    work()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        total = timed(work)
    spent = dict.fromkeys(KINDS, 0.0)
    for event in seen.key_averages():
        if kind := next((kind for kind, names in KINDS.items() if event.key.startswith(names)), None):
            spent[kind] += event.self_cpu_time_total / 1e6
    spent["all else, Python included"] = total - sum(spent.values())
    return {kind: seconds / total for kind, seconds in spent.items()}, total


def ppo(lm, reward_model, tokenizer, rows, generator):
    """A function that does one iteration of PPO."""
    config, policy = PPOConfig(), ActorCritic(lm, temperature=0.8)
    reference = policy.reference()
    prompts = Prompts(rows["prompts"], tokenizer, 2, 8, lm.config.context - config.response_length)
    query = prompts.sample(256, generator)

    def iteration():
        draws, memory = torch.Generator().manual_seed(0), PPOMemory()
        memory.store(collect(policy, reference, reward_model, query, config, draws)[0])
        update(policy, torch.optim.Adam(policy.parameters(), 1e-5, fused=True), memory, config, draws)
    return iteration


def learning(model, examples, groups, loss_of, generator):
    """A function that takes a step on each of the groups; loss_of(query, response, group)."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-5, fused=True)
    schedule = linear_decay(optimizer, 1000)

    def steps():
        for picked, *group in groups:
            query, response = tensors([examples[i] for i in picked], random_cut(8, generator))
            step(model, optimizer, schedule, loss_of(query, response, group))
    return steps


def main(config):
    keep_freed_memory()
    lm, reward_model, tokenizer = checkpoint.load_both(config.pretrained, config.reward)
    rows, generator = split(read("movies")), torch.Generator().manual_seed(0)
    found = {"PPO, an iteration": shares(ppo(lm, reward_model, tokenizer, rows, generator))}
    trained = RewardModel(lm).train()

    def pretraining(query, response, group):
        return cross_entropy(lm, lm.states(query, response), response)

    def preferences(query, response, group):
        (opinions, nats), (chosen, rejected) = judge(trained, query, response, 0.5), group
        return nats + sum(preference_loss(x[chosen], x[rejected]) for x in opinions.T)

    examples = encode(rows["reward"] + rows["judge"], tokenizer, lm.config.context)
    plan = [(batch,) for batch in batches(examples, 32, 1, generator)[:config.steps]]
    found["pretraining"] = shares(learning(trained, examples, plan, pretraining, generator))
    comparisons = Comparisons(rows["reward"], tokenizer, lm.config.context)
    groups = comparisons.groups(32, 1, generator)[:config.steps]
    found["reward model"] = shares(learning(trained, comparisons.examples, groups, preferences, generator))
    print("| | " + " | ".join(found) + " |\n|---" + "|---" * len(found) + "|")
    for kind in found["pretraining"][0]:
        print(f"| {kind} | " + " | ".join(f"{share[kind]:.0%}" for share, _ in found.values()) + " |")
    print("| seconds | " + " | ".join(f"{total:.2f}" for _, total in found.values()) + " |")


if __name__ == "__main__":
    launch(main, Config, __doc__)
