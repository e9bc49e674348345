"""The same models twice: GPT-2 of transformers with random weights, and ours with the same weights.

Also what both sides share besides: queries, a score that costs nothing, and responses of given lengths.
"""

from contextlib import contextmanager
from importlib import metadata
from unittest import mock

import torch

from minippo import generation
from minippo.bridges.gpt2_weights import to_gpt2, to_ours
from minippo.run.errors import UserError
from minippo.tokens import PAD
from minippo.transformer import Decoder, TransformerConfig

END = 0
SHAPES = {   # vocabulary, width, heads, layers, context
    "s": (4096, 256, 4, 4, 128),
    "gpt2-small": (50257, 768, 12, 12, 1024),
    "tiny": (64, 32, 2, 2, 64),   # for tests
}
RELEASES = {"trl-0.11.4": "0.11.4", "trl-1.12.0": "1.12.0"}


def need(package, version=None):
    """Its version; UserError that says what to install if it is missing, or another than asked for."""
    try:
        found = metadata.version(package)
    except metadata.PackageNotFoundError:
        found = "not installed"
    if found == "not installed" or version not in (None, found):
        wanted = f"{package} {version}" if version else package
        listed = version if package == "trl" and version else "0.11.4"
        raise UserError(f"this needs {wanted} ({found} here): pip install -r benchmarks/requirements-trl-"
                        f"{listed}.txt into an environment of its own")
    return found


def check(config):
    """UserError unless queries and responses fit the model's context, and minibatches divide the batch."""
    room = SHAPES[config.shape][-1]
    if config.query + config.response > room:
        raise UserError(f"--query {config.query} and --response {config.response} do not fit together into "
                        f"the context of {room}: lower one of them")
    if config.batch % (minibatches := getattr(config, "minibatches", 1)):
        raise UserError(f"--minibatches {minibatches} is no divisor of --batch {config.batch}")


def config(shape, **changes):
    """A TransformerConfig of one of SHAPES."""
    names = ("vocab_size", "width", "heads", "layers", "context")
    return TransformerConfig(**dict(zip(names, SHAPES[shape])) | {"end": END} | changes)


def gpt2_config(ours, **changes):
    """transformers' GPT2Config for a TransformerConfig, without dropout."""
    import transformers
    return transformers.GPT2Config(
        vocab_size=ours.vocab_size, n_positions=ours.context, n_embd=ours.width, n_layer=ours.layers,
        n_head=ours.heads, bos_token_id=ours.end, eos_token_id=ours.end, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, **changes)


def gpt2(ours, seed=0):
    """transformers' GPT-2 for a TransformerConfig, with random weights."""
    import transformers
    torch.manual_seed(seed)
    return transformers.GPT2LMHeadModel(gpt2_config(ours)).eval()


def decoder(theirs, ours):
    """Our Decoder with the weights of a GPT-2 (anything that has it as `transformer`)."""
    lm = Decoder(ours)
    lm.load_state_dict(to_ours(theirs.transformer.state_dict(), ours.layers))
    return lm.eval()


def as_gpt2(lm, temperature=1.0):
    """transformers' GPT-2 with the weights of our Decoder; the temperature, which TRL does not know, is in
    its last layer norm: states, and so logits, are divided by it."""
    import transformers
    theirs = transformers.GPT2LMHeadModel(gpt2_config(lm.config)).eval()
    found = to_gpt2(lm.state_dict(), lm.config.layers)
    found |= {name: x / temperature for name, x in found.items() if name.startswith("ln_f.")}
    theirs.transformer.load_state_dict(found)
    return theirs


def queries(count, length, vocabulary, seed=0):
    """(count, length) random tokens, none of them the end token."""
    return torch.randint(1, vocabulary, (count, length), generator=torch.Generator().manual_seed(seed))


def response_lengths(kind, count, longest, seed=0):
    """(count,): all the longest ("fixed"), or from 8 to it, drawn once ("varied")."""
    if kind == "fixed":
        return torch.full((count,), longest)
    shortest = min(8, longest)
    return torch.randint(shortest, longest + 1, (count,), generator=torch.Generator().manual_seed(seed))


def even_share(query, response):
    """A score that costs nothing: the share of even tokens in query and response, from -1 to 1. (B,)"""
    text = torch.cat([query, response], dim=1)
    return ((text % 2 == 0) & (text != PAD)).sum(1) / (text != PAD).sum(1) * 2 - 1


@contextmanager
def ends_after(lengths, end=END):
    """Inside, one call of minippo's `generate` gives responses of these lengths, (B,): its sampling draws
    no end token before it is due, and then nothing else. Rows may leave the batch once they have ended."""
    real, rows, t = generation.sample, torch.arange(len(lengths)), 0

    def sample(logits, *draws):
        nonlocal rows, t
        if len(logits) < len(rows):
            rows = rows[lengths[rows] > t]
        logits[:, end] = -torch.inf
        token = real(logits, *draws)
        t += 1
        return token.masked_fill(lengths[rows] == t, end)

    with mock.patch.object(generation, "sample", sample):
        yield


class EndsAfter:
    """The same for transformers' `generate`, as a logits processor; all queries are equally long."""

    def __init__(self, lengths, query, end=END):
        self.lengths, self.query, self.end = lengths, query, end

    def __call__(self, tokens, scores):
        due = self.lengths == tokens.shape[1] - self.query + 1
        scores[:, self.end] = -torch.inf
        if due.any():
            scores[due] = -torch.inf
            scores[due, self.end] = 0.0
        return scores
