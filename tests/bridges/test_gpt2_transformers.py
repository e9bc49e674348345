"""The same GPT-2 in transformers (and TRL) and here: logits, greedy texts, tokens. Skipped without them."""

import json

import pytest
import torch

from minippo.bridges import import_gpt2
from minippo.generation import generate
from minippo.policy import ActorCritic
from minippo.run import checkpoint
from minippo.tokens import PAD
from tests.bridges.gpt2_by_hand import TOKENIZER
from tests.bridges.nasty_texts import agree
from tests.bridges.test_export_gpt2 import exported, lm_of, policy_of, run_of, same

transformers = pytest.importorskip("transformers")
pytest.importorskip("safetensors")

SHAPES = [dict(n_embd=32, n_head=4, n_layer=2, n_positions=64),
          dict(n_embd=24, n_head=1, n_layer=1, n_positions=40),
          dict(n_embd=64, n_head=8, n_layer=5, n_positions=48),
          dict(n_embd=12, n_head=12, n_layer=3, n_positions=64)]
TOKENS = torch.randint(0, TOKENIZER.vocab_size, (4, 30), generator=torch.Generator().manual_seed(3))
QUERY, END_ID = TOKENS[:, :5], TOKENIZER.end


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def gpt2(shape):
    """transformers' GPT-2, its weights so large that a wrong one shows."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=TOKENIZER.vocab_size, bos_token_id=TOKENIZER.end,
                                     eos_token_id=TOKENIZER.end, initializer_range=0.15, **shape)
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, x in model.named_parameters():   # GPT-2 begins with biases of 0 and norms of 1
            if x.dim() == 1:
                x.add_(0.3 * torch.randn_like(x))
    return model


def their_folder(folder, model, tokenizer=TOKENIZER, **how):
    """Write a folder as transformers does."""
    model.save_pretrained(folder, **how)
    tree = json.loads(tokenizer.bpe.to_str())["model"]
    (folder / "v.json").write_text(json.dumps(tree["vocab"]), encoding="utf-8")
    (folder / "m.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, tree["merges"]), ""]),
                                  encoding="utf-8")
    theirs = transformers.GPT2TokenizerFast(str(folder / "v.json"), str(folder / "m.txt"))
    theirs.save_pretrained(folder)
    return theirs


def logits(lm, tokens):
    return lm.logits(lm.decode(tokens))


def greedy(lm, query, length=20):
    response = generate(lm, query, length, temperature=1e-6)
    return [[token for token in row if token != PAD] for row in response.tolist()]


def their_greedy(model, query, length=20):
    rows = model.generate(query, attention_mask=torch.ones_like(query), do_sample=False, pad_token_id=END_ID,
                          max_new_tokens=length)[:, query.shape[1]:].tolist()
    return [row[:row.index(END_ID) + 1] if END_ID in row else row for row in rows]


# ---------------------------------------------------------------- in and out

@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("how", [{}, {"safe_serialization": False}, {"max_shard_size": "20KB"},
                                 {"safe_serialization": False, "max_shard_size": "20KB"}])
def test_in_logits_and_greedy_texts_are_those_of_transformers(tmp_path, shape, how):
    model = gpt2(shape)
    their_folder(tmp_path / "hf", model, **how)
    assert len(list((tmp_path / "hf").glob("*model*"))) == 1 or "max_shard_size" in how
    import_gpt2.main(import_gpt2.Config(str(tmp_path / "hf"), str(tmp_path / "run")))
    lm, _ = checkpoint.load_lm(tmp_path / "run")
    theirs = model(TOKENS).logits
    assert (logits(lm, TOKENS) - theirs).abs().max() < 1e-4 and theirs.std() > 0.3
    assert greedy(lm, QUERY) == their_greedy(model, QUERY)


@pytest.mark.parametrize("shape", [{}, dict(width=24, heads=3, layers=1), dict(width=64, heads=4, layers=6)])
def test_out_logits_and_greedy_texts_are_those_of_transformers(tmp_path, shape):
    lm = lm_of(**shape)
    exported(run_of(tmp_path / "run", lm, "pretrain"), tmp_path / "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    assert (logits(lm, TOKENS) - model(TOKENS).logits).abs().max() < 1e-4
    assert greedy(lm, QUERY) == their_greedy(model, QUERY)
    assert not model.generation_config.do_sample


def test_out_no_weight_is_missing_or_left_over(tmp_path):
    exported(run_of(tmp_path / "run", lm_of(), "pretrain"), tmp_path / "hf")
    _, told = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not any(told.values())   # missing, unexpected, mismatched


def test_out_a_policy_samples_in_transformers_as_it_does_here(tmp_path):
    exported(run_of(tmp_path / "run", policy_of(lm_of()), "ppo"), tmp_path / "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    ours = model.generation_config
    assert (ours.do_sample, ours.temperature, ours.top_k, ours.top_p) == (True, 0.8, 0, 1.0)
    torch.manual_seed(0)
    many = QUERY[:1].expand(20_000, -1)
    drawn = model.generate(many, attention_mask=torch.ones_like(many), max_new_tokens=1,
                           pad_token_id=END_ID)[:, -1].bincount(minlength=TOKENIZER.vocab_size) / len(many)
    right = (logits(lm_of(), QUERY[:1])[0, -1] / 0.8).softmax(-1)
    assert (drawn - right).abs().max() < 0.015   # four deviations of a share of a half: 0.014


# ---------------------------------------------------------------- TRL's value head

def their_values(model, tokens):
    return model(tokens)[2]


def test_in_a_model_with_trl_s_value_head_gives_its_values(tmp_path):
    trl = pytest.importorskip("trl", minversion="0.11")
    torch.manual_seed(1)
    model = trl.AutoModelForCausalLMWithValueHead.from_pretrained(gpt2(SHAPES[0])).eval()
    their_folder(tmp_path / "hf", model)
    import_gpt2.main(import_gpt2.Config(str(tmp_path / "hf"), str(tmp_path / "run")))
    policy, _ = checkpoint.load_policy(tmp_path / "run")
    assert isinstance(policy, ActorCritic)
    logprobs, values, _ = policy(QUERY, TOKENS[:, 5:])
    theirs, _, their_value = model(TOKENS)
    assert (values - their_value[:, 4:-1]).abs().max() < 1e-4 and values.std() > 0.1
    chosen = theirs.log_softmax(-1)[:, 4:-1].gather(-1, TOKENS[:, 5:, None])[..., 0]
    assert (logprobs - chosen).abs().max() < 1e-4


def test_out_a_policy_is_loaded_by_trl_with_its_value_head(tmp_path):
    trl = pytest.importorskip("trl", minversion="0.11")
    policy = policy_of(lm_of())
    exported(run_of(tmp_path / "run", policy, "ppo"), tmp_path / "hf")
    model = trl.AutoModelForCausalLMWithValueHead.from_pretrained(str(tmp_path / "hf")).eval()
    _, values, _ = policy(QUERY, TOKENS[:, 5:])
    assert (values - their_values(model, TOKENS)[:, 4:-1]).abs().max() < 1e-4 and values.std() > 0.1
    assert (logits(policy.lm, TOKENS) - model(TOKENS)[0]).abs().max() < 1e-4
    their_folder(tmp_path / "again", model)   # as TRL writes it, and back
    import_gpt2.main(import_gpt2.Config(str(tmp_path / "again"), str(tmp_path / "back")))
    assert same(checkpoint.load_policy(tmp_path / "back")[0], policy)


# ---------------------------------------------------------------- texts

@pytest.mark.parametrize("kind", ["whole", "pair"])
def test_in_the_tokenizer_encodes_as_transformers_does(tmp_path, kind):
    theirs = their_folder(tmp_path, gpt2(SHAPES[0]))
    if kind == "pair":
        (tmp_path / "tokenizer.json").unlink()
        if not (tmp_path / "vocab.json").exists():   # transformers 4 writes the two files besides, 5 does not
            (tmp_path / "v.json").rename(tmp_path / "vocab.json")
            (tmp_path / "m.txt").rename(tmp_path / "merges.txt")
    agree(import_gpt2.read(tmp_path)[1], theirs)


@pytest.mark.parametrize("fast", [True, False])
def test_out_auto_tokenizer_encodes_as_ours_does(tmp_path, fast):
    exported(run_of(tmp_path / "run", lm_of(), "pretrain"), tmp_path / "hf")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf", use_fast=fast)
    major = int(transformers.__version__.split(".")[0])
    assert theirs.is_fast is (fast or major >= 5) and theirs.model_max_length == 48
    agree(TOKENIZER, theirs)


@pytest.mark.parametrize("half", ["\ud83d", "a\udc00b"])
def test_half_a_character_is_refused_by_both(tmp_path, half):
    theirs = their_folder(tmp_path, gpt2(SHAPES[0]))
    with pytest.raises((UnicodeEncodeError, TypeError)):
        theirs(half)
    with pytest.raises(UnicodeEncodeError):
        import_gpt2.read(tmp_path)[1].encode(half)
