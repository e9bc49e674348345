"""Texts on which tokenizers disagree, and whether transformers' and ours do."""

import random

from minippo.tokenizer import END

NASTY = [
    "", " ", "   ", "a  b   c", "\n", "\n\n \n\t", " \u00a0\u2003\u3000x", "\r\n", "  leading", "trailing  ",
    "\x00\x01\x1f\x7f\x80\x9f", "\ufeffBOM \u200b\u2028\u2029\u0085", "\U0010ffff\ufffd", "x" * 3000,
    "e\u0301 a\u030a\u0323 \u0e01\u0e33 \u0939\u093f\u0928\u094d\u0926\u0940",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002 \u3053\u3093\u306b\u3061\u306f \ud55c\uad6d\uc5b4",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467\U0001f3fd \U0001f1e9\U0001f1ea",
    "1234567890 3.14 1,000 \u0661\u0662 \u00bd \u2163", END, f"a{END}b {END} {END[:-1]}",
    "It's I'LL we'Ve 'tis", "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u202eabc\u202c",
    "\u0130I\u0131i \u1e9e\u00df \ufb01", "http://a.b/c?d=e&f#g <br /><br />", "#version: 0.2"]


def any_texts(count=300):
    """Texts of random characters, of every plane."""
    draw, pieces = random.Random(0), (0x80, 0x250, 0x3100, 0xD800, 0x20000, 0x110000)

    def letter():
        code = draw.randrange(draw.choice(pieces))
        return " " if 0xD800 <= code < 0xE000 else chr(code)

    return ["".join(letter() for _ in range(draw.randrange(1, 30))) for _ in range(count)]


def agree(tokenizer, theirs):
    """Tokens and texts of both are the same; what is typed is text to ours, also if it looks like the end."""
    theirs.clean_up_tokenization_spaces = False
    for text in NASTY + any_texts():
        ids = theirs(text, split_special_tokens=True)["input_ids"]
        assert tokenizer.encode(text) == ids, repr(text)
        assert tokenizer.decode(ids) == theirs.decode(ids) == text
    split = theirs(f"a{END}b")["input_ids"]   # to theirs it is the end, unless asked for
    assert split == [*tokenizer.encode("a"), tokenizer.end, *tokenizer.encode("b")]
    assert theirs.eos_token_id == theirs.bos_token_id == tokenizer.end
