"""Other things that can be called like a reward model: score(query, response) -> (B,)."""

import torch

from minippo.policy import token_logprobs
from minippo.tokens import PAD


class NegativePerplexity:
    """Minus the perplexity of the response under a language model: at most -1, high if fluent.

    lm   a LanguageModel; not trained by this
    """

    def __init__(self, lm):
        self.lm = lm

    @torch.no_grad()
    def __call__(self, query, response):
        """query (B, Q), response (B, R) -> (B,); an empty response scores -1, the highest."""
        count = (response != PAD).sum(1).clamp(min=1)
        logprobs = token_logprobs(self.lm(query, response), response)
        return -torch.exp(-logprobs.sum(1) / count)


class TextScore:
    """A function of texts as a score: a rule, a regular expression, a classifier from elsewhere.

    fn          list of B texts (query and response together) -> B numbers
    tokenizer   the policy's
    """

    def __init__(self, fn, tokenizer):
        self.fn, self.tokenizer = fn, tokenizer

    def __call__(self, query, response):
        """query (B, Q), response (B, R) -> (B,) float32; ValueError if `fn` gives another shape."""
        texts = [self.tokenizer.decode(row) for row in torch.cat([query, response], dim=1)]
        scores = torch.as_tensor(self.fn(texts), dtype=torch.float32, device=response.device)
        if scores.shape != (len(texts),):
            shape = tuple(scores.shape)
            raise ValueError(f"the score function gave shape {shape} for {len(texts)} texts")
        return scores
