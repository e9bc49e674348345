"""Rows as rectangles: which side is filled, and with what."""

import pytest
import torch

from minippo.tokens import PAD, Packed, joined, last, pad_left, pad_right, same_shape, totals


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


def test_tensors_of_different_widths_are_stacked_and_filled_up_with_0():
    one, other = torch.tensor([[1.5, 2.5]]), torch.tensor([[3.5], [4.5]])
    stacked = joined([one, other])
    assert stacked.tolist() == [[1.5, 2.5], [3.5, 0.0], [4.5, 0.0]]
    assert stacked.dtype == torch.float32   # the parts'
    assert joined([one, other], left=True).tolist() == [[1.5, 2.5], [0.0, 3.5], [0.0, 4.5]]
    assert joined([one], length=3, fill=9).tolist() == [[1.5, 2.5, 9.0]]


def test_a_stack_of_masks_is_a_mask():
    masks = joined([torch.tensor([[True, True]]), torch.tensor([[True]])])
    assert masks.dtype == torch.bool and masks.tolist() == [[True, True], [True, False]]


def test_stacking_cuts_nothing_off():
    with pytest.raises(ValueError, match="2 tokens does not fit into 1 columns"):
        joined([torch.zeros(1, 2)], length=1)


def test_shapes_that_differ_are_an_error_that_names_every_tensor():
    same_shape(one=torch.zeros(2, 3), other=torch.ones(2, 3).bool())   # the kind does not matter
    with pytest.raises(ValueError) as error:
        same_shape(one=torch.zeros(2, 3), other=torch.zeros(2, 1), third=torch.zeros(2, 3))
    assert str(error.value) == "shapes differ: one (2, 3), other (2, 1), third (2, 3)"
    with pytest.raises(ValueError, match=r"one \(2,\), other \(2, 1\)"):   # would broadcast to (2, 2)
        same_shape(one=torch.zeros(2), other=torch.zeros(2, 1))


def test_real_tokens_are_packed_row_by_row_and_come_back_to_their_places():
    mask = torch.tensor([[False, True, True], [True, False, False]])
    packed = Packed(mask)
    x = torch.tensor([[9, 1, 2], [3, 9, 9]])
    assert packed.pack(x)[:3].tolist() == [1, 2, 3] and packed.count == 3
    assert packed.unpack(packed.pack(x)).tolist() == [[0, 1, 2], [3, 0, 0]]
    assert packed.unpack(packed.pack(x[..., None].expand(2, 3, 4))).shape == (2, 3, 4)


@pytest.mark.parametrize("real, rows", [(1, 32), (32, 32), (33, 64), (80, 80)])
def test_what_is_packed_is_rounded_up_to_few_shapes_but_never_past_the_rectangle(real, rows):
    mask = torch.arange(80).view(8, 10) < real
    assert len(Packed(mask).pack(mask)) == rows


def test_a_rectangle_without_pads_is_packed_row_by_row_and_nothing_is_copied():
    x = torch.arange(6).view(2, 3)
    packed = Packed(torch.ones(2, 3) > 0)
    assert packed.pack(x).tolist() == [0, 1, 2, 3, 4, 5] and packed.count == 6
    assert packed.pack(x).data_ptr() == packed.unpack(packed.pack(x)).data_ptr() == x.data_ptr()
    assert packed.unpack(packed.pack(x)).tolist() == x.tolist()


def test_the_gradient_of_what_is_packed_is_1_at_real_tokens_and_0_at_pads():
    mask = torch.tensor([[True, True, False], [True, False, False]])
    x = torch.ones(2, 3, requires_grad=True)
    packed = Packed(mask)
    packed.unpack(packed.pack(x) * 2).sum().backward()
    assert x.grad.tolist() == [[2, 2, 0], [2, 0, 0]]


def test_the_last_real_token_of_each_row_and_none_of_an_empty_one():
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]]).bool()
    assert last(mask).tolist() == [[False, True, False], [True, False, False], [False] * 3,
                                   [False, False, True]]


def test_scores_of_tokens_add_up_without_those_of_pads_and_scores_of_responses_stay():
    mask = torch.tensor([[1, 1], [1, 0]]).bool()
    assert totals(torch.tensor([[1.0, 2.0], [4.0, 9.0]]), mask).tolist() == [3, 4]
    assert totals(torch.tensor([5.0, 6.0]), mask).tolist() == [5, 6]
