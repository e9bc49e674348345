"""What the policy did and how it went, kept until the update has learnt from it."""

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F

from minippo.tokens import PAD


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
        part = {field.name: getattr(self, field.name)[rows] for field in fields(self)}
        first = int((part["query"] != PAD).any(0).int().argmax())
        longest = int(part["mask"].sum(1).max())
        return Rollout(**{name: x[:, first:] if name == "query" else x[:, :longest]
                          for name, x in part.items()})


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
        return Rollout(**{name: joined(name, tensors) for name, tensors in parts.items()})

    def minibatches(self, size, generator=None):
        """One epoch: every episode once, in a fresh random order, as Rollouts of `size` episodes.

        The last may be smaller. generator: a CPU generator.
        Raises   ValueError if size < 1 or the memory is empty
        """
        if size < 1:
            raise ValueError(f"a minibatch of {size} episodes")
        episodes = self.all()
        for rows in torch.randperm(len(episodes), generator=generator).split(size):
            yield episodes[rows.to(episodes.query.device)]


def joined(name, parts):
    """Concatenate along the batch, padding the width: queries on the left, others on the right."""
    width = max(part.shape[1] for part in parts)
    fill = PAD if name in ("query", "response") else 0
    side = (lambda gap: (gap, 0)) if name == "query" else (lambda gap: (0, gap))
    return torch.cat([F.pad(part, side(width - part.shape[1]), value=fill) for part in parts])
