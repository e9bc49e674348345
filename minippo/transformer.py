"""A language model p(response | query). Two architectures, which differ in `context(query)` and its modules.

R tokens, R + 1 states: state t has seen the query and `response[:, :t]`. Column t of `states[:, :-1]`
therefore predicts column t of the response, and nobody outside this file ever shifts by one.

Shapes: B batch, Q query length, R response length, P length of what it follows, T tokens in, S tokens
attended to, D width, H heads, V vocabulary. (Attention's own queries stay inside Attention.)
"""

import contextlib
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from minippo.tokens import PAD, Packed


@dataclass(frozen=True)
class TransformerConfig:
    vocab_size: int
    end: int                        # id of the token that begins and ends every text
    architecture: str = "decoder"   # or "seq2seq"
    width: int = 256
    heads: int = 8
    layers: int = 4                 # of the decoder, and as many again in a Seq2Seq's encoder
    context: int = 128              # how long a context may be: tokens of query + response
    dropout: float = 0.0

    def __post_init__(self):
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"architecture {self.architecture!r} is none of {', '.join(ARCHITECTURES)}")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")
        if type(self.end) is not int or not 0 <= self.end < self.vocab_size:
            raise ValueError(f"end token {self.end!r:.40} is outside the vocabulary of {self.vocab_size}")


def build(config):
    """The LanguageModel that a config describes, freshly initialised."""
    return ARCHITECTURES[config.architecture](config).apply(initialize)


class LanguageModel(nn.Module):
    """What both architectures share: everything but `context`, what the response follows and attends to."""

    def __init__(self, config):
        super().__init__()
        self.config, self.end = config, config.end
        self.bf16 = False        # True: matrix products in bfloat16, weights and residual stream float32
        self.recompute = False   # True: a block's inner states are computed again when backward needs them
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.positions = nn.Embedding(config.context, config.width)
        cross = config.architecture == "seq2seq"
        self.blocks = nn.ModuleList(Block(config, cross) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def decode(self, tokens, encoded=None, cache=None):
        """Hidden states of the tokens, each of which has seen the tokens before it, and `encoded`.

        tokens   (B, T), PAD anywhere; those after the ones in `cache`, if there is one
        Returns  (B, T, D)
        Raises   ValueError if more tokens stand in a row than there are positions
        """
        packed, length = Packed(tokens != PAD), tokens.shape[1]
        real = tokens != PAD if cache is None else cache.real_so_far(tokens)   # (B, S)
        self.check_length(real)
        mask = causal_mask(real, length)
        with self.autocast():
            x = self.embed(packed.pack(tokens), packed.pack(real.cumsum(1)[:, -length:]))
            for i, block in enumerate(self.blocks):
                x = self.through(block, x, packed, mask, cache and cache.layers[i], encoded and encoded[i])
            return packed.unpack(self.norm(x))

    def through(self, block, *inputs):
        """A block's output; with `recompute` nothing inside it is kept for backward."""
        again = self.recompute and torch.is_grad_enabled()
        return checkpoint(block, *inputs, use_reentrant=False) if again else block(*inputs)

    def check_length(self, real):
        """ValueError if a row of the mask (B, S) has more tokens than there are positions."""
        most = self.config.context
        if real.shape[1] > most and (longest := int(real.sum(1).max())) > most:
            raise ValueError(f"{longest} tokens do not fit into the context of {most}")

    def embed(self, tokens, count):
        """Embeddings of tokens (N,) and positions; count (N,): real ones of its row so far, itself too."""
        return self.dropout(self.embedding(tokens.clamp(min=0)) + self.positions((count - 1).clamp(min=0)))

    def states(self, query, response):
        """The trajectory: state t has seen the query and response[:, :t].

        query (B, Q) padded on the left, a token at least; response (B, R) padded on the right
        Returns  (B, R + 1, D)
        """
        with self.autocast():
            prefix, encoded = self.context(query)
            hidden = self.decode(torch.cat([prefix, response], dim=1), encoded)
        return hidden[:, prefix.shape[1] - 1:]   # state 0 stands at the last token before the response

    def logits(self, states):
        """(..., D) -> (..., V): the head is the embedding."""
        with self.autocast():
            return F.linear(states, self.embedding.weight)

    def forward(self, query, response):
        """Logits (B, R, V); column t is for response[:, t]."""
        return self.logits(self.states(query, response)[:, :-1])

    def autocast(self):
        """Context in which matrix products run in bfloat16, if this model asks for it."""
        device = self.embedding.weight.device.type
        return torch.autocast(device, torch.bfloat16) if self.bf16 else contextlib.nullcontext()


class Decoder(LanguageModel):
    """GPT-2's architecture (Radford et al. 2019): the response simply follows the query."""

    def context(self, query):
        """(B, Q) -> the query itself, None."""
        return query, None


class Seq2Seq(LanguageModel):
    """An encoder reads the query both ways; the decoder, from the end token on, attends to it."""

    def __init__(self, config):
        super().__init__(config)
        self.encoder = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.encoder_norm = nn.LayerNorm(config.width)

    def context(self, query):
        """(B, Q) -> end tokens (B, 1); per layer what it attends to: keys, values (B, H, Q, D/H), mask."""
        real = query != PAD                                                      # (B, Q)
        self.check_length(real)
        packed, visible = Packed(real), real[:, None, None, :]
        mask = visible | torch.eye(query.shape[1], dtype=torch.bool, device=query.device)
        with self.autocast():
            x = self.embed(packed.pack(query), packed.pack(real.cumsum(1)))
            for block in self.encoder:
                x = self.through(block, x, packed, mask)
            x = self.encoder_norm(x)
            encoded = [(*block.cross.keys_values(x, packed), visible) for block in self.blocks]
        return query.new_full((len(query), 1), self.end), encoded


ARCHITECTURES = {"decoder": Decoder, "seq2seq": Seq2Seq}


class Block(nn.Module):
    """GPT-2's: layer norm before attention and MLP, residuals around; cross-attention if asked."""

    def __init__(self, config, cross=False):
        super().__init__()
        width = config.width
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(config)
        if cross:
            self.norm_cross = nn.LayerNorm(width)
            self.cross = Attention(config)
        self.norm_mlp = nn.LayerNorm(width)
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.contract.residual_writers = 2 * config.layers
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x, packed, mask, cache=None, encoded=None):
        """x (N, D) -> (N, D); encoded: keys, values, mask to attend to besides. As in Attention."""
        normed = self.norm_attention(x)
        keys, values = self.attention.keys_values(normed, packed)
        if cache is not None:
            keys, values = cache.append(keys, values)
        x = x + self.dropout(self.attention(normed, packed, keys, values, mask))
        if encoded is not None:
            x = x + self.dropout(self.cross(self.norm_cross(x), packed, *encoded))
        hidden = F.gelu(self.expand(self.norm_mlp(x)), approximate="tanh")
        return x + self.dropout(self.contract(hidden))


