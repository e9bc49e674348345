"""Byte-level BPE: every text survives there and back, and only we can write the end token."""

import pytest
import torch

from minippo.run.checkpoint import load_tokenizer
from minippo.run.errors import UserError
from minippo.tokenizer import Tokenizer
from minippo.tokens import PAD

TEXTS = ["the film was great", "the film was bad", "what a film"] * 20
TOKENIZER = Tokenizer.train(TEXTS, 280)


def test_spaces_line_ends_and_bytes_never_seen_in_training_survive():
    text = "  two  spaces \r\n\ttab, zero \x00, \u00e9 \u4f60\u597d \U0001f600 e\u0301 "
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_training_learns_what_is_frequent_and_keeps_to_the_size():
    assert TOKENIZER.vocab_size <= 280
    assert len(TOKENIZER.encode("the film")) == 2   # "the", " film", eight bytes
    assert Tokenizer.train(TEXTS, 257).encode("film") != TOKENIZER.encode("film")


def test_a_token_counts_as_the_one_after_a_space_if_there_is_one():
    tokenizer = Tokenizer.train(["film film film"] * 9, 300)
    [film], [after_a_space] = tokenizer.encode("film"), tokenizer.encode(" film")
    spaced = tokenizer.spaced()
    assert len(spaced) == tokenizer.vocab_size and spaced[film] == spaced[after_a_space] == after_a_space
    assert spaced[tokenizer.end] == tokenizer.end != film != after_a_space


def test_one_space_counts_for_itself_and_not_as_two():
    tokenizer = Tokenizer.train(["a   b   c"] * 9, 300)
    assert {"Ġ", "ĠĠ"} <= tokenizer.bpe.get_vocab().keys()   # "Ġ" is a space
    spaces = [tokenizer.bpe.token_to_id(x) for x in ("Ġ", "ĠĠ")]
    assert [tokenizer.spaced()[i] for i in spaces] == spaces


def test_the_smallest_vocabulary_is_the_bytes_and_the_end():
    tokenizer = Tokenizer.train(TEXTS, 257)
    assert tokenizer.vocab_size == 257
    assert len(tokenizer.encode("film \u00e9")) == 7   # five bytes, and two of UTF-8
    with pytest.raises(ValueError, match="257"):
        Tokenizer.train(TEXTS, 256)


def test_d02_the_end_token_typed_by_a_person_is_text():
    ids = TOKENIZER.encode("<|endoftext|>")
    assert len(ids) > 1 and TOKENIZER.end not in ids
    assert TOKENIZER.decode(ids) == "<|endoftext|>"


def test_decoding_leaves_out_pad_and_the_end():
    ids = [PAD, TOKENIZER.end, *TOKENIZER.encode("the film"), TOKENIZER.end, PAD]
    assert TOKENIZER.decode(ids) == "the film"
    assert TOKENIZER.decode(torch.tensor(ids)) == "the film"
    assert TOKENIZER.decode([]) == ""


def test_what_was_saved_is_loaded(tmp_path):
    TOKENIZER.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.vocab_size, loaded.end) == (TOKENIZER.vocab_size, TOKENIZER.end)
    text = "the film \u00e9 <|endoftext|>"
    assert loaded.encode(text) == TOKENIZER.encode(text)
    assert loaded.bpe.to_str() == TOKENIZER.bpe.to_str()


def test_a_missing_file_says_what_to_give(tmp_path):
    with pytest.raises(FileNotFoundError, match="tokenizer.json"):
        Tokenizer.load(tmp_path)
    with pytest.raises(UserError, match="tokenizer.json: cannot be read"):
        load_tokenizer(tmp_path)


HALF = TOKENIZER.bpe.to_str().encode()[:2000]


@pytest.mark.parametrize("content", [b"", b"garbage", b"{}", b"\xff\xfe", HALF])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ValueError):
        Tokenizer.load(tmp_path)
    with pytest.raises(UserError, match="tokenizer.json: not a tokenizer"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_without_our_end_token_is_refused(tmp_path):
    content = TOKENIZER.bpe.to_str().replace("<|endoftext|>", "</s>")
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="has no token"):
        Tokenizer.load(tmp_path)
    with pytest.raises(UserError, match="tokenizer.json: not a tokenizer .*has no token"):
        load_tokenizer(tmp_path)
