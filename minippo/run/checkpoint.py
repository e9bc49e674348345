"""A stage's folder: config.json, tokenizer.json, model.pt. Reading one never runs code from it."""

import hashlib
import io
import json
import os
import reprlib
import sys
import warnings
import zipfile
from dataclasses import asdict
from pathlib import Path

import torch

from minippo.policy import ActorCritic
from minippo.reward import RewardModel
from minippo.run import tokenizer_file
from minippo.run.errors import UserError
from minippo.run.files import open_regular, read_regular, write_atomically
from minippo.run.flags import defaults, settings
from minippo.run.sizes import (
    LARGEST_CONFIG,
    LARGEST_TENSORS,
    check_sizes,
    check_values,
    largest_weights,
)
from minippo.transformer import TransformerConfig, build

FILES = ("config.json", "state.pt", "model.pt", "tokenizer.json", "comparison.json", "calibration.json",
         "report.html")
SCRIPTS = {"pretrain": "pretrain.py", "reward": "train_reward.py", "ppo": "finetune_ppo.py"}


def save(folder, stage, model, tokenizer, config):
    """Write a trained model into a folder; what was kept to resume its training is deleted.

    model    LanguageModel, RewardModel or ActorCritic
    config   the script's, a dataclass: its settings are kept, a policy's temperature is its own
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lm = getattr(model, "lm", model)
    about = {"stage": stage, "model": asdict(lm.config), "settings": settings(config),
             "defaults": defaults(config)}   # of this version: what differs may be marked by any other
    if stage == "ppo":
        about["settings"]["temperature"] = model.temperature
    if getattr(model, "critic", None) is not None:   # a RewardModel, perhaps of another size
        about["critic"] = asdict(model.critic.lm.config)
    write_atomically(folder / "tokenizer.json", tokenizer.bpe.to_str().encode())
    save_tensors(folder / "model.pt", model.state_dict())
    write_atomically(folder / "config.json", json.dumps(about, indent=2).encode())
    (folder / "state.pt").unlink(missing_ok=True)


def clear(folder):
    """Delete the run that a folder holds, and nothing else. (Its metrics are cut by `Metrics`.)"""
    for name in FILES:
        (Path(folder) / name).unlink(missing_ok=True)


def check_settings(path, old, new):
    """UserError naming what differs between a run's settings and those asked for now, two dicts."""
    if not isinstance(old, dict) or old.keys() != new.keys():
        raise UserError(f"{path}: a run of another script or version; begin again with --overwrite")
    differing = [f"--{name.replace('_', '-')} was {_short(old[name])}, now {_short(new[name])}"
                 for name in new if old[name] != new[name]]
    if differing:
        raise UserError(f"{path}: a run with other settings ({'; '.join(differing)}); "
                        "give the same to go on, or begin again with --overwrite")


def _short(value):
    """A setting as it is shown: a file may hold anything in its place, and any amount of it."""
    return (value[:200] or "nothing") if isinstance(value, str) else reprlib.repr(value)


def load_lm(folder):
    """The language model in a folder of any stage, and its Tokenizer."""
    return _load(folder, lambda about: _lm(about["model"]))


def load_reward(folder):
    """The RewardModel in a folder of train_reward.py, and its Tokenizer."""
    return _load(folder, lambda about: RewardModel(_lm(about["model"])), "reward")


def load_both(model, reward):
    """The language model in one folder, the RewardModel in another, and the Tokenizer of both."""
    lm, tokenizer = load_lm(model)
    reward_model, its_tokenizer = load_reward(reward)
    trained_from = read_config(reward)["settings"].get("model")
    if isinstance(trained_from, str) and Path(trained_from).name != Path(model).name:
        print(f"note: {reward} was trained from {trained_from}, not from {model}: its scores need not have "
              "mean 0 and deviation 1 there", file=sys.stderr)
    again = "run train_reward.py --model on the same folder"
    if its_tokenizer.bpe.to_str() != tokenizer.bpe.to_str():
        raise UserError(f"{reward} was trained with another tokenizer than {model}; {again}")
    if reward_model.lm.config.context < lm.config.context:
        raise UserError(f"{reward} has a smaller context than {model}; {again}")
    return lm, reward_model, tokenizer


def load_policy(folder):
    """The ActorCritic in a folder of finetune_ppo.py, critic included, and its Tokenizer."""
    def make(about):
        critic = RewardModel(_lm(about["critic"])) if "critic" in about else None
        return ActorCritic(_lm(about["model"]), critic, about["settings"]["temperature"])
    return _load(folder, make, "ppo")


def read_config(folder):
    """What a stage's config.json says, a dict; UserError if it is missing or damaged."""
    folder = Path(folder)
    path = folder / "config.json"
    if os.path.isfile(folder / "state.pt") and not os.path.isfile(path):
        raise UserError(f"{folder}: a run that was stopped; go on with it, by --resume, first")
    if not os.path.isfile(path):   # Path.is_file raises for a name that is too long
        raise UserError(f"{folder}: no trained model here (no config.json); run the script that makes it "
                        f"({' or '.join(SCRIPTS.values())}), or name its folder")
    try:
        about = json.loads(read_regular(path, LARGEST_CONFIG).decode("utf-8"))
        if "model_type" in about and "stage" not in about:
            raise UserError(f"{folder}: a folder of Hugging Face; import-gpt2 makes one of ours of a GPT-2, "
                            "and a classifier is used by --score")
        kinds = type(about["stage"]), type(about["model"]), type(about["settings"])
        if kinds != (str, dict, dict) or about["stage"] not in SCRIPTS:
            raise ValueError("not what a stage writes")
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(folder, error) from None
    return about


