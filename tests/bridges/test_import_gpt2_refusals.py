"""GPT-2 in: what is none, or damaged, or has what a Decoder has not, is refused by name and reason."""

import builtins
import json
import os

import pytest
import torch

from minippo.bridges.import_gpt2 import Config, main, read
from minippo.run.checkpoint import load_lm
from minippo.run.errors import UserError
from minippo.tokenizer import END
from tests.bridges.gpt2_by_hand import (
    CONFIG,
    HEAD,
    TOKENIZER,
    as_huggingface_writes,
    folder_of,
    sharded,
    weights,
    write,
)

W = weights()


def refused(folder):
    with pytest.raises(UserError) as caught:
        read(folder)
    return str(caught.value)


# ---------------------------------------------------------------- config.json

@pytest.mark.parametrize("option, words", [
    ({"model_type": "llama"}, "model_type 'llama' is not 'gpt2'"),
    ({"model_type": None}, "model_type None is not 'gpt2'"),
    ({"activation_function": "relu"}, "activation_function is 'relu', and our decoder has 'gelu_new' or"),
    ({"activation_function": "gelu"}, "activation_function is 'gelu'"),   # with erf: another function
    ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06, and our decoder has 1e-05 only"),
    ({"scale_attn_weights": False}, "scale_attn_weights is False"),
    ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
    ({"add_cross_attention": True}, "add_cross_attention is True"),
    ({"is_encoder_decoder": True}, "is_encoder_decoder is True"),
    ({"tie_word_embeddings": False}, "tie_word_embeddings is False"),
    ({"pruned_heads": {"0": [1]}}, "pruned_heads is {'0': [1]}"),
    ({"quantization_config": {"bits": 4}}, "quantization_config is {'bits': 4}"),
    ({"n_inner": 8}, "n_inner is 8, and our decoder has None or 32 only"),
    ({"n_embd": "wide"}, "no sizes of a model that we can build (width 'wide'"),
    ({"n_head": 3}, "width 8 is not a multiple of heads 3"),
    ({"n_layer": 10**9}, "layers 1000000000"), ({"n_positions": 0}, "context 0"),
    ({"resid_pdrop": "x"}, "no sizes of a model"),
    ({"eos_token_id": 7}, "eos_token_id is 7, and our end token, <|endoftext|>, is"),
    ({"vocab_size": 280}, "vocab_size is 280, and the tokenizer has 294 tokens")])
def test_another_family_or_option_is_refused_by_name(tmp_path, option, words):
    message = refused(folder_of(tmp_path, config=CONFIG | option))
    assert words in message and f"{tmp_path / 'config.json'}: " in message


def test_options_that_are_absent_are_those_of_gpt2_small(tmp_path):
    write(folder_of(tmp_path) / "config.json", {"model_type": "gpt2"})
    (tmp_path / "pytorch_model.bin").unlink()
    assert "neither model.safetensors nor" in refused(tmp_path)   # all before the weights went well
    torch.save(weights(), tmp_path / "pytorch_model.bin")
    assert "(h.10.attn.c_attn.bias is missing)" in refused(tmp_path)   # of twelve layers


def test_a_run_of_ours_needs_no_import_and_a_file_is_no_folder(tmp_path):
    write(folder_of(tmp_path) / "config.json", {"stage": "pretrain", "model": {}, "settings": {}})
    assert refused(tmp_path) == f"{tmp_path}: a run of ours, which needs no import"
    assert "config.json: is a file; name the folder of the model" in refused(tmp_path / "config.json")
    assert "no such folder; download the model before; name" in refused(tmp_path / "nowhere")


def test_where_a_run_is_expected_a_folder_of_hugging_face_is_called_so(tmp_path):
    with pytest.raises(UserError, match="a folder of Hugging Face; import-gpt2 makes one of ours of a GPT-2"):
        load_lm(folder_of(tmp_path))


# ---------------------------------------------------------------- weights

