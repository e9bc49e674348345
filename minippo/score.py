"""Other things that can be called like a reward model: score(query, response) -> (B,)."""

import torch

from minippo.policy import at_tokens, frozen, log_softmax
from minippo.tokens import PAD


class NegativePerplexity:
    """Minus the perplexity of the response under a language model: at most -1, high if fluent.

    For PPO bring it to mean 0 and deviation 1, and clamp it: a single rare token costs thousands.

    lm   a LanguageModel: a frozen copy of it is kept, whatever becomes of the original
    """

    def __init__(self, lm):
        self.lm = frozen(lm)

    @torch.no_grad()
    def __call__(self, query, response):
        """query (B, Q), response (B, R) -> (B,); an empty response scores -1, the highest."""
        count = (response != PAD).sum(1).clamp(min=1)
        logprobs = at_tokens(log_softmax(self.lm(query, response)), response)
        return -torch.exp(-logprobs.sum(1) / count)


class TextScore:
    """A function of texts as a score: a rule, a regular expression, a classifier from elsewhere.

    fn   list of B texts (query and response together) -> B numbers; tokenizer: the policy's
    """

    def __init__(self, fn, tokenizer):
        self.fn, self.tokenizer = fn, tokenizer

    def __call__(self, query, response):
        """query (B, Q), response (B, R) -> (B,) float32.

        Raises   ValueError naming `fn` if it gives anything but one number per text
        """
        texts = [self.tokenizer.decode(row) for row in torch.cat([query, response], dim=1)]
        found = self.fn(texts)
        try:
            scores = torch.as_tensor(found, dtype=torch.float32, device=response.device)
            if scores.shape != (len(texts),):
                raise ValueError(f"shape {tuple(scores.shape)} for {len(texts)} texts")
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"the score function {self.fn!r} must give a number per text: {error}") from None
        return scores
