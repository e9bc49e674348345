"""tokenizer.json: ours is loaded, and no piece of the library that ours has not."""

import json
import time

import pytest
import tokenizers
from tokenizers import pre_tokenizers

from minippo.run.tokenizer_file import load
from minippo.tokenizer import END, Tokenizer

TOKENIZER = Tokenizer.train(["the film, the film", "caf\u00e9 \U0001f600"], 300)
REPLACE = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10**6}
SPLIT = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def written(path, change):
    """A file with a tokenizer in which change(its JSON) has changed something."""
    tree = json.loads(TOKENIZER.bpe.to_str())
    change(tree)
    path.write_text(json.dumps(tree), encoding="utf-8")
    return path


def refused(path):
    with pytest.raises(ValueError) as caught:
        load(path)
    return str(caught.value)


def test_what_was_saved_is_loaded(tmp_path):
    TOKENIZER.save(tmp_path)
    loaded = load(tmp_path / "tokenizer.json")
    assert loaded.bpe.to_str() == TOKENIZER.bpe.to_str() and loaded.end == TOKENIZER.end
    for text in ("the film", "caf\u00e9 <|endoftext|>", "\u4f60"):
        assert loaded.encode(text) == TOKENIZER.encode(text)


@pytest.mark.parametrize("part, piece", [
    ("normalizer", REPLACE), ("normalizer", {"type": "Sequence", "normalizers": [REPLACE]}),
    ("normalizer", {"type": "Lowercase"}), ("pre_tokenizer", SPLIT), ("pre_tokenizer", None),
    ("pre_tokenizer", {"type": "Sequence", "pretokenizers": [SPLIT, BYTES]}),
    ("pre_tokenizer", BYTES | {"add_prefix_space": True}), ("pre_tokenizer", BYTES | {"type": "Digits"}),
    ("post_processor", BYTES), ("decoder", REPLACE), ("decoder", None),
    ("decoder", {"type": "Sequence", "decoders": [REPLACE]}),
    ("truncation", {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}),
    ("padding", {"strategy": {"Fixed": 10**9}}), ("version", "2.0"), ("added_tokens", []), ("extra", 1),
    ("added_tokens", None)])
def test_a_piece_that_ours_has_not_is_refused_by_name(tmp_path, part, piece):
    path = written(tmp_path / "t", lambda tree: tree.update({part: piece}))
    start = time.monotonic()
    message = refused(path)
    assert f"its {part}, " in message and "byte-level BPE as Tokenizer.train makes it" in message
    assert len(message) < 300 and time.monotonic() - start < 1


@pytest.mark.parametrize("option, value", [
    ("type", "WordPiece"), ("dropout", 0.5), ("unk_token", "a"), ("byte_fallback", True),
    ("continuing_subword_prefix", "##"), ("end_of_word_suffix", "</w>"), ("extra", 1)])
def test_another_kind_of_model_is_refused(tmp_path, option, value):
    path = written(tmp_path / "t", lambda tree: tree["model"].update({option: value}))
    assert "its model, " in refused(path)


@pytest.mark.parametrize("change", [{"content": "film"}, {"lstrip": True}, {"normalized": True}, {"id": 5}])
def test_the_end_is_the_only_token_added(tmp_path, change):
    assert "its added_tokens, " in refused(
        written(tmp_path / "t", lambda tree: tree["added_tokens"][0].update(change)))
    assert "its added_tokens, " in refused(written(tmp_path / "t", lambda tree: tree["added_tokens"].append(
        tree["added_tokens"][0] | {"id": 1, "content": "film"})))


def test_the_end_may_have_any_id(tmp_path):
    def last(tree):
        vocab = tree["model"]["vocab"]
        other = max(vocab, key=vocab.get)
        vocab[END], vocab[other] = vocab[other], vocab[END]
        tree["added_tokens"][0]["id"] = vocab[END]
    assert load(written(tmp_path / "t", last)).end == TOKENIZER.vocab_size - 1


def test_options_that_an_older_library_did_not_write_are_not_needed(tmp_path):
    def older(tree):
        del tree["model"]["ignore_merges"], tree["pre_tokenizer"]["use_regex"], tree["decoder"]["use_regex"]
        tree["model"]["merges"] = [" ".join(pair) for pair in tree["model"]["merges"]]
    loaded = load(written(tmp_path / "t", older))
    assert loaded.bpe.to_str() == TOKENIZER.bpe.to_str()


def test_every_byte_has_a_token_and_none_is_longer_than_those_of_training(tmp_path):
    first = sorted(pre_tokenizers.ByteLevel.alphabet())[0]
    assert refused(written(tmp_path / "t", lambda tree: tree["model"]["vocab"].pop(first))) == \
        "it has no token for 1 of the 256 bytes"
    size = TOKENIZER.vocab_size

    def longer(letters):   # 1,000 characters of 4 bytes are the longest piece that training sees
        return written(tmp_path / "t", lambda tree: tree["model"]["vocab"].update({"a" * letters: size}))
    assert load(longer(4000)).vocab_size == size + 1
    assert refused(longer(4001)) == "it has a token of more than 4,000 bytes"


def test_what_is_checked_is_what_is_built(tmp_path):
    # two normalizers: one parser takes the last, another might take the first
    text = TOKENIZER.bpe.to_str()
    assert text.count('"normalizer":null') == 1
    twice = text.replace('"normalizer":null', f'"normalizer":{json.dumps(REPLACE)},"normalizer":null')
    (tmp_path / "t").write_text(twice, encoding="utf-8")
    assert json.loads(load(tmp_path / "t").bpe.to_str())["normalizer"] is None


@pytest.mark.parametrize("content", [
    "", "{}", "[]", "null", "1", "[" * 100_000, '{"model": []}', '{"model": {"vocab": []}}', "\ufeff{}",
    '{"model": {"vocab": {}}}'])
def test_what_is_no_tokenizer_is_a_value_error(tmp_path, content):
    (tmp_path / "t").write_text(content, encoding="utf-8")
    assert "\n" not in refused(tmp_path / "t")


def test_a_file_of_gigabytes_is_refused_unread(tmp_path):
    with open(tmp_path / "t", "wb") as file:
        file.truncate(2**32)
    start = time.monotonic()
    with pytest.raises(OSError, match="4,294,967,296 bytes, more than the 134,217,728"):
        load(tmp_path / "t")
    assert time.monotonic() - start < 1


def test_the_refused_pieces_would_have_been_built():
    for part, piece in (("normalizer", REPLACE), ("pre_tokenizer", SPLIT)):
        tree = json.loads(TOKENIZER.bpe.to_str()) | {part: piece}
        assert tokenizers.Tokenizer.from_str(json.dumps(tree))