class Attention(nn.Module):
    """softmax(q k / sqrt(D/H)) v in H heads (Vaswani et al. 2017, 3.2), with biases as in GPT-2."""

    def __init__(self, config):
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.width, config.width)
        self.key_value = nn.Linear(config.width, 2 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.out.residual_writers = 2 * config.layers

    def keys_values(self, x, packed):
        """x (N, D) -> keys, values, each (B, H, S, D/H)."""
        return [self.split(part) for part in packed.unpack(self.key_value(x)).chunk(2, dim=-1)]

    def split(self, x):
        """(B, T, D) -> (B, H, T, D/H)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x, packed, keys, values, mask):
        """x (N, D) -> (N, D); keys, values (B, H, S, D/H); mask (B, 1, T or 1, S)."""
        queries = self.split(packed.unpack(self.query(x)))                       # (B, H, T, D/H)
        scores = (queries @ keys.mT).float() / queries.shape[-1] ** 0.5          # (B, H, T, S)
        weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
        return self.out(packed.pack((weights.to(values.dtype) @ values).transpose(1, 2).flatten(2)))


def causal_mask(real, length):
    """Which of S tokens each of the last `length` may look at: real ones before it, and itself.

    real (B, S), True = a real token. (B, 1, length, S) bool; "itself" keeps the softmax of a pad finite"""
    position = torch.arange(real.shape[1], device=real.device)
    own = position[-length:, None]
    return ((position < own) & real[:, None, None, :]) | (position == own)


def initialize(module):
    """GPT-2's: N(0, 0.02), 1/sqrt(2 layers) of it for what writes into the residual stream."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02 / getattr(module, "residual_writers", 1) ** 0.5)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


class KVCache:
    """Keys and values of up to `length` tokens decoded so far: kept by the caller, not by the model."""

    def __init__(self, config, batch, length, device=None):
        self.layers = [LayerCache(length) for _ in range(config.layers)]
        self.real, self.used = torch.zeros(batch, length, dtype=torch.bool, device=device), 0

    def real_so_far(self, tokens):
        """Note which of the new tokens (B, T) are real; (B, S) for all so far."""
        start, self.used = self.used, self.used + tokens.shape[1]
        if self.used > self.real.shape[1]:
            raise ValueError(f"{self.used} tokens do not fit into a cache of {self.real.shape[1]}")
        self.real[:, start:self.used] = tokens != PAD
        return self.real[:, :self.used]


class LayerCache:
    """One layer's keys and values, allocated when the first arrive (they bring dtype and shape)."""

    def __init__(self, length):
        self.length, self.used, self.keys = length, 0, None

    def append(self, keys, values):
        """New (B, H, T, D/H) -> all so far (B, H, S, D/H)."""
        if self.keys is None:
            shape = (*keys.shape[:2], self.length, keys.shape[3])
            self.keys, self.values = keys.new_zeros(shape), values.new_zeros(shape)
        start, self.used = self.used, self.used + keys.shape[2]
        self.keys[:, :, start:self.used], self.values[:, :, start:self.used] = keys, values
        return self.keys[:, :, :self.used], self.values[:, :, :self.used]
