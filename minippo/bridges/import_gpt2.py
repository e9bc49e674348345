"""Make a folder of stage 1 out of a GPT-2 that Hugging Face's transformers wrote."""

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from minippo.bridges import gpt2_config, gpt2_tokenizer
from minippo.bridges.gpt2_weights import VALUE_HEAD, to_gpt2, to_ours
from minippo.bridges.hugging_face import read_json, read_tensors
from minippo.bridges.out import check_out
from minippo.policy import ActorCritic
from minippo.run import checkpoint, events
from minippo.run.errors import UserError
from minippo.run.flags import option
from minippo.run.folder import claim
from minippo.transformer import build

BUFFERS = (".attn.bias", ".attn.masked_bias")   # GPT-2's causal mask, kept with its weights by old versions


@dataclass
class Config:
    model: str = option("gpt2", "folder with config.json, model.safetensors (or pytorch_model.bin), "
                                "tokenizer.json (or vocab.json and merges.txt)")
    out: str = option("runs/gpt2", "folder to write the model to")
    overwrite: bool = option(False, "replace what --out holds")


@dataclass
class Origin:
    """What the settings of an imported model say of it."""
    imported: str = ""


def main(config):
    """Read, check, write: a language model, or a policy if its value head is there, too."""
    out = Path(config.out)
    check_out(config, checkpoint.FILES)
    model, tokenizer = read(Path(config.model))
    stage = "ppo" if isinstance(model, ActorCritic) else "pretrain"
    with claim(out) as record:
        record.truncate(0)   # of a run that was here, as are the next two
        checkpoint.clear(out)
        events.clear(out)
        checkpoint.save(out, stage, model, tokenizer, Origin(config.model))
    weights = sum(x.numel() for x in model.parameters())
    print(f"written: {out} ({weights:,} weights{', value head included' if stage == 'ppo' else ''})")


def read(folder):
    """(Decoder, or ActorCritic if there is a value head; Tokenizer) of a Hugging Face folder, a Path.

    Raises   UserError naming the file, and what of it ours has not
    """
    if not os.path.isdir(folder):
        why = "is a file" if os.path.isfile(folder) else "no such folder; download the model before"
        raise UserError(f"--model {folder}: {why}; name the folder of the model")
    sizes, about = gpt2_config.read(folder)
    tokenizer = gpt2_tokenizer.read(folder)
    sizes = fitting(folder, sizes, about, tokenizer)
    weights = checked(folder, read_tensors(folder), sizes)
    head = {name.removeprefix(VALUE_HEAD): weights.pop(name) for name in list(weights)
            if name.startswith(VALUE_HEAD)}
    weights["wte.weight"] = weights["wte.weight"][:tokenizer.vocab_size]
    lm = build(replace(sizes, vocab_size=tokenizer.vocab_size))
    lm.load_state_dict(to_ours(weights, sizes.layers))
    if not head:
        return lm.eval(), tokenizer
    policy = ActorCritic(lm, temperature=temperature_of(folder))
    policy.value_head.load_state_dict(head)
    return policy.eval(), tokenizer


def fitting(folder, sizes, about, tokenizer):
    """The sizes with the tokenizer's end token; UserError unless the tokenizer is this model's."""
    count, path = tokenizer.vocab_size, folder / "config.json"
    if count > sizes.vocab_size:
        raise UserError(f"{path}: vocab_size is {sizes.vocab_size}, and the tokenizer has {count} tokens; "
                        "it is another model's")
    if about.get("eos_token_id") not in (None, tokenizer.end, [tokenizer.end]):
        raise UserError(f"{path}: eos_token_id is {about['eos_token_id']!r:.40}, and our end token, "
                        f"<|endoftext|>, is {tokenizer.end}; this model cannot be imported")
    if count < sizes.vocab_size:
        print(f"note: the last {sizes.vocab_size - count:,} of {sizes.vocab_size:,} embeddings belong to no "
              "token; they are left out", file=sys.stderr)
    return replace(sizes, end=tokenizer.end)


def checked(folder, found, sizes):
    """Tensors by GPT-2's names without a prefix, float32; UserError unless they are those of these sizes."""
    named = {name: name.removeprefix("transformer.") for name in found if not name.endswith(BUFFERS)}
    if len(set(named.values())) < len(named):
        raise misfit(folder, "a tensor is there twice, with transformer. and without")
    found = {short: found[name] for name, short in named.items()}
    shapes = shapes_of(sizes, any(name.startswith(VALUE_HEAD) for name in found))
    if "lm_head.weight" in found:
        shapes["lm_head.weight"] = shapes["wte.weight"]
    for name in sorted(found.keys() ^ shapes.keys()):
        raise misfit(folder, f"{name} is {'missing' if name in shapes else 'no part of it'}")
    for name, x in found.items():
        if x.shape != shapes[name] or x.layout != torch.strided or x.is_meta or not x.is_floating_point():
            raise misfit(folder, f"{name} is {x.dtype} {tuple(x.shape)}, not floats {tuple(shapes[name])}")
        found[name] = x = x.float()
        if not x.isfinite().all():
            raise misfit(folder, f"{name} is not finite")
    if not torch.equal(found.pop("lm_head.weight", found["wte.weight"]), found["wte.weight"]):
        raise misfit(folder, "lm_head.weight differs from wte.weight, and our head is the embedding")
    return found


def shapes_of(sizes, value_head):
    """The shapes of GPT-2's weights of these sizes by its names, a dict; with TRL's value head or without."""
    with torch.device("meta"):
        lm = build(sizes)
        tensors = to_gpt2(lm.state_dict(), sizes.layers)
        if value_head:
            head = ActorCritic(lm).value_head.state_dict()
            tensors |= {VALUE_HEAD + name: x for name, x in head.items()}
    return {name: x.shape for name, x in tensors.items()}


def temperature_of(folder):
    """At which a policy samples, by generation_config.json; 1 if that does not say."""
    path = folder / "generation_config.json"
    found = read_json(path).get("temperature") if os.path.isfile(path) else None
    if found is None:
        return 1.0
    if type(found) not in (int, float) or not 0.01 <= found <= 1e9:
        raise UserError(f"{path}: temperature {found!r:.40} is none that a policy can have; correct "
                        "it there")
    return found


def misfit(folder, reason):
    return UserError(f"{folder}: no weights of GPT-2's language model of these sizes ({reason}); "
                     "name the folder of another one (a classifier cannot be imported), or download it "
                     "again")
