"""GPT-2 out: a trained decoder becomes a Hugging Face folder, and what comes back is the same model."""

import builtins
import json
from dataclasses import dataclass

import pytest
import torch

from minippo.bridges import import_gpt2
from minippo.bridges.export_gpt2 import FILES, Config, load, main
from minippo.bridges.gpt2_weights import to_gpt2, to_ours
from minippo.policy import ActorCritic
from minippo.reward import RewardModel
from minippo.run import checkpoint
from minippo.run.errors import UserError
from minippo.transformer import TransformerConfig, build
from tests.bridges.gpt2_by_hand import TOKENIZER, hidden

SHAPES = [dict(width=8, heads=2, layers=2, context=48), dict(width=24, heads=3, layers=1, context=20),
          dict(width=16, heads=16, layers=3, context=32, dropout=0.25)]


@dataclass
class Settings:
    data: str = "toy"


def lm_of(architecture="decoder", **shape):
    torch.manual_seed(0)
    lm = build(TransformerConfig(TOKENIZER.vocab_size, TOKENIZER.end, architecture, **(SHAPES[0] | shape)))
    for parameter in lm.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return lm.eval()


def policy_of(lm, critic=None):
    policy = ActorCritic(lm, critic, temperature=0.8)
    for parameter in [] if critic else policy.value_head.parameters():
        torch.nn.init.normal_(parameter)
    return policy.eval()


def run_of(folder, model, stage):
    checkpoint.save(folder, stage, model, TOKENIZER, Settings())
    return folder


def exported(run, out, **flags):
    main(Config(str(run), str(out), **flags))
    return out


def same(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(x, theirs[name]) for name, x in ours.items())


# ---------------------------------------------------------------- what goes out

@pytest.mark.parametrize("shape", SHAPES)
def test_weights_by_gpt2_s_names_compute_the_same_and_come_back_equal(shape):
    lm = lm_of(**shape)
    theirs = to_gpt2(lm.state_dict(), lm.config.layers)
    tokens = torch.arange(1, 19)[None]
    states = hidden(theirs, tokens, lm.config.heads, lm.config.layers)
    assert torch.allclose(lm.decode(tokens), states, atol=1e-5)
    back = to_ours(theirs, lm.config.layers)
    assert back.keys() == lm.state_dict().keys()
    assert all(torch.equal(x, back[name]) for name, x in lm.state_dict().items())


@pytest.mark.parametrize("shape", SHAPES)
def test_a_model_that_goes_out_comes_back_with_equal_weights(tmp_path, shape):
    pytest.importorskip("safetensors")
    lm = lm_of(**shape)
    exported(run_of(tmp_path / "run", lm, "pretrain"), tmp_path / "hf")
    import_gpt2.main(import_gpt2.Config(str(tmp_path / "hf"), str(tmp_path / "back")))
    back, tokenizer = checkpoint.load_lm(tmp_path / "back")
    assert same(back, lm) and back.config == lm.config
    assert tokenizer.bpe.to_str() == TOKENIZER.bpe.to_str()
    assert sorted(path.name for path in (tmp_path / "hf").iterdir()) == sorted(FILES)


def test_a_policy_comes_back_with_value_head_and_temperature(tmp_path):
    pytest.importorskip("safetensors")
    policy = policy_of(lm_of())
    exported(run_of(tmp_path / "run", policy, "ppo"), tmp_path / "hf")
    import_gpt2.main(import_gpt2.Config(str(tmp_path / "hf"), str(tmp_path / "back")))
    back, _ = checkpoint.load_policy(tmp_path / "back")
    assert same(back, policy) and back.temperature == 0.8


def test_the_two_files_of_the_tokenizer_say_what_the_one_says(tmp_path):
    pytest.importorskip("safetensors")
    exported(run_of(tmp_path / "run", lm_of(), "pretrain"), tmp_path / "hf")
    (tmp_path / "hf/tokenizer.json").unlink()
    _, tokenizer = import_gpt2.read(tmp_path / "hf")
    assert tokenizer.bpe.to_str() == TOKENIZER.bpe.to_str()


def test_the_tensors_written_are_those_of_gpt2_with_a_prefix_and_without_a_head(tmp_path):
    numbers = pytest.importorskip("safetensors.torch")
    policy = policy_of(lm_of())
    exported(run_of(tmp_path / "run", policy, "ppo"), tmp_path / "hf")
    found = numbers.load_file(tmp_path / "hf/model.safetensors")
    value = [found.pop(f"v_head.summary.{kind}") for kind in ("weight", "bias")]
    assert all(name.startswith("transformer.") for name in found)
    tokens = torch.randint(0, TOKENIZER.vocab_size, (2, 9))
    states = hidden({name[12:]: x for name, x in found.items()}, tokens, 2, 2)
    assert torch.allclose(policy.lm.decode(tokens), states, atol=1e-5)
    _, values, _ = policy(tokens[:, :4], tokens[:, 4:])
    assert torch.allclose(values, states[:, 3:-1] @ value[0][0] + value[1], atol=1e-4)


