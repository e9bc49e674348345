"""How large a model a flag or a file may ask for: building a larger one would never end."""

from minippo.run.errors import UserError

SIZES = {"vocab_size": (1, 2**20), "width": (1, 2**16), "heads": (1, 2**16), "layers": (0, 1000),
         "context": (1, 2**20)}
MOST_WEIGHTS = 2 * 10**9


def check_sizes(model):
    """UserError naming the flag, unless a model of these sizes (TransformerConfig's, a dict) can be built."""
    for name, (least, most) in SIZES.items():
        if type(model[name]) is not int or not least <= model[name] <= most:
            raise UserError(f"--{name.replace('_', '-')} {model[name]!r:.40}: a whole number "
                            f"from {least} to {most} is needed")
    per_layer = 28 if model["architecture"] == "seq2seq" else 12   # width x width matrices
    rows = per_layer * model["layers"] * model["width"] + model["vocab_size"] + model["context"]
    if rows * model["width"] > MOST_WEIGHTS:
        raise UserError(f"--width {model['width']}, --layers {model['layers']} and --context "
                        f"{model['context']} make a model of more than {MOST_WEIGHTS:,} weights; "
                        "lower one of them")
    if not 0 <= model["dropout"] <= 1:
        raise UserError(f"--dropout {model['dropout']!r:.40}: a number from 0 to 1 is needed")
    if model["width"] % model["heads"]:
        raise UserError(f"--width {model['width']} is not a multiple of --heads {model['heads']}")
