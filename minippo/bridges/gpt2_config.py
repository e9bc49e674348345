"""GPT-2's config.json: what ours computes, and by which words everything else is refused."""

from pathlib import Path

from minippo.bridges.hugging_face import read_json
from minippo.run.errors import UserError
from minippo.run.sizes import check_sizes
from minippo.transformer import TransformerConfig

SIZES = {   # ours: theirs, and what GPT2Config takes for one that is not there
    "vocab_size": ("vocab_size", 50257), "context": ("n_positions", 1024), "width": ("n_embd", 768),
    "layers": ("n_layer", 12), "heads": ("n_head", 12), "dropout": ("resid_pdrop", 0.1)}
COMPUTED = {   # the values for which GPT-2 computes what a Decoder computes; the first if there is none
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"), "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,), "is_encoder_decoder": (False,), "tie_word_embeddings": (True,),
    "pruned_heads": ({},), "quantization_config": (None,)}


def read(folder):
    """(TransformerConfig with end 0, what stands in config.json) of a Hugging Face folder.

    Raises   UserError for another family, for an option that a Decoder has not, and for sizes that are none
    """
    path = Path(folder) / "config.json"
    found = read_json(path)
    if "stage" in found:
        raise UserError(f"{folder}: a run of ours, which needs no import")
    if (family := found.get("model_type")) != "gpt2":
        raise UserError(f"{path}: model_type {family!r:.60} is not 'gpt2'; only GPT-2 can be imported"
                        + ("; if it is one, add that key" if family is None else ""))
    sizes = {name: found.get(key, usual) for name, (key, usual) in SIZES.items()}
    width = sizes["width"]
    computed = COMPUTED | {"n_inner": (None, 4 * width if type(width) is int else None)}
    for key, values in computed.items():
        if (value := found.get(key, values[0])) not in values:
            ours = " or ".join(repr(x) for x in values)
            raise UserError(f"{path}: {key} is {value!r:.60}, and our decoder has {ours} only; "
                            "this model cannot be imported")
    try:
        check_sizes(sizes | {"architecture": "decoder"})
        return TransformerConfig(end=0, **sizes), found
    except (UserError, TypeError) as error:
        reason = str(error).replace("--", "")   # they are no flags here
        raise UserError(f"{path}: no sizes of a model that we can build ({reason})") from None


def written(config):
    """A TransformerConfig as the JSON that transformers reads, a dict; without dropout in the attention."""
    return {key: getattr(config, name) for name, (key, _) in SIZES.items()} | {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5, "embd_pdrop": config.dropout, "attn_pdrop": 0.0,
        "bos_token_id": config.end, "eos_token_id": config.end, "torch_dtype": "float32"}
