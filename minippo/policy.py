"""The policy: a language model whose next token is the action, and a critic of every state."""

import copy

import torch.nn as nn

from minippo.generation import generate
from minippo.tokens import PAD, Packed, same_shape


class ActorCritic(nn.Module):
    """A language model with a value head, or with a separate critic.

    lm            the actor
    critic        None: a value head on the actor's own states, starting at 0.
                  A RewardModel: its score of every prefix is the value
    temperature   divides the logits, in sampling and in every log-probability: the policy trained is the
                  one sampled; ValueError unless it is from 0.01 to 1e9
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
        packed = Packed(response != PAD)   # most of the time goes into the (N, V) log-probabilities
        states = packed.pack(self.lm.states(query, response)[:, :-1])
        logprobs = log_softmax(self.lm.logits(states), self.temperature)   # (N, V)
        values = (self.value_head(states).squeeze(-1) if self.critic is None
                  else packed.pack(self.critic.prefix_scores(query, response)[:, :-1]))
        chosen = at_tokens(logprobs, packed.pack(response))
        return tuple(packed.unpack(x) for x in (chosen, values, entropy_of(logprobs)))

    def generate(self, query, length, generator=None):
        """Responses (B, <= length) sampled at the policy's own temperature, no top-k, no top-p."""
        return generate(self.lm, query, length, self.temperature, generator=generator)

    def reference(self):
        """What the policy is kept close to: its language model as it is now, frozen, same temperature."""
        return frozen(ActorCritic(self.lm, temperature=self.temperature)).to(next(self.parameters()).device)


def log_softmax(logits, temperature=1.0):
    """Log-probabilities of every token, in float32 or wider whatever the logits are. (..., V) nats"""
    return (logits if logits.itemsize >= 4 else logits.float()).div(temperature).log_softmax(-1)


def at_tokens(logprobs, tokens):
    """The log-probabilities of the tokens that were chosen.

    logprobs (..., V), tokens (...): else ValueError
    Returns  (...) nats, 0 at PAD"""
    same_shape(logprobs=logprobs[..., 0], tokens=tokens)
    chosen = logprobs.gather(-1, tokens.clamp(min=0)[..., None]).squeeze(-1)
    return chosen.masked_fill(tokens == PAD, 0)


def entropy_of(logprobs):
    """Entropy, -sum p log p: how undecided the policy is. (..., V) -> (...) nats"""
    return -(logprobs.exp() * logprobs).sum(-1)


def frozen(module):
    """A copy that is never trained: no dropout, no gradient; the original stays as it was."""
    return copy.deepcopy(module).eval().requires_grad_(False)