def without(name):
    return {key: x for key, x in weights().items() if key != name}


@pytest.mark.parametrize("found, words", [
    (without("h.1.mlp.c_fc.bias"), "h.1.mlp.c_fc.bias is missing"),
    (W | {"score.weight": torch.ones(2, 8)}, "score.weight is no part of it"),
    (W | {"h.2.ln_1.weight": torch.ones(8)}, "h.2.ln_1.weight is no part of it"),
    (W | {"transformer.ln_f.bias": torch.ones(8)}, "twice, with transformer. and without"),
    (W | {"h.0.attn.c_attn.weight": torch.ones(24, 8)}, "float32 (24, 8), not floats (8, 24)"),
    (W | {"ln_f.bias": torch.ones(8).long()}, "ln_f.bias is torch.int64 (8,), not floats (8,)"),
    (W | {"ln_f.bias": torch.ones(8).to_sparse()}, "ln_f.bias is"),
    (W | {"ln_f.bias": torch.ones(8, device="meta")}, "ln_f.bias is"),
    (W | {"wpe.weight": torch.full((48, 8), torch.nan)}, "wpe.weight is not finite"),
    (W | {"wpe.weight": torch.full((48, 8), 1e300, dtype=torch.float64)}, "wpe.weight is not finite"),
    (W | {"lm_head.weight": W["wte.weight"] + 1}, "lm_head.weight differs from wte.weight"),
    (W | {"lm_head.weight": torch.ones(3)}, "lm_head.weight is torch.float32 (3,)"),
    (W | {"v_head.summary.bias": torch.ones(1)}, "v_head.summary.weight is missing"),
    (W | {"v_head.summary.weight": torch.ones(2, 8), "v_head.summary.bias": torch.ones(1)}, "(2, 8), not"),
    ([1, 2], "damaged (no tensors by name)"), ({"a": 1}, "damaged (no tensors by name)"),
    ({3: W["ln_f.bias"]}, "damaged (no tensors by name)")])
def test_weights_of_another_model_are_refused_by_name(tmp_path, found, words):
    assert words in refused(folder_of(tmp_path, found))


@pytest.mark.parametrize("places", [
    {"wte.weight": "../x"}, {"wte.weight": "/etc/passwd"}, {"wte.weight": 3}, [], {"wte.weight": ""}])
def test_an_index_that_leads_out_of_the_folder_is_refused(tmp_path, places):
    assert "names no files of this folder" in refused(sharded(tmp_path, weights(), places))


# ---------------------------------------------------------------- files

def changed(path, entry):
    """A vocabulary with another entry."""
    write(path, json.loads(path.read_text(encoding="utf-8")) | entry)


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name, damage, words", [
    ("pytorch_model.bin", cut, "damaged"), ("pytorch_model.bin", flipped, "damaged"),
    ("pytorch_model.bin", lambda path: path.write_bytes(b""), "damaged"),
    ("pytorch_model.bin", os.remove, "neither model.safetensors nor pytorch_model.bin is here"),
    ("config.json", os.remove, "config.json: cannot be read (No such file"),
    ("config.json", lambda path: path.write_text("{"), "config.json: damaged"),
    ("config.json", lambda path: path.write_text("[1]"), "config.json: damaged (no object of JSON)"),
    ("config.json", lambda path: path.write_text("[" * 10**5), "config.json: damaged"),
    ("vocab.json", os.remove, "neither tokenizer.json is here nor vocab.json with merges.txt"),
    ("merges.txt", os.remove, "neither tokenizer.json is here nor vocab.json with merges.txt"),
    ("merges.txt", lambda path: path.write_bytes(b"\xff"), "merges.txt: damaged"),
    ("merges.txt", lambda path: path.write_text("zz yy"), "vocab.json: no tokenizer of GPT-2"),
    ("vocab.json", lambda path: write(path, {"a": 0}), "has no token <|endoftext|>"),
    ("vocab.json", lambda path: write(path, {END: 0, "a": 1}), "no token for 255 of the 256 bytes"),
    ("vocab.json", lambda path: changed(path, {"a": 1}), "its ids are not 0, 1,"),
    ("vocab.json", lambda path: changed(path, {"a": "x"}), "no tokenizer of")])
