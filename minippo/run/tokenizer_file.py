"""tokenizer.json, read: a byte-level BPE as `Tokenizer.train` makes it, and nothing else.

The format of the `tokenizers` library names pieces that run on every text: regular expressions that
never end, replacements of a letter by a million. None of them is built here.
"""

import json
import reprlib

import tokenizers
from tokenizers.pre_tokenizers import ByteLevel

from minippo.run.files import read_regular
from minippo.run.sizes import LARGEST_TOKENIZER
from minippo.tokenizer import END, PIECE, Tokenizer


def load(path):
    """The Tokenizer in a file. OSError if it cannot be read, ValueError naming what is none of ours."""
    try:
        found = json.loads(read_regular(path, LARGEST_TOKENIZER).decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deep") from None
    return made(found)


def made(found):
    """The Tokenizer that the JSON of one describes, a dict; ValueError naming what is none of ours."""
    check(found)
    try:   # of what was checked: another parser might read the file otherwise
        return Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(found)))
    except Exception as error:  # the library raises plain Exception
        raise ValueError(str(error)) from None


def check(found):
    """ValueError unless the JSON of a tokenizer differs from ours in nothing but what it has learned."""
    model = found.get("model") if isinstance(found, dict) else None
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocab, dict):
        raise ValueError("it has no vocabulary")
    if END not in vocab:
        raise ValueError(f"the tokenizer has no token {END}")
    if missing := set(ByteLevel.alphabet()) - vocab.keys():
        raise ValueError(f"it has no token for {len(missing)} of the 256 bytes")
    if max(map(len, vocab)) > 4 * PIECE:   # a character has up to 4 bytes
        raise ValueError(f"it has a token of more than {4 * PIECE:,} bytes")
    ours = json.loads(Tokenizer.train([], 257).bpe.to_str())
    ours["added_tokens"][0]["id"] = vocab[END]
    ours["model"] |= {"vocab": None, "merges": None}
    found = found | {"model": model | {"vocab": None, "merges": None}}
    for part in sorted(found.keys() | ours.keys()):
        if not agree(found.get(part), ours.get(part)):
            raise ValueError(f"its {part}, {reprlib.repr(found.get(part)):.100}, is not that of a "
                             "byte-level BPE as Tokenizer.train makes it")


def agree(found, ours):
    """Whether a part is ours; it may lack an option that an older version of the library does not write."""
    if isinstance(found, dict) and isinstance(ours, dict):
        return found.get("type") == ours.get("type") and found.items() <= ours.items()
    return found == ours
