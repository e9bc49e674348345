"""A stage's folder: config.json, tokenizer.json, model.pt. Reading one never runs code from it."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import torch

from minippo.errors import UserError
from minippo.policy import ActorCritic
from minippo.reward import RewardModel
from minippo.tokenizer import Tokenizer
from minippo.transformer import TransformerConfig, build

SCRIPTS = {"pretrain": "pretrain.py", "reward": "train_reward.py", "ppo": "finetune_ppo.py"}


def save(folder, stage, model, tokenizer, settings):
    """Write a finished stage.

    model      LanguageModel, RewardModel or ActorCritic
    settings   the script's config, a dataclass: kept for the reader
    """
    folder = Path(folder)
    lm = getattr(model, "lm", model)
    about = {"stage": stage, "model": asdict(lm.config), "settings": asdict(settings)}
    if getattr(model, "critic", None) is not None:   # a RewardModel, perhaps of another size
        about["critic"] = asdict(model.critic.lm.config)
    write_atomically(folder / "tokenizer.json", tokenizer.bpe.to_str().encode())
    save_tensors(folder / "model.pt", model.state_dict())
    write_atomically(folder / "config.json", json.dumps(about, indent=2).encode())


def load_lm(folder):
    """The language model in a folder of any stage, and its Tokenizer."""
    return _load(folder, lambda about: _lm(about["model"]))


def load_reward(folder):
    """The RewardModel in a folder of train_reward.py, and its Tokenizer."""
    return _load(folder, lambda about: RewardModel(_lm(about["model"])), "reward")


def load_policy(folder):
    """The ActorCritic in a folder of finetune_ppo.py, critic included, and its Tokenizer."""
    def make(about):
        critic = RewardModel(_lm(about["critic"])) if "critic" in about else None
        return ActorCritic(_lm(about["model"]), critic, about["settings"]["temperature"])
    return _load(folder, make, "ppo")


def read_config(folder):
    """What a stage's config.json says, a dict; UserError if it is missing or damaged."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise UserError(f"{folder}: no trained model here (no config.json); "
                        "run the stage before, or give its --out")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        SCRIPTS[about["stage"]], dict(about["model"]), dict(about["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, error) from None
    return about


def _damaged(folder, error):
    return UserError(f"{Path(folder) / 'config.json'}: damaged ({error}); run the stage again")


def _lm(config):
    return build(TransformerConfig(**config))


def _load(folder, make, wanted=None):
    """make(what config.json says) with its weights, and its Tokenizer. wanted: its stage."""
    folder, about = Path(folder), read_config(folder)
    script, needed = SCRIPTS[about["stage"]], SCRIPTS[wanted or about["stage"]]
    if script != needed:
        raise UserError(f"{folder}: holds the model of {script}; needed is one of {needed}")
    try:
        model = make(about)
    except (ValueError, KeyError, TypeError, ArithmeticError, RuntimeError) as error:
        raise _damaged(folder, error) from None
    tokenizer, weights = Tokenizer.load(folder), load_tensors(folder / "model.pt")
    if any(getattr(tokenizer, key) != about["model"][key] for key in ("vocab_size", "end")):
        raise UserError(f"{folder / 'tokenizer.json'}: not the tokenizer of this model; "
                        "run the stage again")
    if not isinstance(weights, dict):
        raise _misfit(folder, "no weights by name")
    if wanted is None and about["stage"] != "pretrain":
        weights = {name[3:]: x for name, x in weights.items() if name.startswith("lm.")}
    try:
        model.load_state_dict(weights)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise _misfit(folder, str(error).splitlines()[-1].strip()) from None
    return model.eval(), tokenizer


def _misfit(folder, reason):
    return UserError(f"{folder}: model.pt does not fit config.json ({reason}); run the stage again")


def load_tensors(path):
    """What `save_tensors` wrote; UserError if missing, damaged, or more than tensors and values."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); run the stage again") from None
    except Exception as error:  # torch raises many kinds for what is no checkpoint
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not a model file, or damaged ({reason[:120]}); "
                        "run the stage again") from None


def save_tensors(path, tensors):
    """torch.save, atomically."""
    temporary = _temporary(path)
    torch.save(tensors, temporary)
    _put_in_place(temporary, path)


def write_atomically(path, content):
    """Bytes to a file that is, at every moment, either the old one or the new one, whole."""
    temporary = _temporary(path)
    temporary.write_bytes(content)
    _put_in_place(temporary, path)


def _temporary(path):
    return Path(f"{path}.part")


def _put_in_place(temporary, path):
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
