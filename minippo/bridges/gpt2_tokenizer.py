"""GPT-2's tokenizer as Hugging Face keeps it, and ours: the same vocabulary and merges."""

import json
import os
import reprlib
from pathlib import Path

from minippo.bridges.hugging_face import FETCH, damaged, read_json
from minippo.run import tokenizer_file
from minippo.run.errors import UserError
from minippo.run.files import read_regular
from minippo.run.sizes import LARGEST_TOKENIZER
from minippo.tokenizer import END, Tokenizer

PLAIN = {   # what may stand in the parts of a tokenizer.json: ours has nothing else
    "normalizer": lambda part: part is None,
    "pre_tokenizer": lambda part: kind_of(part) == "ByteLevel" and not part.get("add_prefix_space")
    and part.get("use_regex", True),
    "post_processor": lambda part: part is None or adds_nothing(part),
    "decoder": lambda part: kind_of(part) == "ByteLevel",
    "model": lambda part: isinstance(part, dict) and part.get("type", "BPE") == "BPE" and not any(
        part.get(name) for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix",
                                    "byte_fallback", "ignore_merges")),
    "added_tokens": lambda part: isinstance(part, list) and all(
        isinstance(token, dict) and token.get("special") and isinstance(token.get("content"), str)
        for token in part)}


def kind_of(part):
    return part.get("type") if isinstance(part, dict) else None


def adds_nothing(part):
    """Whether a post-processor moves offsets alone, or has the text alone as its template."""
    return kind_of(part) == "ByteLevel" or (kind_of(part) == "TemplateProcessing" and part.get("single") == [
        {"Sequence": {"id": "A", "type_id": 0}}])


def read(folder):
    """The Tokenizer of a Hugging Face folder; UserError naming what ours has not."""
    folder = Path(folder)
    about = folder / "tokenizer_config.json"
    if os.path.isfile(about) and read_json(about).get("add_prefix_space"):
        raise UserError(f"{about}: add_prefix_space is true, and our tokenizer adds none; "
                        "this model cannot be imported")
    path, pair = folder / "tokenizer.json", (folder / "vocab.json", folder / "merges.txt")
    if os.path.isfile(path):
        vocab, merges = whole(path)
    elif all(map(os.path.isfile, pair)):
        path, (vocab, merges) = pair[0], two_files(*pair)
        vocab |= added(folder)
    else:
        raise UserError(f"{folder}: neither tokenizer.json is here nor vocab.json with merges.txt; {FETCH}")
    tree = json.loads(Tokenizer.train([], 257).bpe.to_str())
    tree["added_tokens"][0]["id"] = vocab.get(END)
    tree["model"] |= {"vocab": vocab, "merges": merges}
    try:
        return tokenizer_file.made(tree)
    except ValueError as error:
        raise UserError(f"{path}: no tokenizer of GPT-2 ({error!s:.200})") from None


def whole(path):
    """(vocabulary, merges) of a tokenizer.json; special tokens are entries to which no text is encoded."""
    found = read_json(path, LARGEST_TOKENIZER)
    for part, plain in PLAIN.items():
        if not plain(found.get(part)):
            raise UserError(f"{path}: its {part}, {reprlib.repr(found.get(part)):.100}, is not that of "
                            "GPT-2; this model cannot be imported")
    vocab, merges = (found["model"].get(name) for name in ("vocab", "merges"))
    if not isinstance(vocab, dict):
        raise damaged(path, "it has no vocabulary")
    return vocab | {token.get("content"): token.get("id") for token in found["added_tokens"]}, merges


def two_files(vocabulary, merges):
    """(vocabulary, merges) of the two files that GPT-2 came with."""
    try:
        lines = read_regular(merges, LARGEST_TOKENIZER).decode("utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise damaged(merges, error) from None
    if lines[0].startswith("#version"):
        lines = lines[1:]
    return read_json(vocabulary, LARGEST_TOKENIZER), [line for line in lines if line]


def added(folder):
    """{token: id} of the special tokens that transformers keeps beside the two files; UserError for words."""
    path, special = folder / "added_tokens.json", folder / "special_tokens_map.json"
    found = read_json(path) if os.path.isfile(path) else {}
    parts = read_json(special).values() if os.path.isfile(special) else ()
    parts = [entry for part in parts for entry in (part if isinstance(part, list) else [part])]
    named = [entry.get("content") if isinstance(entry, dict) else entry for entry in parts]
    if words := [token for token in found if token not in named]:
        raise UserError(f"{path}: {words[0]!r:.60} is an added word, and none of special_tokens_map.json; "
                        "this model cannot be imported")
    return found


def written(tokenizer, context):
    """The files of a Tokenizer in a Hugging Face folder: {name: bytes}."""
    tree = json.loads(tokenizer.bpe.to_str())
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in tree["model"]["merges"]]
    about = {"tokenizer_class": "GPT2Tokenizer", "model_max_length": context, "add_prefix_space": False,
             "clean_up_tokenization_spaces": False, "bos_token": END, "eos_token": END, "unk_token": END}
    files = {"tokenizer.json": tree, "vocab.json": tree["model"]["vocab"], "tokenizer_config.json": about}
    return {name: json.dumps(x, ensure_ascii=False).encode() for name, x in files.items()} | {
        "merges.txt": "\n".join(["#version: 0.2", *pairs, ""]).encode()}
