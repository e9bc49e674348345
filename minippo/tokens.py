"""Rows of token ids as rectangular tensors: queries padded on the left, responses on the right."""

import torch

PAD = -1  # no vocabulary entry: it cannot be sampled and cannot be mistaken for the end token


def pad_left(rows, length=None):
    """Token rows of different lengths, aligned at their last token.

    rows     list of B lists of token ids
    length   columns of the result; None: as many as the longest row has
    Returns  (B, length) long, PAD in front
    Raises   ValueError if a row is longer than `length`
    """
    return _rectangle(rows, length, lambda width, row: slice(width - len(row), width))


def pad_right(rows, length=None):
    """Token rows of different lengths, aligned at their first token. As `pad_left`, PAD behind."""
    return _rectangle(rows, length, lambda width, row: slice(0, len(row)))


def _rectangle(rows, length, place):
    longest = max((len(row) for row in rows), default=0)
    width = longest if length is None else length
    if longest > width:
        raise ValueError(f"a row of {longest} tokens does not fit into {width} columns")
    out = torch.full((len(rows), width), PAD, dtype=torch.long)
    for line, row in zip(out, rows):
        line[place(width, row)] = torch.as_tensor(row, dtype=torch.long)
    return out
