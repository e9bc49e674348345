"""Where a reward model errs, and where a bag of words does: accuracy by kind of comparison. Markdown tables.

Fresh comparisons of texts whose ratings the models did not see, one vote each, ties dropped: all of them, and
by length, negation, rare words, and how far apart people rate the two texts. The columns: reward models (a
folder for each seed: mean, smallest and largest), a bag of words fit on as many comparisons of the same
training texts, the mean of both scores once these are standardised, the others' mean ratings (people's
ceiling), and how often both are right, one, or neither. The intervals are of 95 %, of the mean of the seeds,
over texts and not over comparisons: those that share a text err together.

Below: what the bag learns from a part of the training texts; and comparisons that every reward model and the
bag get wrong, the first in random order.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import torch

from minippo.corpora.read import read
from minippo.data import Comparisons, encode, split
from minippo.run import checkpoint
from minippo.run.devices import pick_device, place
from minippo.run.errors import UserError
from minippo.run.exits import launch
from minippo.run.flags import DeviceConfig, option, words
from minippo.tools.shared import calibration
from minippo.tools.shared.tables import flat, markdown, spread
from minippo.tools.shared.words import words as words_of
from train_reward import Config as Stage2

NEGATIONS = {"no", "not", "never", "nothing", "nobody", "none", "neither", "nor", "without", "hardly",
             "cannot"}
RARE = 3          # a word is rare if fewer of the training texts have it
MARGINS = (0.0, 0.5, 1.0, 2.0, float("inf"))   # differences of two mean ratings
PARTS = (1 / 8, 1 / 4, 1 / 2, 1)   # of the training texts, that a bag of words learns from
DRAWS = 1000      # of texts with replacement, for the intervals


@dataclass
class Config(DeviceConfig):
    GROUP = "what is compared"
    rewards: tuple = words(("runs/reward",), "folders of reward models of the same data: seeds")
    data: str = option("movies", "the texts and their ratings")
    texts: str = option("held-out", "the tenth held out, or the judge's part: more texts, read in stage 1",
                        choices=("held-out", "judge"))
    count: int = option(20_000, "comparisons, ties included", low=2)
    shown: int = option(10, "comparisons that all get wrong, printed below the tables", low=0)


def main(config):
    parts, generator = split(read(config.data)), torch.Generator().manual_seed(config.seed)
    models = [checkpoint.load_reward(folder) for folder in config.rewards]
    first, tokenizer = models[0]
    held_out = parts["judge"] if config.texts == "judge" else parts["prompts"] + parts["test"]
    training, fresh = (Comparisons(rows, tokenizer, first.lm.config.context)
                       for rows in (parts["reward"], held_out))
    if fresh.given:
        raise UserError(f"{config.data}: a choice of two replies, no ratings; give rated texts")
    chosen, rejected, votes = calibration.fresh_pairs(fresh, config.count, generator)
    if not len(chosen):
        raise UserError(f"--count {config.count}: all of them ties; ask for more")
    scores = [scored(config, *model, fresh.rated) for model in models]
    bags = {len(some.texts): fitted(some, generator)(fresh.texts)
            for some in portions(training, tokenizer, first.lm.config.context, generator)}
    bag = bags[len(training.texts)]
    right = {"reward model": [verdict(x, chosen, rejected) for x in scores],
             "bag of words": [verdict(bag, chosen, rejected)],
             "both mixed": [verdict(standard(x) + standard(bag), chosen, rejected) for x in scores]}
    kinds = kinds_of(training.texts, fresh, chosen, rejected)
    ceilings = [ceiling(fresh, chosen[inside], rejected[inside], votes[:, inside])
                for inside in kinds.values()]
    draws = resampled(len(fresh.rated), chosen, rejected, generator)
    print(markdown(*table(kinds, right, ceilings, draws)))
    learned = [f"{verdict(x, chosen, rejected).mean().item():.3f}" for x in bags.values()]
    print("\n" + markdown(("training texts", *bags), [("bag of words", *learned)]))
    if wrong := missed(right, fresh, chosen, rejected)[:config.shown]:
        pairs = [cells(fresh.rated[chosen[i]]) + cells(fresh.rated[rejected[i]]) for i in wrong]
        print("\n" + markdown(("preferred", "rating", "to", "rating"), pairs))


def scored(config, model, tokenizer, rows):
    """Scores (N,) of rated rows."""
    model = place(model, pick_device(config.device), config.precision)
    return calibration.score_all(model, encode(rows, tokenizer, model.lm.config.context))


def portions(training, tokenizer, room, generator):
    """The Comparisons of an eighth of the texts, drawn at random, and so on; the last are all."""
    order = torch.randperm(len(training.rated), generator=generator).tolist()
    drawn = (order[:round(part * len(order))] for part in PARTS)
    return [Comparisons([training.rated[i] for i in sorted(some)], tokenizer, room) for some in drawn]


def fitted(training, generator):
    """A bag of words that learned from as many comparisons as train_reward.py makes by default."""
    groups = training.groups(Stage2.group_size, Stage2.passes, generator, Stage2.votes)
    return calibration.bag_of_words(training, groups)


def standard(scores):
    return (scores - scores.mean()) / scores.std()


def verdict(scores, chosen, rejected):
    """(P,): 1 where the order is right, 1/2 for no opinion, 0 where it is wrong."""
    return (calibration.difference(scores, chosen, rejected).sign() + 1) / 2


def ceiling(fresh, chosen, rejected, votes):
    """How often the others' mean ratings agree with the votes; "-" if nobody else rated."""
    margin = calibration.others_margin(fresh, chosen, rejected, votes)
    return f"{calibration.accuracy(margin):.3f}" if len(margin) else "-"


