"""Stored bytes against packing by hand."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from autoprune.cost.storage import choose_format, format_bytes, size_bytes, stored_bytes


@given(numel=st.integers(0, 10_000), share=st.floats(0, 1), itemsize=st.sampled_from([1, 2, 4, 8]))
def test_the_smaller_format_is_chosen(numel: int, share: float, itemsize: int) -> None:
    nonzero = int(numel * share)
    dense, bitmask = numel * itemsize, nonzero * itemsize + (numel + 7) // 8
    assert format_bytes(numel, nonzero, itemsize) == min(dense, bitmask)
    assert choose_format(numel, nonzero, itemsize) == ("bitmask" if bitmask < dense else "dense")


def test_the_break_even_is_one_bit_per_element() -> None:
    # A bitmask pays below a density of 1 - 1/b: 0.96875 for 32 bit.
    assert choose_format(3200, 3100, 4) == "dense"
    assert choose_format(3200, 3099, 4) == "bitmask"


def test_a_masked_tensor_is_packed_and_integers_are_not() -> None:
    weight = torch.ones(8, 10)
    weight[:, 5:] = 0
    weight[0, 5] = -0.0
    assert stored_bytes(weight) == 40 * 4 + 10
    assert stored_bytes(weight.half()) == 40 * 2 + 10
    assert stored_bytes(torch.zeros(8, dtype=torch.int64)) == 64
    assert stored_bytes(torch.tensor(0)) == 8
    assert stored_bytes(torch.empty(0)) == 0


def test_a_model_counts_parameters_and_buffers_and_shared_tensors_once() -> None:
    net = nn.Sequential(nn.Linear(10, 10, bias=False), nn.BatchNorm1d(10), nn.Linear(10, 10, bias=False))
    nn.init.ones_(net[0].weight)
    nn.init.ones_(net[2].weight)
    nn.init.ones_(net[1].bias)
    nn.init.ones_(net[1].running_mean)
    assert size_bytes(net) == 2 * 400 + 4 * 40 + 8
    net[2].weight = net[0].weight
    assert size_bytes(net) == 400 + 4 * 40 + 8
    with torch.no_grad():
        net[0].weight[:5] = 0
    assert size_bytes(net) == (50 * 4 + 13) + 4 * 40 + 8


def test_fewer_channels_are_a_smaller_shape() -> None:
    wide, narrow = nn.Conv2d(4, 8, 3), nn.Conv2d(4, 6, 3)
    assert size_bytes(wide) - size_bytes(narrow) == 4 * (2 * 4 * 9 + 2)
