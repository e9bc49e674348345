"""chrF: how much a text and the true one share, in runs of letters. As a score, where the truth is known."""

from collections import Counter, defaultdict
from functools import cache
from itertools import accumulate, pairwise

from minippo.corpora.read import read
from minippo.run.errors import UserError

LONGEST, BETA = 6, 2   # letters of a run; recall counts BETA times as much as precision


def chrf(texts, truths):
    """chrF2 of texts against the true ones, each a list of strings: 0 to 100. White space does not count.

    Runs of one length are counted over all texts; precision and recall are means over the lengths that
    both sides have. With lists of one it is the chrF of a sentence.

    Source   Popović 2015; equal to sacrebleu's chrF2
    """
    precision, recall = [], []
    for length in range(1, LONGEST + 1):
        ours, true = ([_runs(text, length) for text in side] for side in (texts, truths))
        shared = sum((a & b).total() for a, b in zip(ours, true))
        found = sum(a.total() for a, b in zip(ours, true) if b)
        sought = sum(b.total() for b in true)
        if found and sought:
            precision.append(shared / found)
            recall.append(shared / sought)
    p, r = sum(precision), sum(recall)
    return 100 * (1 + BETA**2) * p * r / (BETA**2 * p + r) / len(precision) if p + r else 0.0


def _runs(text, length):
    """How often each run of `length` characters stands in a text, blanks left out."""
    letters = "".join(text.split())
    return Counter(letters[i:i + length] for i in range(len(letters) - length + 1))


def against(data):
    """A function for --score: how near responses are to the true text of their prompts.

    data      what --data names: rows with prompts of their own
    Returns   score(texts): of texts with `prompt`, `response` and `tokens` a list each, of a number per
              token. They sum up to (chrF - 50) / 10 of the response, which varies about as much as what
              PPO's settings are made for; of several true texts the nearest counts. UserError for a prompt
              that is none of the data's
    """
    @cache
    def truths():
        found = defaultdict(list)
        for row in read(data):
            if row.prompt:
                found[row.prompt].append(row.text)
        return dict(found)

    def score(texts):
        if unknown := [text.prompt for text in texts if text.prompt not in truths()]:
            raise UserError(f"{unknown[0]!r:.60} is no prompt of {data}, its true text is unknown; give "
                            f"--data {data}, and a prompt to each of its rows")
        return [max((_by_token(text, true) for true in truths()[text.prompt]), key=sum) for text in texts]

    return score


def _by_token(text, true):
    """What each token adds. Paid at the end alone, a token's own part drowns in that of thirty others.

    On the way a response is worth what its beginning is against an equally long one of the true text, in
    proportion to that length: so a token that is as good as the mean adds 0, wherever it stands.

    Source   Ng, Harada and Russell 1999: differences of a potential leave the best policy as it is
    """
    beginnings = list(accumulate(text.tokens, initial=""))[:-1]
    worth = [_worth(part, true[:len(part)]) * min(1, len(part) / len(true)) for part in beginnings]
    return [after - before for before, after in pairwise([*worth, _worth(text.response, true)])]


def _worth(text, true):
    return chrf([text], [true]) / 10 - 5


verses = against("verses")
