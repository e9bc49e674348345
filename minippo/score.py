"""Other things that can be called like a reward model: score(query, response) -> (B,)."""

import torch

from minippo.policy import at_tokens, frozen, log_softmax
from minippo.tokens import PAD, joined


class NegativePerplexity:
    """Minus the perplexity of the response under a language model: at most -1, high if fluent.

    For PPO bring it to mean 0 and deviation 1, and clamp it: a single rare token costs thousands.
    Of the lm a frozen copy is kept, whatever becomes of the original."""

    def __init__(self, lm):
        self.lm = frozen(lm)

    @torch.no_grad()
    def __call__(self, query, response):
        """query (B, Q), response (B, R) -> (B,); an empty response scores -1, the highest."""
        logprobs = at_tokens(log_softmax(self.lm(query, response)), response)
        return -torch.exp(-logprobs.sum(1) / (response != PAD).sum(1).clamp(min=1))


class Text(str):
    """A text that also has its `prompt`, its `response`, and `tokens`: what each adds to the response."""


class TextScore:
    """A function of texts as a score: a rule, a regular expression, a classifier from elsewhere.

    fn   list of B Texts (query and response together) -> B numbers; or B lists, a number per response token
    """

    def __init__(self, fn, tokenizer):
        self.fn, self.tokenizer = fn, tokenizer   # the policy's tokenizer

    def text(self, query, response):
        """A Text of two rows, (Q,) and (R,); the end token adds "", and so does half a letter at first."""
        text = Text(self.tokenizer.decode(torch.cat([query, response])))
        text.prompt, text.response = map(self.tokenizer.decode, (query, response))
        begun = [self.tokenizer.decode(response[:i]).rstrip("\ufffd") for i in range((response != PAD).sum())]
        text.tokens = [after[len(before):] for before, after in zip(begun, [*begun[1:], text.response])]
        return text

    def __call__(self, query, response):
        """query (B, Q), response (B, R) -> (B,), or (B, R) with 0 at PAD; float32.

        Raises   ValueError naming `fn` if it gives anything but one number per text, or per token
        """
        texts = list(map(self.text, query, response))
        found = self.fn(texts)
        try:
            rows = [torch.as_tensor(x, dtype=torch.float32, device=response.device) for x in found]
            shapes = [list(row.shape) for row in rows]
            if texts and shapes == [[len(text.tokens)] for text in texts]:
                return joined([row[None] for row in rows], response.shape[1])
            if shapes != [[]] * len(texts):
                raise ValueError(f"{len(rows)} of shapes {str(shapes)[:40]} for {len(texts)} texts")
            return torch.stack(rows)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"the score function {getattr(self.fn, '__name__', self.fn)} must give a number "
                             f"per text, or per token a list of lists: {error}") from None
