"""The weights of a Decoder by GPT-2's names, and back. Its Conv1D keeps (in, out), a Linear (out, in)."""

import torch

LAYER = {"norm_attention": "ln_1", "attention.out": "attn.c_proj", "norm_mlp": "ln_2",
         "expand": "mlp.c_fc", "contract": "mlp.c_proj"}
VALUE_HEAD = "v_head.summary."   # as TRL's AutoModelForCausalLMWithValueHead keeps it


def to_gpt2(ours, layers):
    """A Decoder's state_dict by the names of transformers' GPT2Model; the head is tied: wte.weight."""
    theirs = {"wte.weight": ours["embedding.weight"], "wpe.weight": ours["positions.weight"]}
    for kind in ("weight", "bias"):
        for i in range(layers):
            for name, their_name in LAYER.items():
                theirs[f"h.{i}.{their_name}.{kind}"] = turned(ours[f"blocks.{i}.{name}.{kind}"])
            parts = [turned(ours[f"blocks.{i}.attention.{name}.{kind}"]) for name in ("query", "key_value")]
            theirs[f"h.{i}.attn.c_attn.{kind}"] = torch.cat(parts, dim=-1)
        theirs[f"ln_f.{kind}"] = ours[f"norm.{kind}"]
    return theirs


def to_ours(theirs, layers):
    """The state_dict of a GPT2Model by our names."""
    ours = {"embedding.weight": theirs["wte.weight"], "positions.weight": theirs["wpe.weight"]}
    for kind in ("weight", "bias"):
        for i in range(layers):
            for name, their_name in LAYER.items():
                ours[f"blocks.{i}.{name}.{kind}"] = turned(theirs[f"h.{i}.{their_name}.{kind}"])
            both = turned(theirs[f"h.{i}.attn.c_attn.{kind}"])   # queries, keys, values: (3 D, ...)
            query, key_value = both.split([len(both) // 3, len(both) * 2 // 3])
            ours[f"blocks.{i}.attention.query.{kind}"] = query
            ours[f"blocks.{i}.attention.key_value.{kind}"] = key_value
        ours[f"norm.{kind}"] = theirs[f"ln_f.{kind}"]
    return ours


def turned(x):
    """A matrix transposed; a bias or a norm as it is."""
    return x.mT if x.dim() == 2 else x
