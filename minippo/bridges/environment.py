"""PPO's episodes as an environment: reset to a prompt, then step by step, a token each."""

import copy
import operator
from dataclasses import replace

import torch

from minippo.ppo import pay, penalized_rewards
from minippo.run.errors import UserError
from minippo.tokens import pad_left


class TextGeneration:
    """A prompt that is continued: what `ppo.collect` samples and pays at once, one action at a time.

    score      (query (1, Q), response (1, R)) -> (1,): paid with the last token
    config     a PPOConfig, for response_length, kl_coef and missing_end_score (rewards are never whitened)
    context    most tokens of prompt and response together
    policy, reference   both, and each token pays for its KL, at a forward pass of both; or neither
    device     where they, and the score, compute

    Between two steps there are `query` (1, Q) and `response` (1, T): what lm.states takes. An observation
    is both in one, (Q + T,) long. Truncated = cut off: it has been paid in full, nothing more would come.
    """

    def __init__(self, score, tokenizer, config, context, policy=None, reference=None, device=None):
        if (policy is None) != (reference is None):
            raise ValueError("a KL needs policy and reference; give both, or neither")
        self.score, self.tokenizer, self.context = score, tokenizer, context
        self.config = replace(config, whiten_rewards=False)
        self.models, self.device, self.over = (policy, reference), device, True

    def reset(self, prompt):
        """Begin a response to a text; returns observation, info. ValueError if the context has no room."""
        tokens = [self.tokenizer.end] + self.tokenizer.encode(prompt)
        length = self.config.response_length
        if len(tokens) + length > self.context:
            raise ValueError(f"a prompt of {len(tokens)} tokens and a response of {length} do not fit into "
                             f"the context of {self.context}")
        self.query = torch.tensor([tokens], device=self.device)
        self.response, self.over = self.query[:, :0], False
        return self.observation()

    def observation(self):
        """Query and response in one, (Q + T,), and info: the text of both."""
        tokens = torch.cat([self.query, self.response], dim=1)[0]
        return tokens, {"text": self.tokenizer.decode(tokens)}

    @torch.no_grad()
    def step(self, token):
        """Append a token, an integer.

        Returns  observation, reward, terminated, truncated, info: the text, at the end its score, too
        Raises   ValueError for a token outside the vocabulary, and when the response is over
        """
        token = operator.index(token)   # of a tensor, too
        if self.over or not 0 <= token < self.tokenizer.vocab_size:
            raise ValueError("the response is over, or has not begun: reset first" if self.over else
                             f"token {token} is outside the vocabulary of {self.tokenizer.vocab_size}")
        self.response = torch.cat([self.response, self.query.new_full((1, 1), token)], dim=1)
        terminated = token == self.tokenizer.end
        truncated = not terminated and self.response.shape[1] == self.config.response_length
        self.over = terminated or truncated
        tokens, info = self.observation()
        return tokens, self.reward(terminated, info), terminated, truncated, info

    def reward(self, ended, info):
        """What the last token is paid; at the end the score goes into info."""
        mask = torch.ones_like(self.response, dtype=torch.bool)
        logprobs, reference_logprobs = (mask.float() if model is None else model(self.query, self.response)[0]
                                        for model in self.models)
        given = logprobs, reference_logprobs, mask
        if not self.over:
            return penalized_rewards(logprobs.new_zeros(1), *given, self.config.kl_coef)[0, -1].item()
        scores = torch.as_tensor(self.score(self.query, self.response), dtype=logprobs.dtype).to(mask.device)
        if scores.shape != (1,):   # of tokens: those before the last have been paid already
            raise ValueError(f"a score of shape {tuple(scores.shape)}; an environment takes one per response")
        info["score"] = scores.item()
        ended = torch.tensor([ended], device=mask.device)
        return pay(scores, ended, *given, self.config)[1][0, -1].item()


def as_gymnasium(environment, prompts):
    """A gymnasium.Env of a TextGeneration; reset draws one of the prompts, or takes options["prompt"].

    An observation is an int64 array (context,), PAD (-1) on the left. UserError without gymnasium, ValueError
    without prompts.
    """
    if not prompts:
        raise ValueError("no prompts to draw from")
    try:
        import gymnasium
    except ImportError:
        raise UserError("this needs gymnasium: pip install gymnasium") from None
    environment = copy.copy(environment)   # each has its own episode; the models are shared
    vocabulary, context = environment.tokenizer.vocab_size, environment.context

    class TextGenerationEnv(gymnasium.Env):
        action_space = gymnasium.spaces.Discrete(vocabulary)
        observation_space = gymnasium.spaces.Box(-1, vocabulary - 1, (context,), "int64")

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            drawn = prompts[self.np_random.integers(len(prompts))]
            tokens, info = environment.reset((options or {}).get("prompt", drawn))
            return array(tokens, context), info

        def step(self, action):
            tokens, *others = environment.step(int(action))
            return array(tokens, context), *others

    return TextGenerationEnv()


def array(tokens, length):
    """Tokens (T,) as a numpy array (length,), PAD on the left."""
    return pad_left([tokens.cpu()], length)[0].numpy()
