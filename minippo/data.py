"""From rated rows of text to tensors: splits, prompts, comparisons, batches.

An example is a pair of token lists: what is given (query) and what is learned or judged (response).
"""

import hashlib

import torch

from minippo.tokens import pad_left, pad_right

SHARES = {                # of the rows; the texts of the first two are for pretraining
    "reward": 0.60,       # ratings the reward model learns from
    "judge": 0.30,        # ratings the judge learns from: the reward model never sees them
    "prompts": 0.07,      # held out: the beginnings of these are PPO's prompts
    "test": 0.03,         # held out: prompts of the final comparison
}
ALL_EQUAL = "all ratings in the data, or in its held-out tenth, are equal; give different ones"


class DataError(ValueError):
    """The rows that were given cannot be used for what was asked."""


def split(rows):
    """Rows by part, a dict with the keys of SHARES. A row's part depends on its group, or its id, alone."""
    parts = {name: [] for name in SHARES}
    for row in rows:
        place = int.from_bytes(hashlib.sha256((row.group or row.id).encode()).digest()[:8], "big") / 2**64
        for name, share in SHARES.items():
            place -= share
            if place < 0:
                break
        parts[name].append(row)
    if empty := [name for name, part in parts.items() if not part]:
        raise DataError(f"the data has {len(rows)} usable rows, too few to fill its parts "
                        f"({', '.join(empty)} empty); give some hundreds")
    return parts


def encode(rows, tokenizer, room, rejected=False):
    """Examples of rows: query = end token, prompt; response = text or rejected text, end token.

    What does not fit into `room` tokens is cut off at the end. DataError for a prompt that fills them.
    """
    examples = []
    for row in rows:
        query = [tokenizer.end] + tokenizer.encode(row.prompt)
        if len(query) >= room:
            raise DataError(f"the prompt {row.prompt[:40]!r} has {len(query)} tokens, and room is "
                            f"for {room - 1}: shorten the prompt, or pretrain with a larger context")
        response = tokenizer.encode(row.rejected if rejected else row.text) + [tokenizer.end]
        examples.append((query, response[:room - len(query)]))
    return examples


def tensors(examples, cut=0, device=None):
    """Examples -> query (B, Q), response (B, R); `cut` tokens of a text without a prompt move to its query.

    p(text) = p(beginning) p(rest | beginning) whatever the cut; an encoder has to learn from it.
    """
    cuts = [0 if len(query) > 1 else min(cut, len(response) - 1) for query, response in examples]
    query = pad_left([query + response[:n] for (query, response), n in zip(examples, cuts)])
    rests = [response[n:] for (_, response), n in zip(examples, cuts)]
    both = query.shape[1] + max(map(len, rests))
    response = pad_right(rests, both + -both % 8 - query.shape[1])   # by 8: torch keeps memory for each shape
    return query.to(device), response.to(device)


def random_cut(longest, generator):
    """How long a beginning is given: nothing in half of the draws, else 1 to `longest` tokens."""
    whole, length = torch.rand(2, generator=generator).tolist()
    return 0 if whole < 0.5 else 1 + int(length * longest)


def batches(examples, size, passes, generator):
    """`passes` times over all examples, in random batches (lists of indices) of similar length."""
    found = []
    for _ in range(passes):
        groups = []
        for pool in torch.randperm(len(examples), generator=generator).split(16 * size):
            similar = sorted(pool.tolist(), key=lambda i: sum(map(len, examples[i])))
            groups += [similar[i:i + size] for i in range(0, len(similar), size)]
        found += [groups[i] for i in torch.randperm(len(groups), generator=generator).tolist()]
    return found


