"""The two sides of benchmarks/stage3.py: one iteration of stage 3 in ours, and in TRL 0.11.4."""

from functools import partial

import torch

from benchmarks import models
from minippo.memory import PPOMemory
from minippo.policy import ActorCritic
from minippo.ppo import collect, update
from minippo.tokens import PAD, pad_right
from minippo.training import linear_decay


class Ours:
    """The loop of finetune_ppo.py, an iteration at a time."""

    def __init__(self, lm, score, stage):
        self.policy, self.score, self.stage = ActorCritic(lm, None, stage.temperature).eval(), score, stage
        self.reference = self.policy.reference()
        self.optimizer = torch.optim.Adam(self.policy.parameters(), stage.lr, eps=1e-5, fused=True)
        self.schedule = linear_decay(self.optimizer, stage.iterations)
        self.generator, self.memory = torch.Generator().manual_seed(stage.seed), PPOMemory()

    def iteration(self, query):
        rollout, seen = collect(self.policy, self.reference, self.score, query, self.stage, self.generator)
        self.memory.clear()
        self.memory.store(rollout)
        update(self.policy, self.optimizer, self.memory, self.stage, self.generator)
        self.schedule.step()
        self.seen = {"score": seen["objective/scores"], "KL": seen["objective/kl"],
                     "length": seen["tokens/responses_len_mean"]}

    def as_ours(self):
        return self.policy


class Theirs:
    """The same in TRL."""

    def __init__(self, lm, score, stage):
        from benchmarks import trl_classic
        self.trl, self.score, self.stage, self.shape = trl_classic, score, stage, lm.config
        policy, reference = (trl_classic.with_value_head(models.as_gpt2(lm, stage.temperature)) for _ in "12")
        for parameter in policy.v_head.parameters():
            torch.nn.init.zeros_(parameter)
        self.trainer = trl_classic.trainer(
            policy, reference, lm.config.vocab_size, stage.rollout_size, stage.minibatch_size, stage.epochs,
            stage.lr, schedule=partial(linear_decay, steps=stage.iterations), **same_settings(stage))

    def iteration(self, query):
        queries = rows_of(query)
        responses = self.trl.sample(self.trainer, queries, self.stage.response_length)
        response = pad_right(responses)
        with torch.no_grad():
            scores = self.score(query, response)
        ended = (response == self.shape.end).any(1)
        paid = scores.masked_fill(~ended, self.stage.missing_end_score)
        seen = self.trainer.step(queries, responses, list(paid))
        self.seen = {"score": scores.mean().item(), "KL": float(seen["objective/kl"]),
                     "length": (response != PAD).sum(1).float().mean().item()}

    def as_ours(self):
        """An ActorCritic with its weights, of temperature 1: that is in the weights."""
        return self.trl.actor(self.trainer.model, self.shape)


def same_settings(stage):
    """Our settings by the names of TRL's PPOConfig."""
    return {"init_kl_coef": stage.kl_coef, "gamma": stage.gamma, "lam": stage.lam, "cliprange": stage.clip,
            "cliprange_value": stage.value_clip, "vf_coef": stage.value_coef,
            "max_grad_norm": stage.max_grad_norm, "ratio_threshold": stage.max_ratio, "seed": stage.seed}


def rows_of(query):
    """(B, Q) padded on the left -> a list of B rows without padding."""
    return [row[row != PAD] for row in query]
