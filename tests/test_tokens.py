"""Rows as rectangles: which side is filled, and with what."""

import pytest
import torch

from minippo.tokens import PAD, pad_left, pad_right


def test_d02_pad_is_no_vocabulary_entry():
    assert PAD == -1   # ids begin at 0: no tokenizer gives it, no softmax samples it


def test_queries_are_padded_on_the_left():
    assert pad_left([[1, 2, 3], [4], []]).tolist() == [[1, 2, 3], [-1, -1, 4], [-1, -1, -1]]


def test_responses_are_padded_on_the_right():
    assert pad_right([[1, 2, 3], [4], []]).tolist() == [[1, 2, 3], [4, -1, -1], [-1, -1, -1]]


def test_a_length_adds_columns_on_the_padded_side():
    assert pad_left([[1, 2], [3]], length=4).tolist() == [[-1, -1, 1, 2], [-1, -1, -1, 3]]
    assert pad_right([[1, 2], [3]], length=4).tolist() == [[1, 2, -1, -1], [3, -1, -1, -1]]


def test_rows_may_be_tensors_and_the_result_is_long():
    padded = pad_right([torch.tensor([5, 6]), [7]])
    assert padded.dtype == torch.long and padded.tolist() == [[5, 6], [7, -1]]


def test_no_rows_give_no_rows():
    assert pad_left([]).shape == (0, 0)
    assert pad_right([], length=3).shape == (0, 3)


@pytest.mark.parametrize("pad", [pad_left, pad_right])
def test_a_row_that_is_too_long_is_refused_and_never_cut(pad):
    with pytest.raises(ValueError, match="3 tokens does not fit into 2 columns"):
        pad([[1], [1, 2, 3]], length=2)
