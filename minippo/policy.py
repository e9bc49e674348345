"""The policy: a language model whose next token is the action, and a critic of every state."""

import copy

import torch.nn as nn

from minippo.generation import generate
from minippo.tokens import PAD


class ActorCritic(nn.Module):
    """A language model with a value head, or with a separate critic.

    lm            the actor
    critic        None: a value head on the actor's own states, starting at 0.
                  A RewardModel: its score of every prefix is the value
    temperature   divides the logits, in sampling and in every log-probability: the policy trained
                  is the one sampled; ValueError unless it is from 0.01 to 1e9
    """

    def __init__(self, lm, critic=None, temperature=1.0):
        super().__init__()
        if not 0.01 <= temperature <= 1e9:
            raise ValueError(f"temperature {temperature} is not from 0.01 to 1e9")
        self.lm, self.critic, self.temperature, self.end = lm, critic, temperature, lm.end
        if critic is None:
            self.value_head = nn.Linear(lm.config.width, 1)
            nn.init.zeros_(self.value_head.weight)
            nn.init.zeros_(self.value_head.bias)

    def forward(self, query, response):
        """Log-probability of each response token, value and entropy of the state it was chosen in.

        query (B, Q) padded on the left, response (B, R) padded on the right
        Returns  logprobs, values, entropy: (B, R), 0 at PAD; nats, units of the score, nats
        """
        states = self.lm.states(query, response)[:, :-1]
        logits = at_least_float32(self.lm.logits(states)) / self.temperature
        if self.critic is None:
            values = self.value_head(states).squeeze(-1)
        else:
            values = self.critic.prefix_scores(query, response)[:, :-1]
        pad, logprobs = response == PAD, logits.log_softmax(-1)   # (B, R, V), once for both below
        return (at_tokens(logprobs, response), values.masked_fill(pad, 0),
                entropy_of(logprobs).masked_fill(pad, 0))

    def generate(self, query, length, generator=None):
        """Responses (B, <= length) sampled at the policy's own temperature, no top-k, no top-p."""
        return generate(self.lm, query, length, self.temperature, generator=generator)


def token_logprobs(logits, tokens):
    """log softmax(logits) at the tokens that were chosen.

    logits (B, R, V), tokens (B, R)
    Returns  (B, R) nats, float32 or wider; 0 at PAD
    Raises   ValueError if the shapes do not fit
    """
    if logits.shape[:-1] != tokens.shape:
        raise ValueError(f"logits {tuple(logits.shape)} do not fit tokens {tuple(tokens.shape)}")
    return at_tokens(at_least_float32(logits).log_softmax(-1), tokens)


def at_tokens(logprobs, tokens):
    """The log-probabilities of the tokens chosen. (B, R, V), (B, R) -> (B, R), 0 at PAD"""
    chosen = logprobs.gather(-1, tokens.clamp(min=0)[..., None]).squeeze(-1)
    return chosen.masked_fill(tokens == PAD, 0)


def entropy(logits):
    """Entropy of softmax(logits). (..., V) -> (...) nats"""
    return entropy_of(at_least_float32(logits).log_softmax(-1))


def entropy_of(logprobs):
    """Entropy, -sum p log p, of log-probabilities. (..., V) -> (...) nats"""
    return -(logprobs.exp() * logprobs).sum(-1)


def at_least_float32(x):
    return x if x.itemsize >= 4 else x.float()


def frozen(module):
    """A copy that is never trained: no dropout, no gradient; the original stays as it was."""
    return copy.deepcopy(module).eval().requires_grad_(False)
