"""Handles for fvcore against formulas by hand, and the recorder against both, module by module."""

from __future__ import annotations

from math import prod

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from autoprune.cost.macs import count_macs
from autoprune.cost.workload import workload_of


def lstm_macs(gates: int, inputs: int, hidden: int, layers: int, directions: int, positions: int) -> int:
    """Count cell by cell: every gate reads the layer's input and the state before."""
    total = 0
    for layer in range(layers):
        entering = inputs if layer == 0 else directions * hidden
        total += directions * gates * hidden * (entering + hidden) * positions
    return total


@pytest.mark.parametrize(
    ("kind", "gates", "options", "shape"),
    [
        (nn.LSTM, 4, {}, (9, 2, 5)),
        (nn.LSTM, 4, {"num_layers": 3, "bidirectional": True, "batch_first": True}, (2, 9, 5)),
        (nn.GRU, 3, {"num_layers": 2, "bias": False}, (9, 2, 5)),
        (nn.GRU, 3, {"bidirectional": True}, (9, 5)),
        (nn.RNN, 1, {"nonlinearity": "relu"}, (9, 2, 5)),
    ],
)
def test_recurrent_networks_by_hand(kind, gates, options, shape) -> None:
    net, x = kind(5, 7, **options), torch.randn(shape)
    expected = lstm_macs(
        gates, 5, 7, options.get("num_layers", 1), 1 + options.get("bidirectional", False), prod(shape[:-1])
    )
    counted = count_macs(net, (x,))
    assert counted.total == workload_of(net, (x,)).macs == expected
    assert not counted.uncounted_ops


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(5, 7)
        self.cell = nn.LSTMCell(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        _, state = self.gru(pack_padded_sequence(x, [6, 4, 1]))
        return self.cell(state[0])[0]


def test_a_packed_sequence_counts_its_own_steps_and_cells_count_one() -> None:
    net, x = Packed(), torch.randn(6, 3, 5)
    expected = 3 * 7 * (5 + 7) * (6 + 4 + 1) + 4 * 4 * (7 + 4) * 3
    assert count_macs(net, (x,)).total == workload_of(net, (x,)).macs == expected


def test_einsum_is_counted_to_the_integer() -> None:
    class Scores(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return torch.einsum("bthd,bshd->bhts", a, b)

    a, b = torch.randn(2, 37, 3, 19), torch.randn(2, 41, 3, 19)
    # fvcore reads 173,300 from numpy's text, which has four digits
    assert count_macs(Scores(), (a, b)).total == workload_of(Scores(), (a, b)).macs == 2 * 3 * 37 * 41 * 19


class Interpolated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True), nn.LayerNorm(8)])
        self.statistics = nn.BatchNorm2d(4, affine=False, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        for norm in self.norms:
            x = norm(x)
        x = nn.functional.interpolate(self.statistics(x), scale_factor=2, mode="bilinear")
        return nn.functional.adaptive_avg_pool2d(nn.functional.interpolate(x, scale_factor=2), 3)


def test_norms_and_interpolations_are_recorded_as_fvcore_counts_them() -> None:
    x = torch.randn(2, 4, 8, 8)
    counted = count_macs(Interpolated(), (x,))
    ops = workload_of(Interpolated(), (x,)).ops
    by_module: dict[str, int] = {}
    for op in ops:
        count = op.per_input * prod(op.operands[0].shape) + op.per_output * prod(op.operands[-1].shape)
        by_module[op.module] = by_module.get(op.module, 0) + count
    assert sum(by_module.values()) == counted.total
    assert by_module["norms.1"] == counted.modules["norms.1"] == 5 * x.numel()
    assert by_module["statistics"] == counted.modules["statistics"] == 4 * x.numel()
