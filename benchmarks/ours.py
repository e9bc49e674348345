"""Our side of a comparison: one PPO iteration, and one step on responses that were sampled elsewhere."""

from dataclasses import replace

import torch

from benchmarks.models import ends_after, even_share
from minippo.memory import PPOMemory
from minippo.ppo import PPOConfig, collect, update
from minippo.transformer import LanguageModel

EPS = 1e-5      # of Adam, on both sides
KL_COEF = 0.2   # TRL's default


def in_bf16(on, *models):
    """Let the matrix products of all language models in these models be bfloat16."""
    for model in models:
        for module in model.modules():
            if isinstance(module, LanguageModel):
                module.bf16 = on


class Ours:
    """An ActorCritic that learns.

    reference   its reference, frozen
    query       (B, Q); lengths: (B,) how long each response is to be
    """

    def __init__(self, policy, reference, query, lengths, epochs, minibatches, lr):
        self.policy, self.reference, self.query, self.lengths = policy, reference, query, lengths
        size = len(query) // minibatches
        self.config = PPOConfig(
            response_length=int(lengths.max()), epochs=epochs, minibatch_size=size, microbatch_size=size,
            kl_coef=KL_COEF, max_grad_norm=0.0, missing_end_score=0.0)
        self.optimizer = torch.optim.Adam(policy.parameters(), lr, eps=EPS, fused=True)
        self.memory = PPOMemory()

    def sample(self):
        with ends_after(self.lengths):
            return self.policy.generate(self.query, self.config.response_length)

    def collect(self):
        with ends_after(self.lengths):
            return collect(self.policy, self.reference, even_share, self.query, self.config)

    def update(self, rollout):
        self.memory.clear()
        self.memory.store(rollout)
        return update(self.policy, self.optimizer, self.memory, self.config)

    def iteration(self):
        rollout, _ = self.collect()
        self.response = rollout.response
        self.update(rollout)

    def learn_from(self, response):
        """One update on these responses; what was seen, by the names that TRL logs (tensors).

        Advantages are scaled as TRL's are: it divides their variance by n - 1."""
        self.policy.generate = lambda query, length, generator: response
        rollout, seen = collect(self.policy, self.reference, even_share, self.query, self.config)
        n = rollout.mask.sum()
        learned = self.update(replace(rollout, advantages=rollout.advantages * ((n - 1) / n).sqrt()))
        mask = rollout.mask
        return {"log-probs": rollout.logprobs[mask], "values": rollout.values[mask],
                "log-probs of the reference": rollout.reference_logprobs[mask],
                "score": torch.tensor(seen["objective/scores"]), "KL": torch.tensor(seen["objective/kl"]),
                "value loss": torch.tensor(learned["ppo/loss/value"])}