def test_what_is_written_beside_the_weights(tmp_path):
    pytest.importorskip("safetensors")
    exported(run_of(tmp_path / "run", policy_of(lm_of(**SHAPES[2])), "ppo"), tmp_path / "hf")
    tree = {name: json.loads((tmp_path / "hf" / name).read_text(encoding="utf-8"))
            for name in FILES if name.endswith(".json")}
    assert tree["config.json"] == {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": 294, "n_positions": 32,
        "n_embd": 16, "n_layer": 3, "n_head": 16, "resid_pdrop": 0.25, "embd_pdrop": 0.25, "attn_pdrop": 0.0,
        "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "bos_token_id": TOKENIZER.end,
        "eos_token_id": TOKENIZER.end, "torch_dtype": "float32"}
    assert tree["generation_config.json"] == {   # transformers would filter: top_k 50
        "bos_token_id": TOKENIZER.end, "eos_token_id": TOKENIZER.end, "do_sample": True, "temperature": 0.8,
        "top_k": 0, "top_p": 1.0}
    assert tree["tokenizer_config.json"]["model_max_length"] == 32
    assert not tree["tokenizer_config.json"]["clean_up_tokenization_spaces"]   # it would change texts


# ---------------------------------------------------------------- what is refused, and what is said

@pytest.mark.parametrize("make, stage, words", [
    (lambda: lm_of("seq2seq"), "pretrain", "holds a seq2seq model, and GPT-2 is a decoder"),
    (lambda: policy_of(lm_of("seq2seq")), "ppo", "holds a seq2seq model"),
    (lambda: RewardModel(lm_of()), "reward", "holds a reward model, whose head has no place in a GPT-2")])
def test_what_gpt2_is_not_is_refused_by_reason(tmp_path, make, stage, words):
    with pytest.raises(UserError, match=words):
        exported(run_of(tmp_path / "run", make(), stage), tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_a_separate_critic_stays_behind_with_a_note(tmp_path, capsys):
    policy = policy_of(lm_of(), RewardModel(lm_of(width=16)))
    model, _ = load(run_of(tmp_path / "run", policy, "ppo"))
    assert same(model, policy.lm)
    assert "has a separate critic, for which there is no place" in capsys.readouterr().err


def test_without_safetensors_nothing_is_written_and_a_line_says_why(tmp_path, monkeypatch):
    def importing(name, *rest, real=builtins.__import__):
        if name.startswith("safetensors"):
            raise ImportError(name)
        return real(name, *rest)
    run_of(tmp_path / "run", lm_of(), "pretrain")
    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(UserError, match="which is not here; pip install safetensors"):
        exported(tmp_path / "run", tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_what_out_holds_is_kept_unless_overwrite_is_given_and_a_run_even_then(tmp_path):
    pytest.importorskip("safetensors")
    run_of(tmp_path / "run", lm_of(), "pretrain"), run_of(tmp_path / "other", lm_of(width=16), "pretrain")
    exported(tmp_path / "run", tmp_path / "hf")
    with pytest.raises(UserError, match="is not empty; replace what is there by --overwrite"):
        exported(tmp_path / "other", tmp_path / "hf")
    (tmp_path / "hf/added_tokens.json").write_text('{"<x>": 300}')   # of another model that was there
    exported(tmp_path / "other", tmp_path / "hf", overwrite=True)
    assert not (tmp_path / "hf/added_tokens.json").exists()
    assert import_gpt2.read(tmp_path / "hf")[0].config.width == 16
    with pytest.raises(UserError, match="holds a run of ours, which would be lost"):
        exported(tmp_path / "run", tmp_path / "other", overwrite=True)


def test_a_folder_in_place_of_a_file_that_would_be_deleted_is_refused(tmp_path):
    run_of(tmp_path / "run", lm_of(), "pretrain")
    (tmp_path / "hf/added_tokens.json").mkdir(parents=True)
    with pytest.raises(UserError, match="added_tokens.json: a folder, where a file"):
        exported(tmp_path / "run", tmp_path / "hf", overwrite=True)
    assert [path.name for path in (tmp_path / "hf").iterdir()] == ["added_tokens.json"]   # nothing is written


@pytest.mark.parametrize("model, out, words", [
    ("run", "", "--out is empty"), ("run", "run", "is also read from"),
    ("none", "hf", "no trained model here"),
    ("run", "link", "a link, where a file of the run is to be")])
def test_a_wrong_folder_is_refused(tmp_path, monkeypatch, model, out, words):
    monkeypatch.chdir(tmp_path)
    run_of(tmp_path / "run", lm_of(), "pretrain")
    (tmp_path / "link").mkdir()
    (tmp_path / "link/model.safetensors").symlink_to(tmp_path / "run/model.pt")
    with pytest.raises(UserError, match=words):
        main(Config(model, out, overwrite=True))
