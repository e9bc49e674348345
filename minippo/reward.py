"""The reward model: one number for a whole response, learned from people's preferences."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from minippo.tokens import PAD, same_shape
from minippo.training import cross_entropy


class RewardModel(nn.Module):
    """The mean of two opinions, which err in different places, times gain, plus shift: a linear head reads a
    language model's state at a response's end, a bag of tokens knows which of them and which pairs it has.
    The head starts at deviation 1/sqrt(D + 1), bias 0 (Stiennon et al. 2020). spaced: as in BagOfTokens."""

    def __init__(self, lm, spaced=None):
        super().__init__()
        self.lm = lm
        self.head = nn.Linear(lm.config.width, 1)
        nn.init.normal_(self.head.weight, std=(lm.config.width + 1) ** -0.5)
        nn.init.zeros_(self.head.bias)
        self.words = BagOfTokens(lm.config.vocab_size, spaced)
        self.register_buffer("gain", torch.ones(()))
        self.register_buffer("shift", torch.zeros(()))

    def forward(self, query, response):
        """Scores (B,) of responses (B, R) to queries (B, Q), read where each response ends."""
        return at_end(self.prefix_scores(query, response), response)

    def prefix_scores(self, query, response):
        """(B, R + 1): column t scores response[:, :t]. What a separate critic starts from."""
        opinions = self.opinions(self.lm.states(query, response), query, response)
        return self.gain * opinions.mean(-1) + self.shift

    def opinions(self, states, query, response):
        """(B, R + 1, 2): what the head reads in the states (B, R + 1, D), and what the tokens so far say."""
        said = self.words(torch.cat([query, response], dim=1))[:, query.shape[1] - 1:]
        return torch.stack([self.head(states).squeeze(-1), said], dim=-1)

    @torch.no_grad()
    def normalize(self, scores):
        """Set gain and shift so that these scores, (N,), would have mean 0, standard deviation 1.

        Raises   ValueError if there are fewer than two, or if all are equal
        Source   Ziegler et al. 2019, section 2.2 (arXiv:1909.08593)
        """
        if scores.numel() < 2 or not 0 < scores.max() - scores.min() < torch.inf:
            raise ValueError("the scores are all equal or not finite: they have no deviation to divide by")
        mean, std = scores.mean(), scores.std(correction=0)
        self.gain.copy_(self.gain / std)
        self.shift.copy_((self.shift - mean) / std)


class BagOfTokens(nn.Module):
    """An opinion that is a sum: of a weight for each token, and one for each pair of neighbours ("not good").

    Each counts once: else a policy that learns to please it writes "the best" in every line, and again.
    spaced   the token that each counts as, wherever it stands (`Tokenizer.spaced`); None: itself
    Source   Wang & Manning 2012; Weinberger et al. 2009: a hash finds a pair its place among 64 V"""

    def __init__(self, vocab_size, spaced=None):
        super().__init__()
        self.single = nn.Embedding.from_pretrained(torch.zeros(vocab_size, 1), freeze=False)
        self.pairs = nn.Embedding.from_pretrained(torch.zeros(64 * vocab_size, 1), freeze=False)
        self.register_buffer("spaced", torch.tensor(spaced or range(vocab_size)))

    def forward(self, text):
        """(B, T), PAD at either end -> (B, T): the sum up to each over the root of the number of tokens."""
        real = text != PAD
        token = self.spaced[text.clamp(min=0)].where(real, PAD)
        before = F.pad(token, (1, -1), value=PAD)
        pair = ((2_654_945_859 * before + token) % self.pairs.num_embeddings).where(real, PAD)
        said = (self.single(token.clamp(min=0)).squeeze(-1) * first(token)
                + self.pairs(pair.clamp(min=0)).squeeze(-1) * first(pair))
        return said.cumsum(1) / real.cumsum(1).clamp(min=1).sqrt()   # a long text does not count for more


def first(x):
    """Where each number of (B, T) that is not PAD stands for the first time in its row, (B, T) bool."""
    return (x != PAD) & ~(x[:, :, None] == x[:, None, :]).tril(-1).any(-1)


def judge(reward_model, query, response, lm_coef):
    """What is learned from: both opinions of whole responses, (B, 2); lm_coef times the nats per token."""
    states = reward_model.lm.states(query, response)
    nats = cross_entropy(reward_model.lm, states, response) if lm_coef else 0
    return at_end(reward_model.opinions(states, query, response), response), lm_coef * nats


def at_end(columns, response):
    """(B, R + 1, ...) -> (B, ...): what stands where each response (B, R) ends."""
    return columns[torch.arange(len(response), device=response.device), (response != PAD).sum(1)]


def preference_loss(chosen, rejected):
    """-log sigmoid(chosen - rejected): the Bradley-Terry likelihood that people prefer as they did.

    chosen, rejected   (P,) scores of the two responses of each comparison; ValueError if shapes differ
    Returns            mean over comparisons, nats; ln 2 where the model has no opinion
    Source             Ouyang et al. 2022, eq. 1 (arXiv:2203.02155)
    """
    same_shape(chosen=chosen, rejected=rejected)
    return -F.logsigmoid(chosen - rejected).mean()


def regression_loss(scores, targets):
    """Mean squared error to the standardised mean rating, (B,). ValueError if the shapes differ."""
    same_shape(scores=scores, targets=targets)
    return (scores - targets).square().mean()
