"""What PPO seeks: the score of a reward model, or of a function of texts that --score names."""

import copy

import torch

from minippo.policy import frozen
from minippo.reward import RewardModel
from minippo.run import checkpoint
from minippo.run.errors import UserError
from minippo.run.imported import blamed, imported
from minippo.score import TextScore

SIGNS = {"positive": 1, "negative": -1}   # of --target


def load(config, run):
    """What stage 3 begins with: language model, critic (None: a value head), score, Tokenizer.

    The score is called as a reward model is, (query, response) -> (B,), or (B, R) of tokens.
    """
    lm, score, tokenizer = load_scored(config.model, config.reward, config.score)
    critic = run.place(critic_of(score, lm, SIGNS[config.target])) if config.separate_critic else None
    return lm, critic, run.place(frozen(score)) if isinstance(score, RewardModel) else score, tokenizer


def load_scored(model, reward, function):
    """The language model in a folder, its score, and the Tokenizer.

    reward     the folder of its RewardModel, read unless there is a
    function   of texts, module:function: as --score names it
    """
    if not function:
        return checkpoint.load_both(model, reward)
    lm, tokenizer = checkpoint.load_lm(model)
    return lm, NamedScore(function, tokenizer), tokenizer


def critic_of(score, lm, sign):
    """A trainable critic that begins as the reward model, its values in the direction (1, -1) of the score.

    With a function for a score there is none to begin as: its values begin at 0, on a copy of the
    language model.
    """
    if isinstance(score, RewardModel):
        critic = copy.deepcopy(score).requires_grad_(True)
        critic.gain *= sign
        critic.shift *= sign
    else:
        critic = RewardModel(copy.deepcopy(lm))
        torch.nn.init.zeros_(critic.head.weight)
    return critic


@torch.no_grad()
def normalize(reward_model, query, response):
    """These responses, (B, R), get scores of mean 0, standard deviation 1; UserError if all are equal.

    Those that are cut off do not count, if two or more end: no score was learned for half a text.
    """
    ended = (response == reward_model.lm.end).any(1)
    try:
        reward_model.normalize(reward_model(query, response)[ended if ended.sum() > 1 else ...])
    except ValueError as error:
        raise UserError(f"{error}; train again with a lower --lr") from None


class NamedScore(TextScore):
    """The TextScore of a function that --score names; UserError for whatever is wrong with it."""

    def __init__(self, name, tokenizer):
        super().__init__(imported("--score", name, "of a list of texts"), tokenizer)
        self.name = name

    def __call__(self, query, response):
        """query (B, Q), response (B, R) -> (B,), or (B, R) of tokens: finite numbers."""
        with blamed("--score", self.name, "it takes a list of texts, and a response may be empty"):
            scores = super().__call__(query, response)
        if not scores.isfinite().all():
            worst = (~scores.isfinite().view(len(scores), -1).all(1)).nonzero()[0, 0]
            raise UserError(f"--score {self.name} gave NaN or infinity for the text "
                            f"{str(self.text(query[worst], response[worst]))!r:.80}; give finite numbers")
        return scores
