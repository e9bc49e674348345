"""Rows of tokens as rectangles: queries padded on the left, responses on the right; means over masks."""

import torch
import torch.nn.functional as F

PAD = -1  # no vocabulary entry: it cannot be sampled and cannot be mistaken for the end token


def pad_left(rows, length=None):
    """Lists of token ids, aligned at their last token: (B, length) long, PAD in front.

    length   None: as many as the longest row has; ValueError if a row is longer"""
    return joined([torch.as_tensor(row, dtype=torch.long)[None] for row in rows], length, PAD, left=True)


def pad_right(rows, length=None):
    """Lists of token ids, aligned at their first token. As `pad_left`, PAD behind."""
    return joined([torch.as_tensor(row, dtype=torch.long)[None] for row in rows], length, PAD)


def joined(tensors, length=None, fill=0, left=False):
    """Tensors (b, n) of different n, one below the other, filled up to (sum of b, length)."""
    longest = max((x.shape[1] for x in tensors), default=0)
    width = longest if length is None else length
    if longest > width:
        raise ValueError(f"a row of {longest} tokens does not fit into {width} columns")
    gaps = [width - x.shape[1] for x in tensors]
    padded = [F.pad(x, (gap, 0) if left else (0, gap), value=fill) for x, gap in zip(tensors, gaps)]
    return torch.cat(padded) if padded else torch.empty(0, width, dtype=torch.long)


class Packed:
    """The real tokens of a rectangle (B, T), one below the other: N of them, and nothing spent on pads.

    mask   (B, T), True = a real token. N is rounded up with pads: torch keeps memory for each shape met"""

    def __init__(self, mask):
        self.shape, self.count = mask.shape, int(mask.sum())
        self.full = self.count == mask.numel()   # no pads: nothing has to be moved
        if not self.full:
            order = mask.flatten().byte().argsort(descending=True, stable=True)
            self.real, self.places = order[:self.count], order[:self.count + -self.count % 32]

    def pack(self, x):
        """(B, T, ...) -> (N, ...)"""
        return x.flatten(0, 1) if self.full else x.flatten(0, 1).index_select(0, self.places)

    def unpack(self, x):
        """(N, ...) -> (B, T, ...), 0 at PAD"""
        full = (x if self.full else x.new_zeros(self.shape.numel(), *x.shape[1:])
                .index_copy(0, self.real, x[:len(self.real)]))
        return full.unflatten(0, self.shape)


def same_shape(**tensors):
    """ValueError naming every shape unless all are the same."""
    if len({x.shape for x in tensors.values()}) > 1:
        shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in tensors.items())
        raise ValueError(f"shapes differ: {shapes}")


def masked_mean(x, mask):
    """Mean of x where the mask is True; both the same shape. 0-d; 0 if the mask is empty."""
    same_shape(x=x, mask=mask)
    return (x * mask).sum() / mask.sum().clamp(min=1)


def last(mask):
    """True at the last real token of each row of a mask (B, R); (B, R)."""
    return mask & (mask.cumsum(1) == mask.sum(1, keepdim=True))


def totals(scores, mask):
    """Scores of responses (B,) as they are, those of tokens (B, R) summed over real ones; (B,)."""
    return scores if scores.dim() == 1 else (scores * mask).sum(1)
