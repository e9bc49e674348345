"""Write a trained decoder as a folder that Hugging Face's transformers (and TRL) load as GPT-2."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from minippo.bridges import gpt2_config, gpt2_tokenizer
from minippo.bridges.gpt2_weights import VALUE_HEAD, to_gpt2
from minippo.bridges.out import check_out
from minippo.policy import ActorCritic
from minippo.run import checkpoint
from minippo.run.errors import UserError
from minippo.run.files import unwritable, write_atomically
from minippo.run.flags import option
from minippo.run.folder import FINISHED, UNFINISHED, held_by

FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
         "tokenizer_config.json", "vocab.json", "merges.txt")
OTHERS = ("added_tokens.json", "special_tokens_map.json")   # of a model that was there; ours has none


@dataclass
class Config:
    model: str = option("runs/ppo", "folder of a model of stage 1 or 3, a decoder")
    out: str = option("", "folder to write to")
    overwrite: bool = option(False, "replace what --out holds")


def main(config):
    """Weights, config, tokenizer; of a policy its value head and its temperature, too."""
    check_out(config, FILES + OTHERS)
    out = Path(config.out)
    if held_by(out) in (FINISHED, UNFINISHED):
        raise UserError(f"--out {out} holds a run of ours, which would be lost; name another folder")
    content_of = files(*load(config.model))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(out, error) from None
    for name, content in content_of.items():
        write_atomically(out / name, content)
    for name in OTHERS:
        (out / name).unlink(missing_ok=True)
    print(f"written: {out}")


def load(folder):
    """(Decoder or ActorCritic, Tokenizer) of a folder of stage 1 or 3; UserError for what is no GPT-2."""
    about = checkpoint.read_config(folder)
    if about["stage"] == "reward":
        raise UserError(f"{folder}: holds a reward model, whose head has no place in a GPT-2 that writes; "
                        "name a model of stage 1 or 3")
    if about["model"].get("architecture") == "seq2seq":
        raise UserError(f"{folder}: holds a seq2seq model, and GPT-2 is a decoder; name one that was made "
                        "with --architecture decoder")
    model, tokenizer = (checkpoint.load_policy if about["stage"] == "ppo" else checkpoint.load_lm)(folder)
    if getattr(model, "critic", None) is not None:
        print(f"note: {folder} has a separate critic, for which there is no place; the policy is written "
              "without it", file=sys.stderr)
        return model.lm, tokenizer
    return model, tokenizer


def files(model, tokenizer):
    """All files of the folder, {name: bytes}. Logits are ours: a policy's temperature stands in
    generation_config.json, by which `generate` samples as the policy did."""
    try:
        import safetensors.torch
    except ImportError:
        raise UserError("model.safetensors is written by the package safetensors, which is not here; "
                        "pip install safetensors") from None
    lm = getattr(model, "lm", model)
    tensors = {f"transformer.{name}": x for name, x in to_gpt2(lm.state_dict(), lm.config.layers).items()}
    sampling = {"bos_token_id": lm.end, "eos_token_id": lm.end}
    if isinstance(model, ActorCritic):
        tensors |= {VALUE_HEAD + name: x for name, x in model.value_head.state_dict().items()}
        sampling |= {"do_sample": True, "temperature": model.temperature, "top_k": 0, "top_p": 1.0}
    texts = {"config.json": gpt2_config.written(lm.config), "generation_config.json": sampling}
    return {name: json.dumps(x, indent=2).encode() for name, x in texts.items()} | gpt2_tokenizer.written(
        tokenizer, lm.config.context) | {"model.safetensors": safetensors.torch.save(
            {name: x.contiguous() for name, x in tensors.items()}, metadata={"format": "pt"})}
