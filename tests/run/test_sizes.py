"""How large a model may be asked for: the flag is named before anything is built."""

import time

import pytest

from minippo.policy import ActorCritic
from minippo.reward import RewardModel
from minippo.run.checkpoint import save_tensors
from minippo.run.errors import UserError
from minippo.run.sizes import DEEPEST, MOST_VALUES, check_sizes, check_values, largest_weights
from minippo.transformer import TransformerConfig, build

MODEL = {"vocab_size": 300, "architecture": "decoder", "width": 8, "heads": 2, "layers": 1, "context": 16,
         "dropout": 0.1}


@pytest.mark.parametrize("change", [
    {"vocab_size": 2**20}, {"width": 2**16, "layers": 0, "heads": 2**16}, {"layers": 1000},
    {"context": 2**20}])
def test_the_largest_sizes_alone_are_allowed(change):
    check_sizes(MODEL | change)


@pytest.mark.parametrize("change, message", [
    ({"vocab_size": 2**20 + 1}, "--vocab-size 1048577: a whole number from 1 to 1048576 is needed"),
    ({"vocab_size": 0}, "--vocab-size 0:"), ({"width": 2**16 + 1}, "--width 65537:"),
    ({"width": 0}, "--width 0:"), ({"width": 8.0}, "--width 8.0:"), ({"width": True}, "--width True:"),
    ({"heads": 0}, "--heads 0:"), ({"layers": 1001}, "--layers 1001: a whole number from 0 to 1000"),
    ({"layers": -1}, "--layers -1:"), ({"context": 2**20 + 1}, "--context 1048577:"),
    ({"context": "8"}, "--context '8':"), ({"heads": 3}, "--width 8 is not a multiple of --heads 3"),
    ({"dropout": 1.5}, "--dropout 1.5: a number from 0 to 1"), ({"dropout": float("nan")}, "--dropout nan:")])
def test_any_other_is_named_by_its_flag(change, message):
    with pytest.raises(UserError, match=message):
        check_sizes(MODEL | change)


@pytest.mark.parametrize("architecture, largest", [("decoder", 28), ("seq2seq", 12)])
def test_two_billion_weights_are_the_most_together(architecture, largest):
    # width 2400: 12 matrices of width x width per layer, 28 in a seq2seq, and 316 rows beside them.
    # decoder: (12 * 28 * 2400 + 316) * 2400 = 1.936e9, with 29 layers 2.005e9;
    # seq2seq: (28 * 12 * 2400 + 316) * 2400 = 1.936e9 with 12 layers, with 13 2.097e9
    sizes = MODEL | {"architecture": architecture, "width": 2400}
    check_sizes(sizes | {"layers": largest})
    with pytest.raises(UserError, match="more than 2,000,000,000 weights; lower one of them"):
        check_sizes(sizes | {"layers": largest + 1})


@pytest.mark.parametrize("architecture", ["decoder", "seq2seq"])
@pytest.mark.parametrize("sizes", [{"layers": 0, "width": 1, "heads": 1}, {"layers": 3}, {"layers": 40},
                                   {"width": 256}, {"context": 4000}, {"vocab_size": 4000}])
def test_a_model_s_file_is_no_larger_than_its_sizes_allow_and_not_much_smaller(tmp_path, architecture, sizes):
    model = MODEL | {"architecture": architecture} | sizes
    found = []
    for kind in (ActorCritic, RewardModel):
        save_tensors(tmp_path / "model.pt", kind(build(TransformerConfig(end=0, **model))).state_dict())
        found.append((tmp_path / "model.pt").stat().st_size)
    assert max(found) <= largest_weights(model) <= 8 * max(found) + 2**17   # small files: headers


def doubled(times):
    """[x, x], where x is [y, y], and so on."""
    x = 1.0
    for _ in range(times):
        x = [x, x]
    return x


def test_values_are_counted_as_often_as_they_are_met():
    # in doubled(n) there are 2 + 4 + ... + 2^n = 2^(n + 1) - 2 values, nested n deep
    for small in (1, "text", [], {"a": {"b": [1, (2, 3)]}}, doubled(18), [0] * MOST_VALUES):
        check_values(small)
    assert 2**19 - 2 <= MOST_VALUES < 2**20 - 2 and DEEPEST >= 19
    start = time.monotonic()
    for large in (doubled(19), doubled(1000), {"a": doubled(1000)}, [0] * (MOST_VALUES + 1),
                  (doubled(18), doubled(18))):
        with pytest.raises(ValueError, match="more values, or nested deeper"):
            check_values(large)
    assert time.monotonic() - start < 20


def test_what_nests_too_deep_is_refused():
    deep = 1
    for _ in range(DEEPEST):
        deep = {"a": deep}
    check_values(deep)
    with pytest.raises(ValueError, match="nested deeper"):
        check_values([deep])
