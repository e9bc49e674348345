"""A toy corpus that needs no network: a grammar, rated by a rule."""

import random
import re

from minippo.corpora.rows import Row, fingerprint

VALUES = {"wonderful": 4, "superb": 4, "loved": 3, "lovely": 3, "great": 3, "enjoyed": 2, "good": 2}
VALUES |= {"charming": 2, "liked": 1, "nice": 1, "avoided": -1, "bland": -1, "regretted": -2}
VALUES |= {"bad": -2, "boring": -2, "hated": -3, "nasty": -3, "ugly": -3, "awful": -4}
VALUES |= {"terrible": -4}
NEGATIONS, CLAUSE_ENDS = {"not", "never", "hardly"}, {".", ",", "!", "and", "but"}
THINGS = (  # one line a topic; a sentence keeps to its topic
    "soup|bread|cheese|cake|tea|dinner|salad|pie",
    "morning|rain|wind|evening|summer|sky|snow|winter",
    "novel|story|poem|chapter|ending|book|letter|diary",
    "train|hotel|city|journey|beach|museum|road|harbour",
)
GRAMMAR = {
    "SENTENCE": "CLAUSE .|CLAUSE !|CLAUSE , but CLAUSE .|CLAUSE and CLAUSE .|TIME , CLAUSE .|"
    "TIME , CLAUSE and CLAUSE .|TIME , CLAUSE , but CLAUSE .",
    "CLAUSE": "the THING was ADJ|the THING was HOW ADJ|the PLAIN THING was ADJ|it was a ADJ THING|"
    "the THING was not ADJ|the THING was hardly ADJ|it was not a ADJ THING|PERSON DID the THING|"
    "PERSON DID the ADJ THING|PERSON never DID the THING",
    "HOW": "really|rather|quite|always|simply",
    "ADJ": "wonderful|superb|lovely|great|good|charming|nice|PLAIN|"
    "bland|bad|boring|nasty|ugly|awful|terrible",
    "PLAIN": "long|short|small|quiet|early|local|new|old",
    "DID": "loved|enjoyed|liked|noticed|avoided|regretted|hated",
    "PERSON": "i|we|they|my sister|my neighbour|the children|our friends|the teacher",
    "TIME": "last year|this week|on sunday|at home|for once|in the end|after lunch|by the sea",
}


def toy(count=3000, seed=0) -> list[Row]:
    """`count` different made-up opinions of 4 to 14 words, each with 7 votes.

    A vote is `toy_rating` plus normal noise (standard deviation 1), rounded, within -4 ... 4.
    Equal arguments give equal rows; the grammar has many millions of sentences.
    """
    rng, rows = random.Random(seed), {}
    while len(rows) < count:
        text = _expand("SENTENCE", {**GRAMMAR, "THING": rng.choice(THINGS)}, rng)
        text = re.sub(r"\ba (?=[aeiou])", "an ", text)
        if text not in rows and 4 <= len(re.findall(r"\w+", text)) <= 14:
            noisy = (round(toy_rating(text) + rng.gauss(0, 1)) for _ in range(7))
            votes = tuple(float(max(-4, min(4, vote))) for vote in noisy)
            rows[text] = Row("toy-" + fingerprint(text), text, votes)
    return list(rows.values())


def toy_rating(text: str) -> float:
    """The rule behind the toy corpus, for any text: the sum of its words' values, in -4 ... 4.

    A negation turns the next word of value in its clause around and halves it: "not awful" is 2.
    """
    total, factor = 0.0, 1.0
    for word in text.split():
        if word in NEGATIONS:
            factor = -0.5
        elif word in VALUES:
            total, factor = total + factor * VALUES[word], 1.0
        elif word in CLAUSE_ENDS:
            factor = 1.0
    return max(-4.0, min(4.0, total))


def _expand(symbol, grammar, rng):
    if symbol not in grammar:
        return symbol
    words = rng.choice(grammar[symbol].split("|")).split()
    return " ".join(_expand(word, grammar, rng) for word in words)
