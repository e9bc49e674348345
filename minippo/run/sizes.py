"""How large a model may be that a flag or a file asks for, and a file; and which sizes fit each other."""

from minippo.run.errors import UserError

SIZES = {"vocab_size": (1, 2**20), "width": (1, 2**16), "heads": (1, 2**16), "layers": (0, 1000),
         "context": (1, 2**20)}
MOST_WEIGHTS = 2 * 10**9
LARGEST_CONFIG = 2**20       # bytes of config.json: some dozens of flags
LARGEST_TOKENIZER = 2**27    # of tokenizer.json: 2**20 tokens, each with its merge, in 128 bytes
LARGEST_RECORD = 2**30       # of metrics.jsonl: 500,000 iterations of 2,000 bytes
LARGEST_TENSORS = 24 * MOST_WEIGHTS   # of any state.pt: actor and critic, each with AdamW's two averages
AROUND_A_TENSOR = 1024       # its header in the zip, and its line in the pickle
MOST_VALUES, DEEPEST = 10**6, 20      # in a file of tensors: 60,000 of them and all that belongs to them


def check_sizes(model):
    """UserError naming the flag, unless a model of these sizes (TransformerConfig's, a dict) can be built."""
    for name, (least, most) in SIZES.items():
        if type(model[name]) is not int or not least <= model[name] <= most:
            raise UserError(f"--{name.replace('_', '-')} {model[name]!r:.40}: a whole number "
                            f"from {least} to {most} is needed")
    rows = _matrices(model) * model["width"] + model["vocab_size"] + model["context"]
    if rows * model["width"] > MOST_WEIGHTS:
        raise UserError(f"--width {model['width']}, --layers {model['layers']} and --context "
                        f"{model['context']} make a model of more than {MOST_WEIGHTS:,} weights; "
                        "lower one of them")
    if not 0 <= model["dropout"] <= 1:
        raise UserError(f"--dropout {model['dropout']!r:.40}: a number from 0 to 1 is needed")
    if model["width"] % model["heads"]:
        raise UserError(f"--width {model['width']} is not a multiple of --heads {model['heads']}")


def check_prompts(config):
    """UserError unless the shortest prompt of a config is no longer than the longest."""
    if config.shortest_prompt > config.longest_prompt:
        raise UserError(f"--shortest-prompt {config.shortest_prompt} is longer than --longest-prompt "
                        f"{config.longest_prompt}; swap them")


def check_rollout(config):
    """UserError unless stage 3's prompts, minibatches and horizon fit what else its config says."""
    check_prompts(config)
    if config.minibatch_size > config.rollout_size:
        raise UserError(f"--minibatch-size {config.minibatch_size} is larger than --rollout-size "
                        f"{config.rollout_size}; lower it")
    if config.kl_target and config.kl_horizon < config.rollout_size:
        raise UserError(f"--kl-horizon {config.kl_horizon:g} is less than a rollout of "
                        f"{config.rollout_size}; raise it, or give --kl-target 0")


def _matrices(model):
    """How many matrices of width x width it has."""
    return (28 if model["architecture"] == "seq2seq" else 12) * model["layers"]


def largest_weights(model):
    """Bytes that the weights of a model of these sizes have in a file, at most, its heads included."""
    vectors = 32 * (model["layers"] + 2)   # norms and biases of a layer, 32 in a seq2seq; heads
    rows = _matrices(model) * model["width"] + 2 * model["vocab_size"] + 2 * model["context"] + vectors
    words = 67 * model["vocab_size"]   # of a reward model: a weight, 64 of pairs, 8 bytes of `spaced`
    return 4 * (rows * model["width"] + words) + AROUND_A_TENSOR * vectors


def check_values(tree):
    """ValueError if lists and dicts hold more values, or nest deeper, than those of any run.

    One that is there twice counts twice: so does all that goes through it. [x, x], whose x is
    [y, y] and so on, is a short file that no comparison and no print comes to the end of.
    """
    pending, count = [(tree, 0)], 0
    while pending:
        x, depth = pending.pop()
        inner = x.values() if isinstance(x, dict) else x if isinstance(x, (list, tuple, set)) else ()
        count += len(inner)
        if count > MOST_VALUES or depth > DEEPEST:
            raise ValueError("more values, or nested deeper, than those of a run")
        pending.extend((y, depth + 1) for y in inner)