class Prompts:
    """Beginnings of texts as queries.

    rows               one with a prompt of its own gives that, others END and their first tokens
    shortest, longest  how many tokens of the text; room: those that the context leaves for a query"""

    def __init__(self, rows, tokenizer, shortest, longest, room):
        if room < 2 + shortest:
            raise DataError("the response length leaves the model's context no room for a prompt (it needs "
                            f"{2 + shortest} tokens): lower it, or pretrain with a larger context")
        self.examples = encode(rows, tokenizer, room)
        self.shortest, self.longest = shortest, longest

    def sample(self, count, generator=None, device=None):
        """(count, Q) queries of random texts (with replacement) and lengths, PAD on the left."""
        picks = torch.randint(len(self.examples), (count,), generator=generator).tolist()
        lengths = torch.randint(self.shortest, self.longest + 1, (count,), generator=generator)
        rows = []
        for i, length in zip(picks, lengths.tolist()):
            query, response = self.examples[i]
            rows.append(query if len(query) > 1 else query + response[:min(length, len(response) - 1)])
        return pad_left(rows).to(device)


class Comparisons:
    """Who was preferred to whom: pairs made from ratings, or pairs that people compared.

    Rated rows: every text of a group gets a vote drawn from its raters, and of every two texts the higher
    vote is preferred (the group as one batch: Ouyang et al. 2022, section 3.5); ties do not count.
    Rows with `rejected`: the pairs as given, if what fits into the room differs. DataError for both kinds.
    """

    def __init__(self, rows, tokenizer, room):
        pairs = [row for row in rows if row.rejected]
        self.rated = [row for row in rows if row.votes and not row.rejected]
        if pairs and self.rated:
            raise DataError("rated texts and pairs of chosen and rejected in the same data: give one kind")
        chosen, rejected = (encode(pairs, tokenizer, room, rejected=side) for side in (False, True))
        kept = [i for i in range(len(pairs)) if chosen[i] != rejected[i]]
        self.given = [pairs[i] for i in kept]
        self.examples = [side[i] for side in (chosen, rejected) for i in kept]
        self.examples += encode(self.rated, tokenizer, room)
        self.texts = [row.text for row in self.given or self.rated] + [row.rejected for row in self.given]
        if len(self.examples) < 2:
            raise DataError("the data, or its held-out tenth, has no preferences: two texts need a rating "
                            "or label, or chosen and rejected that differ in what fits into the context")
        if self.rated and len({vote for row in self.rated for vote in row.votes}) == 1:
            raise DataError(ALL_EQUAL)

    def groups(self, size, passes, generator, votes=1):
        """`passes` times over all texts in groups of about `size`; a group's votes are drawn `votes` times.

        Returns  a list of (examples' indices, chosen, rejected): (P,) places within the group
        """
        found = []
        for _ in range(passes):
            order = torch.randperm(len(self.given or self.rated), generator=generator)
            for part in order.split(max(1, size // 2) if self.given else size):
                if self.given:
                    first = torch.arange(len(part))
                    found.append((torch.cat([part, part + len(self.given)]), first, first + len(part)))
                    continue
                drawn = (self.one_vote(part, generator) for _ in range(votes))
                chosen, rejected = torch.cat([(vote[:, None] > vote).nonzero() for vote in drawn]).unbind(1)
                if len(chosen):
                    found.append((part, chosen, rejected))
        if not found:
            raise DataError(ALL_EQUAL)
        return found

    def one_vote(self, indices, generator):
        """A random rater's vote for each of these rated rows, (N,)."""
        draws = torch.rand(len(indices), generator=generator).tolist()
        votes = (self.rated[i].votes for i in indices.tolist())
        return torch.tensor([mine[int(draw * len(mine))] for mine, draw in zip(votes, draws)])

    def targets(self):
        """Mean ratings brought to mean 0 and deviation 1, (N,): what a regression learns. Else DataError."""
        if self.given:
            raise DataError("a regression needs ratings, and this data has chosen and rejected: "
                            "use the pairwise loss")
        ratings = torch.tensor([row.rating for row in self.rated])
        if not ratings.max() > ratings.min():
            raise DataError(ALL_EQUAL)
        return (ratings - ratings.mean()) / ratings.std(correction=0)
