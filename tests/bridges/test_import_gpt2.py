"""GPT-2 in: a Hugging Face folder becomes one of stage 1, or is refused by name and reason."""

import json
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
    sharded,
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


def test_weights_in_several_files_are_put_together(tmp_path):
    w = weights()
    assert torch.allclose(logits(read(sharded(tmp_path, w))[0]), right(w), atol=1e-5)


@pytest.mark.parametrize("kind", ["pair", "whole"])
def test_the_tokenizer_is_the_same_whichever_files_it_comes_in(tmp_path, kind):
    _, tokenizer = read(folder_of(tmp_path, tokenizer=kind))
    assert tokenizer.bpe.to_str() == TOKENIZER.bpe.to_str()   # as pretrain.py would have written it
    for text in TEXTS:
        assert tokenizer.encode(text) == TOKENIZER.encode(text) and tokenizer.decode(
            tokenizer.encode(text)) == text


def test_the_tokenizer_of_transformers_5_whose_template_is_the_text_alone_is_gpt2_s(tmp_path):
    tree = as_huggingface_writes(json.loads(TOKENIZER.bpe.to_str()))
    text, other = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
    template = {"type": "TemplateProcessing", "single": [text], "pair": [text, other], "special_tokens": {}}
    write(folder_of(tmp_path) / "tokenizer.json", tree | {"post_processor": template})
    assert read(tmp_path)[1].bpe.to_str() == TOKENIZER.bpe.to_str()


def test_a_value_head_of_trl_makes_it_a_policy_whose_values_are_its(tmp_path):
    w = weights(extra=HEAD)
    folder_of(tmp_path / "hf", prefixed(weights()) | {name: w[name] for name in HEAD})
    write(tmp_path / "hf/generation_config.json", {"temperature": None})   # left out, and yet written
    assert read(tmp_path / "hf")[0].temperature == 1
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


@pytest.mark.parametrize("named", [{"pad_token": "[PAD]"}, {"pad_token": {"content": "[PAD]"}},
                                   {"additional_special_tokens": ["<x>", "[PAD]"]}])
def test_special_tokens_beside_the_two_files_are_such_entries_and_words_are_refused(tmp_path, named):
    count = SHAPE["vocab_size"]
    folder_of(tmp_path, weights(SHAPE | {"vocab_size": count + 1}), CONFIG | {"vocab_size": count + 1})
    write(tmp_path / "added_tokens.json", {"[PAD]": count})
    with pytest.raises(UserError, match="added_tokens.json: '\\[PAD\\]' is an added word"):
        read(tmp_path)
    write(tmp_path / "special_tokens_map.json", named)
    lm, tokenizer = read(tmp_path)
    assert tokenizer.vocab_size == lm.config.vocab_size == count + 1 and tokenizer.decode([count]) == "[PAD]"


def test_embeddings_of_no_token_are_left_out_with_a_note(tmp_path, capsys):
    count = SHAPE["vocab_size"]
    w = weights(SHAPE | {"vocab_size": count + 20})
    lm, _ = read(folder_of(tmp_path, w, CONFIG | {"vocab_size": count + 20}))
    assert lm.config.vocab_size == count
    assert torch.allclose(logits(lm), right(w)[..., :count], atol=1e-5)
    assert f"the last 20 of {count + 20} embeddings belong to no token" in capsys.readouterr().err


@pytest.mark.parametrize("option", [
    {"activation_function": "gelu_pytorch_tanh"}, {"n_inner": 32}, {"n_inner": None}, {"eos_token_id": None},
    {"eos_token_id": [0]},
    {"reorder_and_upcast_attn": True}, {"n_ctx": 48, "summary_type": "cls_index"}])
def test_options_that_change_no_logit_are_not_refused(tmp_path, option):
    assert torch.allclose(logits(read(folder_of(tmp_path, config=CONFIG | option))[0]), right(weights()),
                          atol=1e-5)


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
