"""GPT-2 in: a Hugging Face folder becomes one of stage 1, or is refused by name and reason."""

import builtins
import json
import os
import shutil

import pytest
import torch

import finetune_ppo
import train_reward
from minippo.bridges.import_gpt2 import Config, main, read
from minippo.corpora.toy import toy
from minippo.policy import ActorCritic
from minippo.run import checkpoint
from minippo.run.commands import main as minippo
from minippo.run.errors import UserError
from minippo.run.flags import parse
from minippo.tokenizer import END, Tokenizer
from minippo.tools import generate
from tests.bridges.gpt2_by_hand import (
    CONFIG,
    HEAD,
    SHAPE,
    TOKENIZER,
    as_huggingface_writes,
    folder_of,
    hidden,
    weights,
    write,
)

TOKENS = torch.randint(0, SHAPE["vocab_size"], (3, 20), generator=torch.Generator().manual_seed(1))
TEXTS = ["the film is", "caf\u00e9 \U0001f600\n\n  12", f"a{END}b", "\x00\x1f\u200b"]


def logits(lm):
    return lm.logits(lm.decode(TOKENS))


def right(w, **shape):
    """The logits of TOKENS that GPT-2 computes from these weights."""
    shape = SHAPE | shape
    return hidden(w, TOKENS, shape["n_head"], shape["n_layer"]) @ w["wte.weight"].T


def imported(folder, out, **flags):
    main(Config(str(folder), str(out), **flags))
    return checkpoint.load_lm(out)


def refused(folder):
    with pytest.raises(UserError) as caught:
        read(folder)
    return str(caught.value)


# ---------------------------------------------------------------- what comes in

@pytest.mark.parametrize("shape", [
    {}, {"n_embd": 24, "n_head": 3, "n_layer": 1}, {"n_head": 1, "n_layer": 3, "n_positions": 20},
    {"n_embd": 16, "n_head": 16}])
def test_an_imported_model_computes_what_gpt2_computes(tmp_path, shape):
    w = weights(SHAPE | shape)
    lm, tokenizer = imported(folder_of(tmp_path / "hf", w, CONFIG | shape), tmp_path / "run")
    assert torch.allclose(logits(lm), right(w, **shape), atol=1e-5)
    assert right(w, **shape).std() > 0.5   # logits that differ
    assert lm.config.dropout == 0.1 and lm.config.context == (SHAPE | shape)["n_positions"]
    assert (lm.end, tokenizer.end) == (TOKENIZER.end, TOKENIZER.end)
    assert checkpoint.read_config(tmp_path / "run")["stage"] == "pretrain"


def prefixed(w):
    return {f"transformer.{name}": x for name, x in w.items()}


