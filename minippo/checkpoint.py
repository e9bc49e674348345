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
    write_atomically(folder / "tokenizer.json", tokenizer.bpe.to_str().encode())
    write_atomically(folder / "config.json", json.dumps(about, indent=2).encode())
    save_tensors(folder / "model.pt", model.state_dict())


def load_lm(folder):
    """The language model of any stage's folder (a policy's or reward model's too), and its Tokenizer."""
    lm, tokenizer, weights, stage = _read(folder)
    if stage != "pretrain":
        weights = {name[3:]: x for name, x in weights.items() if name.startswith("lm.")}
    return _fill(lm, weights, folder), tokenizer


def load_reward(folder):
    """The RewardModel in a folder of train_reward.py, and its Tokenizer."""
    lm, tokenizer, weights, stage = _read(folder)
    if stage != "reward":
        raise UserError(f"{folder}: holds the model of {SCRIPTS[stage]}, not a reward model; run train_reward.py")
    return _fill(RewardModel(lm), weights, folder), tokenizer


def load_policy(folder):
    """The ActorCritic in a folder of finetune_ppo.py, value head or critic included, and its Tokenizer."""
    lm, tokenizer, weights, stage = _read(folder)
    if stage != "ppo":
        raise UserError(f"{folder}: holds the model of {SCRIPTS[stage]}, not a policy; run finetune_ppo.py")
    critic = RewardModel(build(lm.config)) if "critic.gain" in weights else None
    settings = json.loads((Path(folder) / "config.json").read_text())["settings"]
    return _fill(ActorCritic(lm, critic, settings["temperature"]), weights, folder), tokenizer


def _read(folder):
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no trained model here (no config.json); run the stage before, or give its --out")
    try:
        about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        stage, config = about["stage"], TransformerConfig(**about["model"])
        SCRIPTS[stage]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / 'config.json'}: damaged ({error}); run the stage again") from None
    return build(config), Tokenizer.load(folder), load_tensors(folder / "model.pt"), stage


def _fill(model, weights, folder):
    try:
        model.load_state_dict(weights)
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"{folder}: model.pt does not fit config.json ({reason}); run the stage again") from None
    return model.eval()


def load_tensors(path):
    """What `save_tensors` wrote; UserError if it is missing, damaged, or anything but tensors and plain values."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); run the stage again") from None
    except Exception as error:  # torch raises many kinds for what is no checkpoint
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not a model file, or damaged ({reason[:120]}); run the stage again") from None


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
