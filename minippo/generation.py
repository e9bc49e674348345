"""Sampling responses from a language model."""

import torch

from minippo.tokens import PAD
from minippo.training import check_finite
from minippo.transformer import KVCache


@torch.no_grad()
def generate(lm, query, length, temperature=1.0, top_k=0, top_p=1.0, generator=None):
    """Sample one response per query, token by token, until the end token or the limit.

    query         (B, Q), PAD on the left
    temperature   divides the logits; top_k = 0, top_p = 1: these filters are off, as PPO needs them
    generator     a CPU generator, whatever the model runs on; or (length, B) numbers as it would draw them
    Returns       response (B, <= length): PAD after the end token; no end token = cut off
    Raises        ValueError for a temperature <= 0, top_k < 0 or top_p outside (0, 1]
    """
    if temperature <= 0 or top_k < 0 or not 0 < top_p <= 1:
        raise ValueError(f"temperature {temperature} is not > 0, top_k {top_k} >= 0, top_p {top_p} in (0, 1]")
    with lm.autocast():  # entered once: all steps share bfloat16 copies of trainable weights
        tokens, encoded = lm.context(query)
        cache = KVCache(lm.config, len(query), tokens.shape[1] + length, query.device)
        response = torch.full((len(query), length), PAD, device=query.device)
        running = torch.arange(len(query), device=query.device)   # rows that have not ended
        draws = (generator if isinstance(generator, torch.Tensor) else
                 torch.rand(length, len(query), generator=generator)).to(query.device)
        for t in range(length):
            states = lm.decode(tokens, encoded, cache)[running, -1]
            logits = filtered(lm.logits(states).float() / temperature, top_k, top_p)
            response[running, t] = token = sample(logits, draws[t, running])
            running = running[token != lm.end]
            if not len(running):
                return response[:, :t + 1]
            tokens = response[:, t:t + 1]   # PAD in rows that have ended: no time is spent on these
    return response


def sample(logits, draw):
    """One token per row from softmax(logits), where its cumulative sum passes the draw.

    logits (B, V); draw (B,), uniform in [0, 1). Returns (B,)
    Raises   NonFiniteError if a row of logits holds NaN or +infinity, or -infinity alone
    """
    cumulative = logits.softmax(-1).cumsum(-1)
    total = cumulative[:, -1:]
    check_finite("sampling: ", probabilities=total)
    draw = draw[:, None] * total
    draw = torch.minimum(draw, torch.nextafter(total, torch.zeros_like(total)))   # rounding: never the total
    return torch.searchsorted(cumulative, draw, right=True).squeeze(-1)


def filtered(logits, top_k=0, top_p=1.0):
    """Logits (B, V) with all but the top_k likeliest tokens, and all outside the nucleus, at -inf.

    Source: Fan et al. 2018 (top-k); Holtzman et al. 2020 (nucleus: smallest set of mass >= top_p)
    """
    if top_k:
        threshold = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < threshold, -torch.inf)
    if top_p < 1:
        ordered, order = logits.sort(descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)   # mass of likelier tokens
        outside = (before >= top_p).scatter(-1, order, before >= top_p)
        logits = logits.masked_fill(outside, -torch.inf)
    return logits
