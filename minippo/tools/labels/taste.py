"""A small model of what somebody prefers: words, marks and length, learned from a handful of answers."""

import torch
import torch.nn.functional as F

from minippo.tools.shared.words import BagOfWords

WORTH = {"left": 1.0, "right": 0.0, "tie": 0.5}   # of the left one's winning
LENGTHS = (2, 4, 6, 8, 11, 14, 18, 23)   # words
PENALTY = 0.1   # weaker than the judge's: there are few answers


class Taste:
    """A score of texts: the logistic model of pairs on a bag of words (Bradley and Terry 1952).

    answers   Answers to learn from; skips teach nothing, ties that the two are worth the same
    """

    def __init__(self, answers):
        answers = [answer for answer in answers if answer.answer in WORTH]
        texts = [spelled(text) for answer in answers for text in (answer.left, answer.right)]
        self.bag = BagOfWords(texts) if texts else None
        if self.bag and self.bag.ids:
            worth = torch.tensor([WORTH[answer.answer] for answer in answers])
            self.bag.fit(lambda scores: F.binary_cross_entropy_with_logits(
                scores[0::2] - scores[1::2], worth), PENALTY)

    def __call__(self, texts):
        """Scores (N,) of a list of texts; 0 as long as no word has been seen twice."""
        if not (texts and self.bag and self.bag.ids):
            return torch.zeros(len(texts))
        return self.bag([spelled(text) for text in texts])

    def guess(self, left, right):
        """The probability that the left one is preferred."""
        scores = self([left, right])
        return torch.sigmoid(scores[0] - scores[1]).item()


def spelled(text):
    """The text with words for what a bag of words does not see: its marks, and how many words it has."""
    marks = [f"_{ord(c)}" for c in text if not (c.isalnum() or c.isspace())]
    length = len(text.split())
    return " ".join([text, *marks, *(f"_over{n}" for n in LENGTHS if length > n)])


def right(answers):
    """Of the preferences among these answers, in order: was it expected before? 1, 0, or 0.5 if undecided."""
    return [0.5 if answer.guess == 0.5 else float((answer.guess > 0.5) == (answer.answer == "left"))
            for answer in answers if answer.preference()]
