"""What the policy did and how it went, kept until the update has learned from it."""

from dataclasses import dataclass, fields

import torch

from minippo.tokens import PAD, joined, masked_mean, same_shape, totals


@dataclass
class Rollout:
    """A batch of episodes. A row is a response; a column is a token of it, an action.

    query (B, Q) padded on the left, all others (B, R) padded on the right: PAD, False or 0
    """
    query: torch.Tensor
    response: torch.Tensor
    mask: torch.Tensor                 # True = a real token
    logprobs: torch.Tensor             # of the policy that sampled
    reference_logprobs: torch.Tensor
    values: torch.Tensor               # of the critic at sampling time
    rewards: torch.Tensor
    advantages: torch.Tensor           # whitened
    returns: torch.Tensor

    def __len__(self):
        return len(self.query)

    def __getitem__(self, rows):
        """The episodes at an index tensor or slice, without columns in which all are padded."""
        query, *others = (getattr(self, field.name)[rows] for field in fields(self))
        first, longest = (query != PAD).any(0).int().argmax(), self.mask[rows].sum(1).max()
        return Rollout(query[:, first:], *(x[:, :longest] for x in others))

    def describe(self, scores, paid, entropy, ended):
        """What the rollout was like, a dict of numbers; scores (B,) or (B, R), paid, ended (B,), entropy."""
        scores = totals(scores, self.mask)
        kl = (self.logprobs - self.reference_logprobs).sum(1)
        return {
            "objective/scores": scores.mean().item(), "objective/scores_std": scores.std(correction=0).item(),
            "objective/paid": paid.mean().item(), "objective/kl": kl.mean().item(),
            "objective/entropy": entropy.sum(1).mean().item(),
            "objective/rlhf_reward": self.rewards.sum(1).mean().item(),
            "ppo/returns/mean": masked_mean(self.returns, self.mask).item(),
            "ppo/val/mean": masked_mean(self.values, self.mask).item(),
            "ppo/val/var_explained": explained_variance(self.values, self.returns, self.mask).item(),
            "tokens/responses_len_mean": self.mask.sum(1).float().mean().item(),
            "tokens/ended": ended.float().mean().item(),
        }


class PPOMemory:
    """The episodes of one iteration: store them, learn from them in minibatches, clear."""

    def __init__(self):
        self.clear()

    def clear(self):
        self.rollouts = []

    def __len__(self):
        """Number of episodes."""
        return sum(len(rollout) for rollout in self.rollouts)

    def store(self, rollout):
        """Add a Rollout; several may have different Q and R."""
        self.rollouts.append(rollout)

    def all(self):
        """Everything stored, as one Rollout. ValueError if there is nothing."""
        if not len(self):
            raise ValueError("the memory is empty: store a rollout first")
        parts = {f.name: [getattr(r, f.name) for r in self.rollouts] for f in fields(Rollout)}
        return Rollout(**{name: joined(tensors, fill=PAD if name in ("query", "response") else 0,
                                      left=name == "query") for name, tensors in parts.items()})

    def minibatches(self, size, generator=None):
        """One epoch: every episode once, in a fresh random order, `size` at a time (the last: the rest).

        generator   on the CPU. ValueError if size < 1 or the memory is empty
        """
        if size < 1:
            raise ValueError(f"a minibatch of {size} episodes")
        episodes = self.all()
        for rows in torch.randperm(len(episodes), generator=generator).split(size):
            yield episodes[rows.to(episodes.query.device)]


def explained_variance(values, returns, mask):
    """1 - var(returns - V) / var(returns) over real tokens: 1 = it knew, 0 = no better than a constant."""
    def variance(x):
        return masked_mean((x - masked_mean(x, mask)).square(), mask)
    return 1 - variance(returns - values) / variance(returns).clamp(min=1e-8)


def microbatches(mask, size):
    """Row indices of a mask (B, R), shortest first, `size` at a time; 0: as many as have some 512 tokens."""
    tokens, order = mask.sum(1).sort(stable=True)
    at_once = 512 if mask.device.type == "cpu" else 8192   # fits the caches, fills the GPU
    part = (tokens.cumsum(0) - 1).clamp(min=0) // at_once
    return order.split(size or part.unique_consecutive(return_counts=True)[1].tolist())


def in_microbatches(model, query, response, size):
    """The outputs of model(query, response), each (B, R), computed `size` rows at a time.

    Raises   ValueError if an output has another shape than the responses it is for
    """
    mask, parts = response != PAD, []
    order = microbatches(mask, size)
    for rows in order:
        tokens = response[rows, :mask[rows].sum(1).max()]
        parts.append(model(query[rows], tokens))
        for output in parts[-1]:
            same_shape(output=output, tokens=tokens)
    back = torch.cat(order).argsort()   # to the order in which the responses came
    return [joined(outputs, response.shape[1])[back] for outputs in zip(*parts)]