def kinds_of(seen, fresh, chosen, rejected):
    """Which of the comparisons are of a kind, {its name: (P,) bool}; `seen`: the training texts."""
    texts = [single(text) for text in fresh.texts]
    known = Counter(word for text in seen for word in set(single(text)))

    def of_both(count):
        each = torch.tensor([float(sum(map(count, text))) for text in texts])
        return each[chosen] + each[rejected]

    length, negations = of_both(lambda word: 1), of_both(negation)
    buts = of_both(lambda word: word == "but")
    rare = of_both(lambda word: known[word] < RARE) / length.clamp(min=1)
    ratings = torch.tensor([row.rating for row in fresh.rated], dtype=torch.float64)
    apart = (ratings[chosen] - ratings[rejected]).abs()
    kinds = {"all": torch.ones(len(chosen), dtype=torch.bool)}
    kinds |= thirds("words of both texts", length, "{:.0f}")
    kinds |= {"neither a negation nor a but": (negations + buts) == 0, "a negation": negations > 0,
              "a but": buts > 0}
    kinds |= thirds(f"words that fewer than {RARE} training texts have", 100 * rare, "{:.0f} %")
    for low, high in pairwise(MARGINS):
        name = f"{low:g} to {high:g}" if high < float("inf") else f"{low:g} or more"
        kinds[f"mean ratings apart by {name}"] = (low <= apart) & (apart < high)
    return {kind: inside for kind, inside in kinds.items() if inside.any()}


def single(text):
    """The words of a text, without the pairs of neighbours."""
    return [word for word in words_of(text) if " " not in word]


def negation(word):
    return word in NEGATIONS or word.endswith("n't")


def thirds(what, x, form):
    """The comparisons with the smallest, the middle and the largest x, each about a third."""
    low, high = x.quantile(torch.tensor([1 / 3, 2 / 3], dtype=x.dtype)).tolist()
    a, b = form.format(low), form.format(high)
    return {f"{what}: up to {a}": x <= low, f"{what}: {a} to {b}": (low < x) & (x <= high),
            f"{what}: above {b}": x > high}


def resampled(count, chosen, rejected, generator):
    """How often each comparison counts, (DRAWS, P), when `count` texts are drawn with replacement."""
    drawn = (torch.randint(count, (count,), generator=generator) for _ in range(DRAWS))
    times = torch.stack([torch.bincount(texts, minlength=count) for texts in drawn]).float()
    return times[:, chosen] * times[:, rejected]


def table(kinds, right, ceilings, draws):
    """Header and rows of the accuracies. right: by name, the verdicts (P,) of each seed."""
    header = ("comparisons", "share", *right, "model - bag, points", "mixed - bag, points",
              "people's ceiling", "both right", "only the model", "only the bag", "neither")
    model, bag, mixed = (torch.stack(seeds).mean(0) for seeds in right.values())
    rows = []
    for (kind, inside), people in zip(kinds.items(), ceilings):
        shares = [spread([x[inside].mean().item() for x in seeds], 3) for seeds in right.values()]
        gains = [points((x - bag)[inside], draws[:, inside]) for x in (model, mixed)]
        each = [(a * b)[inside].mean() for a, b in ((model, bag), (model, 1 - bag), (1 - model, bag),
                                                    (1 - model, 1 - bag))]
        rows.append((kind, f"{inside.float().mean():.0%}", *shares, *gains, people,
                     *(f"{share:.0%}" for share in each)))
    return header, rows


def points(gain, draws):
    """A mean of (P,) in percentage points, with its interval over the draws (DRAWS, P)."""
    means = (draws @ gain) / draws.sum(1).clamp(min=1)
    low, high = means.quantile(torch.tensor([0.025, 0.975])).tolist()
    return f"{100 * gain.mean():+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def missed(right, fresh, chosen, rejected):
    """Places of the comparisons that no reward model and no bag gets right, though the mean ratings do."""
    ratings = torch.tensor([row.rating for row in fresh.rated])
    best = torch.stack(right["reward model"] + right["bag of words"]).max(0).values
    return ((best == 0) & (ratings[chosen] > ratings[rejected])).nonzero().squeeze(1).tolist()


def cells(row):
    return flat(row.text), f"{row.rating:+.1f}"


if __name__ == "__main__":
    launch(main, Config, __doc__.splitlines()[0])