def test_a_damaged_or_missing_file_is_refused_by_name(tmp_path, name, damage, words):
    damage(folder_of(tmp_path) / name)
    assert words in refused(tmp_path)


# ---------------------------------------------------------------- the tokenizer

@pytest.mark.parametrize("part, piece", [
    ("normalizer", {"type": "Lowercase"}), ("pre_tokenizer", None), ("pre_tokenizer", {"type": "Whitespace"}),
    ("pre_tokenizer", {"type": "ByteLevel", "add_prefix_space": True}),
    ("pre_tokenizer", {"type": "ByteLevel", "use_regex": False}), ("decoder", None),
    ("post_processor", {"type": "TemplateProcessing"}),
    ("post_processor", {"type": "TemplateProcessing", "single": [   # adds a token before every text
        {"SpecialToken": {"id": END, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]}),
    ("model", {"type": "WordPiece", "vocab": {}}), ("model", {"type": "BPE", "dropout": 0.1}),
    ("model", {"end_of_word_suffix": "</w>"}), ("model", {"ignore_merges": True}), ("model", []),
    ("added_tokens", None), ("added_tokens", [{"content": "film", "id": 3, "special": False}]),
    ("added_tokens", [{"content": ["a"], "id": 3, "special": True}])])
def test_a_tokenizer_that_is_not_gpt2_s_is_refused_by_its_part(tmp_path, part, piece):
    tree = as_huggingface_writes(json.loads(TOKENIZER.bpe.to_str()))
    write(folder_of(tmp_path) / "tokenizer.json", tree | {part: piece})
    assert f"tokenizer.json: its {part}, " in refused(tmp_path)


def test_a_space_before_every_text_is_refused(tmp_path):
    write(folder_of(tmp_path) / "tokenizer_config.json", {"add_prefix_space": True})
    assert "tokenizer_config.json: add_prefix_space is true" in refused(tmp_path)


@pytest.mark.parametrize("value", [0, "warm", True, -1, float("nan"), 1e10])
def test_a_temperature_that_is_none_is_refused(tmp_path, value):
    write(folder_of(tmp_path, weights(extra=HEAD)) / "generation_config.json", {"temperature": value})
    assert "generation_config.json: temperature" in refused(tmp_path)


def test_without_safetensors_a_line_says_so_unless_there_is_pytorch_model_bin_alone(tmp_path, monkeypatch):
    def importing(name, *rest, real=builtins.__import__):
        if name.startswith("safetensors"):
            raise ImportError(name)
        return real(name, *rest)
    monkeypatch.setattr(builtins, "__import__", importing)
    read(folder_of(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert refused(tmp_path).endswith("is not here; pip install safetensors")


# ---------------------------------------------------------------- --out

def test_a_refused_model_leaves_no_folder(tmp_path):
    folder_of(tmp_path / "hf", config=CONFIG | {"model_type": "opt"})
    with pytest.raises(UserError):
        main(Config(str(tmp_path / "hf"), str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("model, out, words", [
    ("hf", " ", "--out is empty"), ("hf", "hf", "is also read from"), ("gpt2", "run", "gpt2: no such folder"),
    ("hf", "link", "a link, where a file of the run is to be")])
def test_a_wrong_folder_is_refused(tmp_path, monkeypatch, model, out, words):
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "hf")
    (tmp_path / "link").mkdir()
    (tmp_path / "link/model.pt").symlink_to(tmp_path / "hf/config.json")
    with pytest.raises(UserError, match=words):
        main(Config(model, out, overwrite=True))
