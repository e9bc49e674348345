"""How good a reward model is: held-out accuracy beside people's and a bag of words'."""

import json

import torch

from minippo import data
from minippo.reward import preference_loss
from minippo.run.files import write_atomically
from minippo.tools.shared.words import BagOfWords

BINS = ((0.0, 0.5), (0.5, 1.0), (1.0, 2.0), (2.0, float("inf")))   # differences of scores, nats


def report(reward, training, groups, held_out, run):
    """The figures of `measure` as text; they also go to `calibration.json` in the folder of a Run."""
    figures = measure(reward, training, groups, held_out, run.generator)
    write_atomically(run.folder / "calibration.json", json.dumps(figures, indent=2).encode())
    return lines(figures)


def measure(reward, training, groups, held_out, generator, count=20_000):
    """A dict of figures: a reward model on fresh comparisons of held-out texts, ties dropped.

    training, groups   the Comparisons and groups it was trained on; the baseline learns from them
    held_out           Comparisons of other texts
    """
    chosen, rejected, votes = fresh_pairs(held_out, count, generator)
    margin = difference(score_all(reward, held_out.examples), chosen, rejected)
    bins = [(low, (low <= margin.abs()) & (margin.abs() < high)) for low, high in BINS]
    bag = bag_of_words(training, groups)
    figures = {
        "pairs": len(chosen),
        "texts": len(held_out.examples),
        "accuracy": accuracy(margin),
        "bag_of_words": accuracy(difference(bag(held_out.texts), chosen, rejected)),
        "calibration_error": expected_calibration_error(margin),
        "bins": reliability(margin),
        "by_margin": [(low, accuracy(margin[inside]), inside.float().mean().item())
                      for low, inside in bins if inside.any()],
    }
    if votes is not None and len(others := others_margin(held_out, chosen, rejected, votes)):
        figures["ceiling"] = accuracy(others)
        figures["raters"] = rater_agreement(held_out, count, generator)
    return figures


def fresh_pairs(comparisons, count, generator):
    """All given pairs, or about `count` random ones of rated texts, untied.

    Returns  chosen, rejected: (P,) indices of examples; votes (2, P): what was drawn for each, or None
    """
    if comparisons.given:
        first = torch.arange(len(comparisons.given))
        return first, first + len(comparisons.given), None
    pair = torch.randint(len(comparisons.rated), (2, count), generator=generator)
    votes = torch.stack([comparisons.one_vote(side, generator) for side in pair])
    turn = votes[0] < votes[1]
    pair, votes = torch.where(turn, pair.flip(0), pair), torch.where(turn, votes.flip(0), votes)
    kept = (votes[0] != votes[1]) & (pair[0] != pair[1])
    return *pair[:, kept], votes[:, kept]


def others_margin(comparisons, chosen, rejected, votes):
    """How the others rate the two texts of each pair: the difference of mean ratings without the votes drawn.

    Left in, a vote would help to predict itself. Pairs with a text that nobody else rated are left out.
    """
    totals = torch.tensor([sum(row.votes) for row in comparisons.rated], dtype=torch.float64)
    counts = torch.tensor([len(row.votes) for row in comparisons.rated])
    one, other = ((totals[side] - vote) / (counts[side] - 1) for side, vote in zip((chosen, rejected), votes))
    return (one - other)[(counts[chosen] > 1) & (counts[rejected] > 1)]


@torch.no_grad()
def score_all(reward, examples, size=64):
    """Scores (N,) of examples, on the CPU."""
    device = reward.gain.device
    parts = [examples[i:i + size] for i in range(0, len(examples), size)]
    return torch.cat([reward(*data.tensors(part, device=device)).float().cpu() for part in parts])


def difference(scores, chosen, rejected):
    """(P,): by how much the chosen text of each comparison scores higher."""
    return scores[chosen] - scores[rejected]


def accuracy(margin):
    """Share of comparisons whose sign of chosen - rejected is right; no opinion counts half."""
    return ((margin > 0).float().mean() + (margin == 0).float().mean() / 2).item()


def expected_calibration_error(margin, bins=10):
    """Mean distance of how sure a model is, sigmoid|margin|, from how often it is right, over bins.

    Source   Naeini et al. 2015; Guo et al. 2017, eq. 3
    """
    return sum(abs(sure - right) * share for sure, right, share in reliability(margin, bins))


def reliability(margin, bins=10):
    """[how sure, how often right, share of all] for each bin that is not empty, the least sure first."""
    sure = margin.abs().sigmoid()
    right = (margin > 0).float() + (margin == 0).float() / 2
    which = ((sure - 0.5) * 2 * bins).long().clamp(max=bins - 1)
    inside = [which == b for b in which.unique()]
    return [[x[each].mean().item() for x in (sure, right)] + [each.float().mean().item()] for each in inside]


def rater_agreement(comparisons, count, generator):
    """How often two people order a pair of texts the same way: one rater of each against another of each.

    Ties are no opinion and are left out, and so are texts that only one person rated.
    Returns   a share, of about `count` random pairs before that; None if nothing is left
    """
    rated = [row.votes for row in comparisons.rated if len(row.votes) > 1]
    if len(rated) < 2:
        return None
    pairs = torch.randint(len(rated), (2, count), generator=generator)

    def two_raters(i):
        picks = torch.randperm(len(rated[i]), generator=generator)[:2]
        return [rated[i][pick] for pick in picks.tolist()]

    votes = [torch.tensor([two_raters(i) for i in side])
             for side in pairs[:, pairs[0] != pairs[1]].tolist()]
    one, other = (votes[0] - votes[1]).reshape(-1, 2).unbind(1)
    both = (one != 0) & (other != 0)
    return (one.sign() == other.sign())[both].float().mean().item() if both.any() else None


def bag_of_words(training, groups):
    """The BagOfWords that learned from all comparisons of these groups of a Comparisons."""
    one, other = everyone_compared(groups)
    return BagOfWords(training.texts).fit(lambda scores: preference_loss(scores[one], scores[other]))


def everyone_compared(groups):
    """All comparisons of all groups as indices of examples: chosen, rejected."""
    return (torch.cat([texts[chosen] for texts, chosen, _ in groups]),
            torch.cat([texts[rejected] for texts, _, rejected in groups]))


def lines(figures):
    """The figures as text for a person."""
    ceiling = f"; people's ceiling {figures['ceiling']:.3f}" if "ceiling" in figures else ""
    if figures.get("raters") is not None:
        ceiling += f"; two raters of the same texts agree on {figures['raters']:.3f}"
    by_margin = ", ".join(f"from {low:g} {right:.2f} ({share:.0%} of pairs)"
                          for low, right, share in figures["by_margin"])
    return (f"accuracy on {figures['pairs']:,} fresh comparisons of {figures['texts']:,} held-out "
            f"texts: {figures['accuracy']:.3f} (bag of words on the same comparisons "
            f"{figures['bag_of_words']:.3f}{ceiling})\n"
            f"expected calibration error {figures['calibration_error']:.3f}; "
            f"accuracy by margin: {by_margin}")
