"""One update of PPO, made by the functions that train, and every number of its tokens."""

from dataclasses import dataclass, replace

import torch

from minippo import ppo
from minippo.memory import PPOMemory, Rollout, in_microbatches
from minippo.tokens import masked_mean, totals
from minippo.training import check_finite


@dataclass
class Look:
    """An update and what it did. B responses of R tokens, S states: before it, and after each epoch."""
    rollout: Rollout
    config: ppo.PPOConfig
    scores: torch.Tensor    # (B,), what the policy seeks
    paid: torch.Tensor      # (B,)
    numbers: dict           # {quantity (see microscope.js): (S, B, R), or (1, B, R) if it stays}; 0 at PAD
    collected: dict         # what `collect` logs
    learned: list           # what `update` logs, a dict per epoch

    def means(self, key):
        """Mean over all tokens, a number per state; of the gradient's shares: of their sizes."""
        x = self.numbers[key].abs() if key == "share" else self.numbers[key]
        return [masked_mean(state, self.rollout.mask).item() for state in x]

    def logged(self):
        """What an iteration logs; without the update's means if a later epoch stopped it early."""
        whole = len(self.learned) == 1 or not self.learned[-1]["ppo/early_stops"]
        return self.collected | (ppo.summary(self.learned) if whole else {})

    def added(self):
        """Metrics of the rollout, added up again from the numbers of tokens and responses."""
        kl, rewards = (self.numbers[name][0].sum(1).mean().item() for name in ("kl", "rewards"))
        return {"objective/scores": self.scores.mean().item(), "objective/paid": self.paid.mean().item(),
                "objective/kl": kl, "objective/rlhf_reward": rewards,
                "ppo/returns/mean": self.means("returns")[0], "ppo/val/mean": self.means("values")[0],
                "tokens/responses_len_mean": self.rollout.mask.sum(1).float().mean().item()}


def look(policy, reference, score, query, config, lr, generator):
    """Let the policy answer and learn from it, as one iteration of finetune_ppo.py does; a Look.

    An epoch at a time: epochs draw their orders from the one generator in turn, so it is the same update.
    """
    rollout, collected = ppo.collect(policy, reference, score, query, config, generator)
    memory = PPOMemory()
    memory.store(rollout)
    optimizer = torch.optim.Adam(policy.parameters(), lr, eps=1e-5, fused=True)
    states, learned = [state_of(policy, rollout, config)], []
    while len(learned) < config.epochs and not (learned and learned[-1]["ppo/early_stops"]):
        learned.append(ppo.update(policy, optimizer, memory, replace(config, epochs=1), generator))
        states.append(state_of(policy, rollout, config))
        check_finite(f"after epoch {len(learned)}: ", **learned[-1])
    old, kept, response = rollout.logprobs, rollout.reference_logprobs, rollout.response
    with torch.no_grad():
        scores = score(query, response)
    paid, _ = ppo.pay(scores, (response == policy.end).any(1), old, kept, rollout.mask, config)
    advantages, _ = ppo.gae(rollout.rewards, rollout.values, config.gamma, config.lam)
    deltas, _ = ppo.gae(rollout.rewards, rollout.values, config.gamma, lam=0)   # an advantage is one delta
    stays = {"reference": kept, "kl": ppo.kl_estimates(old, kept)[0], "rewards": rollout.rewards,
             "delta": deltas, "advantages": advantages, "whitened": rollout.advantages,
             "returns": rollout.returns}
    numbers = {key: x[None] for key, x in stays.items()} | {
        key: torch.stack([state[key] for state in states]) for key in states[0]}
    found = Look(rollout, config, totals(scores, rollout.mask), paid, numbers, collected, learned)
    check_finite("after the update: ", **{f"mean {key}": torch.tensor(found.means(key)) for key in numbers})
    return found


def state_of(policy, rollout, config):
    """What the policy, as it is now, makes of every token of a rollout, {quantity: (B, R)}."""
    mask, old, advantages = rollout.mask, rollout.logprobs, rollout.advantages
    with torch.no_grad():
        logprobs, values, _ = in_microbatches(policy, rollout.query, rollout.response, config.microbatch_size)
    varied = logprobs.clone().requires_grad_(True)
    pull = -torch.autograd.grad(ppo.policy_loss(varied, old, advantages, mask, config.clip)[0], varied)[0]
    clipped = (pull == 0) & (advantages != 0) & mask   # the clipped branch is flat: a gradient of exactly 0
    return {"logprobs": logprobs, "values": values, "ratio": (logprobs - old).exp().masked_fill(~mask, 0),
            "clipped": clipped.float(), "share": pull / masked_mean(pull.abs(), mask).clamp(min=1e-30)}