def with_buffers(w):
    masks = {"h.0.attn.bias": torch.ones(1, 1, 48, 48).bool(), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    return prefixed(w | masks) | {"lm_head.weight": w["wte.weight"]}


@pytest.mark.parametrize("change", [prefixed, with_buffers])
def test_names_with_a_prefix_a_tied_head_and_the_causal_mask_are_known(tmp_path, change):
    w = weights()
    lm, _ = read(folder_of(tmp_path, change(w)))
    assert torch.allclose(logits(lm), right(w), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_become_float32(tmp_path, dtype):
    w = {name: x.to(dtype) for name, x in weights().items()}
    lm, _ = read(folder_of(tmp_path, w))
    assert {x.dtype for x in lm.state_dict().values()} == {torch.float32}
    assert torch.allclose(logits(lm), right({name: x.float() for name, x in w.items()}), atol=1e-5)


def test_a_file_of_the_time_before_zips_is_read(tmp_path):
    w = weights()
    torch.save(w, folder_of(tmp_path) / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert torch.allclose(logits(read(tmp_path)[0]), right(w), atol=1e-5)


def sharded(folder, w, places=None):
    """The weights in two files and an index in place of one file."""
    (folder_of(folder) / "pytorch_model.bin").unlink()
    files = {name: f"pytorch_model-0000{1 + ('h.1' in name)}-of-00002.bin" for name in w}
    for file in set(files.values()):
        torch.save({name: w[name] for name in w if files[name] == file}, folder / file)
    write(folder / "pytorch_model.bin.index.json", {"weight_map": files if places is None else places})
    return folder


def test_weights_in_several_files_are_put_together(tmp_path):
    w = weights()
    assert torch.allclose(logits(read(sharded(tmp_path, w))[0]), right(w), atol=1e-5)


@pytest.mark.parametrize("places", [
    {"wte.weight": "../x"}, {"wte.weight": "/etc/passwd"}, {"wte.weight": 3}, [], {"wte.weight": ""}])
def test_an_index_that_leads_out_of_the_folder_is_refused(tmp_path, places):
    assert "names no files of this folder" in refused(sharded(tmp_path, weights(), places))


@pytest.mark.parametrize("kind", ["pair", "whole"])
def test_the_tokenizer_is_the_same_whichever_files_it_comes_in(tmp_path, kind):
    _, tokenizer = read(folder_of(tmp_path, tokenizer=kind))
    assert tokenizer.bpe.to_str() == TOKENIZER.bpe.to_str()   # as pretrain.py would have written it
    for text in TEXTS:
        assert tokenizer.encode(text) == TOKENIZER.encode(text) and tokenizer.decode(
            tokenizer.encode(text)) == text


def test_a_value_head_of_trl_makes_it_a_policy_whose_values_are_its(tmp_path):
    w = weights(extra=HEAD)
    folder_of(tmp_path / "hf", prefixed(weights()) | {name: w[name] for name in HEAD})
    write(tmp_path / "hf/generation_config.json", {"temperature": 0.7})
    imported(tmp_path / "hf", tmp_path / "run")
    policy, _ = checkpoint.load_policy(tmp_path / "run")
    assert isinstance(policy, ActorCritic) and policy.temperature == 0.7
    logprobs, values, _ = policy(TOKENS[:, :5], TOKENS[:, 5:])
    states = hidden(weights(), TOKENS, SHAPE["n_head"], SHAPE["n_layer"])[:, 4:-1]
    weight, bias = (w[name] for name in HEAD)
    assert torch.allclose(values, states @ weight[0] + bias, atol=1e-5)
    chosen = (right(weights())[:, 4:-1] / 0.7).log_softmax(-1).gather(-1, TOKENS[:, 5:, None])[..., 0]
    assert torch.allclose(logprobs, chosen, atol=1e-4)


def test_a_further_special_token_is_an_entry_to_which_no_text_is_encoded(tmp_path):
    count = SHAPE["vocab_size"]
    config = CONFIG | {"vocab_size": count + 1}
    w = weights(SHAPE | {"vocab_size": count + 1})
    tree = as_huggingface_writes(json.loads(TOKENIZER.bpe.to_str()))
    tree["added_tokens"].append(tree["added_tokens"][0] | {"content": "[PAD]", "id": count})
    write(folder_of(tmp_path, w, config) / "tokenizer.json", tree)
    lm, tokenizer = read(tmp_path)
    assert tokenizer.vocab_size == lm.config.vocab_size == count + 1
    assert tokenizer.encode("[PAD]") == TOKENIZER.encode("[PAD]") and tokenizer.decode([count]) == "[PAD]"


def test_embeddings_of_no_token_are_left_out_with_a_note(tmp_path, capsys):
    count = SHAPE["vocab_size"]
    w = weights(SHAPE | {"vocab_size": count + 20})
    lm, _ = read(folder_of(tmp_path, w, CONFIG | {"vocab_size": count + 20}))
    assert lm.config.vocab_size == count
    assert torch.allclose(logits(lm), right(w)[..., :count], atol=1e-5)
    assert f"the last 20 of {count + 20} embeddings belong to no token" in capsys.readouterr().err


def test_options_that_are_absent_are_those_of_gpt2_small(tmp_path):
    write(folder_of(tmp_path) / "config.json", {"model_type": "gpt2"})
    (tmp_path / "pytorch_model.bin").unlink()
    assert "neither model.safetensors nor" in refused(tmp_path)   # all before the weights went well
    torch.save(weights(), tmp_path / "pytorch_model.bin")
    assert "(h.10.attn.c_attn.bias is missing)" in refused(tmp_path)   # of twelve layers


# ---------------------------------------------------------------- what is refused

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


@pytest.mark.parametrize("option", [
    {"activation_function": "gelu_pytorch_tanh"}, {"n_inner": 32}, {"n_inner": None}, {"eos_token_id": None},
    {"reorder_and_upcast_attn": True}, {"n_ctx": 48, "summary_type": "cls_index"}])
def test_options_that_change_no_logit_are_not_refused(tmp_path, option):
    assert torch.allclose(logits(read(folder_of(tmp_path, config=CONFIG | option))[0]), right(weights()),
                          atol=1e-5)


def changed(path, entry):
    """A vocabulary with another entry."""
    write(path, json.loads(path.read_text(encoding="utf-8")) | entry)


def without(name):
    return {key: x for key, x in weights().items() if key != name}


W = weights()
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


@pytest.mark.parametrize("part, piece", [
    ("normalizer", {"type": "Lowercase"}), ("pre_tokenizer", None), ("pre_tokenizer", {"type": "Whitespace"}),
    ("pre_tokenizer", {"type": "ByteLevel", "add_prefix_space": True}),
    ("pre_tokenizer", {"type": "ByteLevel", "use_regex": False}), ("decoder", None),
    ("post_processor", {"type": "TemplateProcessing"}), ("model", {"type": "WordPiece", "vocab": {}}),
    ("model", {"type": "BPE", "dropout": 0.1}), ("model", {"end_of_word_suffix": "</w>"}),
    ("model", {"ignore_merges": True}), ("model", []), ("added_tokens", None),
    ("added_tokens", [{"content": "film", "id": 3, "special": False}]),
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


# ---------------------------------------------------------------- where it goes

def test_what_out_holds_is_kept_unless_overwrite_is_given(tmp_path):
    folder_of(tmp_path / "hf")
    imported(tmp_path / "hf", tmp_path / "run")
    (tmp_path / "run/metrics.jsonl").write_text("{}\n")   # as if a run had been here
    (tmp_path / "run/comparison.json").write_text("{}")
    before = (tmp_path / "run/model.pt").read_bytes()
    folder_of(tmp_path / "hf", weights(seed=5))
    with pytest.raises(UserError, match="is not empty; replace what is there by --overwrite"):
        imported(tmp_path / "hf", tmp_path / "run")
    assert (tmp_path / "run/model.pt").read_bytes() == before
    lm, _ = imported(tmp_path / "hf", tmp_path / "run", overwrite=True)
    assert torch.allclose(logits(lm), right(weights(seed=5)), atol=1e-5)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "config.json", "metrics.jsonl", "model.pt", "tokenizer.json"]
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == b""


def test_a_refused_model_leaves_no_folder(tmp_path):
    folder_of(tmp_path / "hf", config=CONFIG | {"model_type": "opt"})
    with pytest.raises(UserError):
        imported(tmp_path / "hf", tmp_path / "run")
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


def test_an_imported_model_goes_through_the_other_stages_and_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "hf")
    rows = [f'"{row.text}",{row.rating}' for row in toy(300)]
    (tmp_path / "data.csv").write_text("\n".join(["text,rating", *rows]))
    monkeypatch.setattr("sys.argv", ["minippo", "import-gpt2", "--model", "hf", "--out", "gpt2"])
    minippo()
    # (294 tokens + 48 positions + 2 of the last norm) * 8, and 2 layers of 12 * 8 * 8 + 13 * 8
    assert "written: gpt2 (4,496 weights)" in capsys.readouterr().out
    common = "--data data.csv --device cpu --precision fp32 --response-length 8 --model gpt2 "
    for script, flags in [
            (train_reward, "--out reward --passes 1 --group-size 64 --normalize-samples 8"),
            (finetune_ppo, "--out ppo --reward reward --iterations 1 --rollout-size 4 --minibatch-size 4")]:
        script.main(parse(script.Config, "", (common + flags).split()))
    for model in ("gpt2", "ppo"):
        generate.main(generate.Config(model=model, prompt="the film", n=1, length=8, device="cpu"))
    assert capsys.readouterr().out.count("the film |") == 2


def test_a_policy_that_came_in_is_what_stage_3_may_begin_with(tmp_path):
    folder_of(tmp_path / "hf", weights(extra=HEAD))
    lm, _ = imported(tmp_path / "hf", tmp_path / "run")   # load_lm: of any stage
    assert torch.allclose(logits(lm), right(weights()), atol=1e-5)
    assert checkpoint.read_config(tmp_path / "run")["settings"] == {
        "imported": str(tmp_path / "hf"), "temperature": 1.0}
    shutil.rmtree(tmp_path / "hf")
    assert Tokenizer.load(tmp_path / "run").vocab_size == 294
