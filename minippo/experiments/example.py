"""A stage 3 for a pocket calculator: five words, two numbers a state, two responses. The walkthrough's."""

import torch
import torch.nn as nn

from minippo.policy import ActorCritic, frozen
from minippo.ppo import PPOConfig
from minippo.tokens import PAD
from minippo.transformer import Decoder, TransformerConfig

WORDS = ("END", "film", "very", "good", "bad")
END, FILM, VERY, GOOD, BAD = range(5)
HEAD = ((0, 2), (-1, 0), (1.5, -1), (1.5, 1), (-2, 0))                  # a row per word
POLICY = ((0, 0), (0.1, -0.4), (0.8, 0.1), (0.2, 1), (-0.3, 0.9))       # the state after each word
REFERENCE = ((0, 0), (-0.1, -0.2), (0.6, 0.2), (0.2, 1), (-0.3, 0.7))   # the same before training
VALUES = (0, 0.1, 0.4, 0.7, -0.5)                                       # the critic's, after each word
QUERY = torch.tensor([[END, FILM], [END, FILM]])
RESPONSES = torch.tensor([[VERY, GOOD, END], [BAD, END, PAD]])
STEP = 0.2   # learning rate


class LastWord(Decoder):
    """A language model whose state is a row of a table, that of the last word. Only the table learns."""

    def __init__(self, table):
        super().__init__(TransformerConfig(len(WORDS), END, width=2, heads=1, layers=0))
        self.requires_grad_(False).double().embedding.weight.copy_(torch.tensor(HEAD))
        self.table = nn.Parameter(torch.tensor(table, dtype=torch.float64))

    def decode(self, tokens, encoded=None, cache=None):
        return self.table[tokens.clamp(min=0)]


class Critic(nn.Module):
    """A value after every word."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.tensor(VALUES, dtype=torch.float64))

    def prefix_scores(self, query, response):
        return self.table[torch.cat([query[:, -1:], response], 1).clamp(min=0)]


class Given(ActorCritic):
    """A policy that answers with RESPONSES, not with what it draws."""

    def generate(self, query, length, generator=None):
        return RESPONSES


def score(query, response):
    """1 for every "good", -1 for every "bad", (B,)."""
    return ((response == GOOD).sum(1) - (response == BAD).sum(1)).double()


def example():
    """policy, reference, config: as stage 3, but a nat of KL costs 0.2, and one step, not clipped."""
    reference = frozen(ActorCritic(LastWord(REFERENCE)).double())
    config = PPOConfig(kl_coef=0.2, epochs=1, minibatch_size=2, max_grad_norm=0)
    return Given(LastWord(POLICY), Critic()), reference, config
