"""GPT-2 without transformers: a Hugging Face folder written by hand, and what its weights compute."""

import json
import math

import torch
import torch.nn.functional as F

from minippo.tokenizer import END, Tokenizer

TEXTS = ["the film is a wonderful film", "the plot is dull, the actors are good"]
TOKENIZER = Tokenizer.train(TEXTS * 3, 300)
SHAPE = {"vocab_size": TOKENIZER.vocab_size, "n_positions": 48, "n_embd": 8, "n_layer": 2, "n_head": 2}
CONFIG = SHAPE | {"model_type": "gpt2", "activation_function": "gelu_new", "resid_pdrop": 0.1,
                  "bos_token_id": TOKENIZER.end, "eos_token_id": TOKENIZER.end}
HEAD = {"v_head.summary.weight": (1, 8), "v_head.summary.bias": (1,)}


def shapes(shape):
    """{name: shape} of GPT-2's weights, as its source has them: Conv1D keeps (in, out)."""
    width = shape["n_embd"]
    found = {"wte.weight": (shape["vocab_size"], width), "wpe.weight": (shape["n_positions"], width),
             "ln_f.weight": (width,), "ln_f.bias": (width,)}
    layer = {"ln_1": width, "ln_2": width, "attn.c_attn": (width, 3 * width), "attn.c_proj": (width, width),
             "mlp.c_fc": (width, 4 * width), "mlp.c_proj": (4 * width, width)}
    for i in range(shape["n_layer"]):
        for name, size in layer.items():
            matrix = isinstance(size, tuple)
            found[f"h.{i}.{name}.weight"] = size if matrix else (size,)
            found[f"h.{i}.{name}.bias"] = size[1:] if matrix else (size,)
    return found


def weights(shape=SHAPE, extra=(), seed=0):
    """Random weights by GPT-2's names, so large that a wrong one shows; extra: {name: shape} of others."""
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.4 * torch.randn(size, generator=generator)
            for name, size in (shapes(shape) | dict(extra)).items()}


def folder_of(folder, found=None, config=CONFIG, tokenizer="pair"):
    """Write a folder with pytorch_model.bin; tokenizer: "pair" of vocab.json and merges.txt, or "whole"."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(weights() if found is None else found, folder / "pytorch_model.bin")
    write(folder / "config.json", config)
    tree = json.loads(TOKENIZER.bpe.to_str())
    if tokenizer == "whole":
        write(folder / "tokenizer.json", as_huggingface_writes(tree))
    else:
        write(folder / "vocab.json", tree["model"]["vocab"])
        lines = ["#version: 0.2", *map(" ".join, tree["model"]["merges"]), ""]
        (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


def sharded(folder, w, places=None):
    """The weights in two files and an index in place of one file."""
    (folder_of(folder) / "pytorch_model.bin").unlink()
    files = {name: f"pytorch_model-0000{1 + ('h.1' in name)}-of-00002.bin" for name in w}
    for file in set(files.values()):
        torch.save({name: w[name] for name in w if files[name] == file}, folder / file)
    write(folder / "pytorch_model.bin.index.json", {"weight_map": files if places is None else places})
    return folder


def as_huggingface_writes(tree):
    """The same tokenizer with the parts that stand in GPT-2's own tokenizer.json."""
    parts = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False}
    end = {"id": TOKENIZER.end, "content": END, "single_word": False, "lstrip": False, "rstrip": False,
           "normalized": True, "special": True}
    model = {key: tree["model"][key] for key in ("vocab", "merges")} | {
        "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": ""}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [end], "normalizer": None,
            "pre_tokenizer": parts | {"add_prefix_space": False}, "post_processor": parts, "decoder": parts,
            "model": model | {"merges": [" ".join(pair) for pair in model["merges"]]}}


def write(path, tree):
    path.write_text(json.dumps(tree), encoding="utf-8")


def hidden(w, tokens, heads, layers):
    """GPT-2's last hidden states (B, T, D) for tokens (B, T) without pads (Radford et al. 2019)."""
    length, width = tokens.shape[1], w["wte.weight"].shape[1]
    x = w["wte.weight"][tokens] + w["wpe.weight"][:length]
    seen = torch.ones(length, length, dtype=torch.bool).tril()

    def norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def conv(x, name):
        return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

    for i in range(layers):
        parts = conv(norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn").split(width, -1)
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in parts)
        scores = (q @ k.mT / math.sqrt(width // heads)).masked_fill(~seen, -torch.inf)
        x = x + conv((F.softmax(scores, -1) @ v).transpose(1, 2).flatten(2), f"h.{i}.attn.c_proj")
        inner = conv(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc")
        gelu = 0.5 * inner * (1 + torch.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner ** 3)))
        x = x + conv(gelu, f"h.{i}.mlp.c_proj")
    return norm(x, "ln_f")
