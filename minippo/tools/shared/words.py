"""A judge that is no neural network: logistic regression on bags of words."""

import re
from collections import Counter
from itertools import pairwise

import torch
import torch.nn.functional as F

from minippo.run.errors import UserError


class BagOfWords:
    """A linear score of texts: TF-IDF of words and word pairs, weights fit by L-BFGS.

    texts   the texts to learn from; words in only one of them are ignored
    """

    def __init__(self, texts):
        self.texts = texts
        seen = Counter(word for text in texts for word in dict.fromkeys(words(text)))
        self.ids = {word: i for i, word in enumerate(w for w, n in seen.items() if n > 1)}
        self.idf = torch.tensor([len(texts) / seen[word] for word in self.ids]).log() + 1
        self.weight, self.bias = torch.zeros(len(self.ids), 1), torch.zeros(())

    def fit(self, loss, penalty=1.0):
        """Minimise loss(scores of the texts, (N,)) + penalty |w|^2 / 2N. Returns itself."""
        bags = self.bags(self.texts)
        weight, bias = self.weight.requires_grad_(), self.bias.requires_grad_()
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

        def objective():
            optimizer.zero_grad()
            value = loss(linear(bags, weight, bias))
            value = value + penalty * weight.square().sum() / (2 * len(self.texts))
            value.backward()
            return value

        optimizer.step(objective)
        self.weight, self.bias = weight.detach(), bias.detach()
        return self

    def __call__(self, texts):
        """Scores (N,) of a list of texts; positive = more likely of the class 1."""
        return linear(self.bags(texts), self.weight, self.bias)

    def bags(self, texts):
        """Word ids of the texts in a row, where each begins, the words' TF-IDF, norm 1 a text."""
        ids, starts, weights = [], [], []
        for text in texts:
            counts = Counter(self.ids[word] for word in words(text) if word in self.ids)
            mine = torch.tensor(list(counts), dtype=torch.long)
            starts.append(len(ids))
            ids += counts
            weights.append(F.normalize(torch.tensor(list(counts.values())) * self.idf[mine], dim=0))
        return torch.tensor(ids, dtype=torch.long), torch.tensor(starts), torch.cat(weights)


def linear(bags, weight, bias):
    ids, starts, weights = bags
    sums = F.embedding_bag(ids, weight, starts, mode="sum", per_sample_weights=weights)
    return sums.squeeze(1) + bias


def words(text):
    """Lower-case words and pairs of neighbours."""
    single = re.findall(r"\w[\w']*", text.lower())
    return single + [f"{a} {b}" for a, b in pairwise(single)]


class Judge:
    """Is a text above the mean rating? Learned from ratings that the model it judges has not seen.

    fit_rows    rated rows to learn from
    held_rows   rated rows on which its accuracy is measured: `accuracy`, in [0, 1]
    """

    def __init__(self, fit_rows, held_rows):
        fit_rows = [row for row in fit_rows if row.votes]
        held_rows = [row for row in held_rows if row.votes]
        if not fit_rows or not held_rows:
            raise UserError("a judge needs rated rows to learn from and to be measured on")
        ratings = torch.tensor([row.rating for row in fit_rows])
        mean = ratings.mean()
        self.bag = BagOfWords([row.text for row in fit_rows])
        labels = (ratings > mean).float()
        self.bag.fit(lambda scores: F.binary_cross_entropy_with_logits(scores, labels))
        truth = torch.tensor([row.rating for row in held_rows]) > mean
        right = self.positive([row.text for row in held_rows]) == truth
        self.accuracy = right.float().mean().item()

    def positive(self, texts):
        """(N,) bool."""
        return self.bag(texts) > 0