def _damaged(folder, error):
    return UserError(f"{Path(folder) / 'config.json'}: damaged ({error}); run the stage again")


def _lm(config):
    check_sizes(config)
    return build(TransformerConfig(**config))


def _load(folder, make, wanted=None):
    """make(what config.json says) with its weights, and its Tokenizer. wanted: its stage."""
    folder, about = Path(folder), read_config(folder)
    script, needed = SCRIPTS[about["stage"]], SCRIPTS[wanted or about["stage"]]
    if script != needed:
        raise UserError(f"{folder}: holds the model of {script}; needed is one of {needed}")
    try:
        with torch.device("meta"):   # shapes alone: a damaged file may ask for any size
            shapes = make(about).state_dict()
        limit = _largest(about)
    except (ValueError, KeyError, TypeError, ArithmeticError, RuntimeError) as error:
        raise _damaged(folder, error) from None
    tokenizer, weights = load_tokenizer(folder), load_tensors(folder / "model.pt", limit)
    if any(getattr(tokenizer, key) != about["model"][key] for key in ("vocab_size", "end")):
        raise UserError(f"{folder / 'tokenizer.json'}: not the tokenizer of this model; "
                        "run the stage again")
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights):
        raise _misfit(folder, "no weights by name")
    if wanted is None and about["stage"] != "pretrain":
        weights = {name[3:]: x for name, x in weights.items() if name.startswith("lm.")}
    _check_weights(folder, weights, shapes)
    model = make(about)
    model.load_state_dict(weights)
    return model.eval(), tokenizer


def _largest(about):
    """Bytes that model.pt may have, by its config.json."""
    models = [about[name] for name in ("model", "critic") if name in about]
    for model in models:
        check_sizes(model)
    return sum(map(largest_weights, models))


def _check_weights(folder, weights, shapes):
    """UserError unless the weights are of these shapes, two dicts: no other names, all finite."""
    for name in sorted(weights.keys() ^ shapes.keys()):
        raise _misfit(folder, f"{name} is {'missing' if name in shapes else 'not part of it'}")
    for name, x in weights.items():
        found, right = _kind(x), _kind(shapes[name])
        if found != right or x.untyped_storage().nbytes() < x.nbytes:   # a view repeats its numbers
            raise _misfit(folder, f"{name} is {found}, not {right}")
        if not x.isfinite().all():
            raise UserError(f"{folder / 'model.pt'}: {name} is not finite; run the stage again "
                            "with a lower --lr")
        if x.dtype == torch.int64 and not 0 <= x.min() <= x.max() < len(x):
            raise _misfit(folder, f"{name} has numbers of no token")


def _kind(x):
    if not isinstance(x, torch.Tensor) or x.layout != torch.strided:
        return "no tensor of numbers"
    return f"{x.dtype} {tuple(x.shape)}".removeprefix("torch.")


def _misfit(folder, reason):
    return UserError(f"{folder}: model.pt does not fit config.json ({reason}); run the stage again")


def load_tokenizer(folder):
    """The Tokenizer in a folder of any stage; UserError if it is missing or is none of this kind."""
    path = Path(folder) / "tokenizer.json"
    try:
        return tokenizer_file.load(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); "
                        "give a folder that a stage wrote") from None
    except ValueError as error:
        raise UserError(f"{path}: not a tokenizer ({error}); "
                        "write it again with pretrain.py") from None


def model_hashes(folder):
    """SHA-256 of a folder's weights, and of its tokenizer; "" for a file that is missing."""
    return [file_hash(Path(folder) / name) for name in ("model.pt", "tokenizer.json")]


def file_hash(path):
    """SHA-256 of a file, "" if it is missing."""
    sha = hashlib.sha256()
    try:
        with open_regular(path, LARGEST_TENSORS) as file:
            while part := file.read(2**20):
                sha.update(part)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return sha.hexdigest()


def load_tensors(path, limit=LARGEST_TENSORS):
    """What `save_tensors` wrote; UserError if missing, damaged, or more than tensors and values.

    limit    bytes that the file may have
    """
    try:
        with open_regular(path, limit) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")   # of a damaged file; it gets one line, ours
            check_archive(file)
            file.seek(0)
            tensors = torch.load(file, map_location="cpu", weights_only=True)
        check_values(tensors)
        return tensors
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); run the stage again") from None
    except Exception as error:  # torch raises many kinds for what is no checkpoint
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not a model file, or damaged ({reason[:120]}); "
                        "run the stage again") from None


def check_archive(file):
    """ValueError or BadZipFile unless what torch.save wrote, an open file, is whole: torch checks no sums."""
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
        size = sum(part.file_size for part in parts)
        if any(part.compress_type for part in parts) or size > os.fstat(file.fileno()).st_size:
            raise ValueError("it says that it holds more than it does")
        if archive.testzip():
            raise ValueError("a wrong checksum")


def save_tensors(path, tensors):
    """torch.save, atomically."""
    content = io.BytesIO()
    torch.save(tensors, content)
    write_atomically(path, content.getbuffer())
