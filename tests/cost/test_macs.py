"""MACs against hand-computed integers."""

from __future__ import annotations

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autoprune.cost.macs import count_macs


def test_convolution_norm_and_linear_by_hand() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5)
    )
    count = count_macs(net, (torch.randn(2, 3, 8, 8),))
    conv = 2 * 8 * 3 * 9 * 16
    norm = 2 * (2 * 8 * 16)  # fvcore: a scale and a shift per element
    linear = 2 * 128 * 5
    assert count.total == conv + norm + linear
    assert dict(count.modules) == {"": count.total, "0": conv, "1": norm, "2": 0, "3": 0, "4": linear}
    assert all(type(value) is int for value in (count.total, *count.modules.values()))
    assert dict(count.uncounted_ops) == {}


def test_grouped_transposed_and_one_dimensional_convolutions() -> None:
    assert count_macs(nn.Conv2d(8, 8, 3, groups=8), (torch.randn(1, 8, 5, 5),)).total == 8 * 9 * 9
    assert count_macs(nn.ConvTranspose2d(4, 6, 2, 2), (torch.randn(1, 4, 5, 5),)).total == 4 * 6 * 4 * 25
    assert count_macs(nn.Conv1d(4, 6, 3), (torch.randn(2, 4, 10),)).total == 2 * 4 * 6 * 3 * 8
    same = count_macs(nn.Conv2d(4, 6, 3, padding="same", dilation=2), (torch.randn(2, 4, 9, 9),))
    assert same.total == 2 * 6 * 4 * 9 * 81
    assert not same.uncounted_ops


class Attention(nn.Module):
    def forward(self, q: torch.Tensor, *, k: torch.Tensor, v: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": F.gelu(F.scaled_dot_product_attention(q, k, v, is_causal=False))}


def test_attention_has_a_handle_and_keywords_are_passed() -> None:
    q, k, v = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 4)
    count = count_macs(Attention(), (q,), {"k": k, "v": v})
    assert count.total == 2 * 3 * 5 * 7 * (8 + 4)
    assert dict(count.uncounted_ops) == {"aten::gelu": 1}


class Pointwise(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.softmax(-1) + x * x).mean()


def test_what_is_not_counted_is_listed() -> None:
    count = count_macs(Pointwise(), (torch.randn(2, 3),))
    assert count.total == 0
    assert dict(count.uncounted_ops) == {"aten::add": 1, "aten::mean": 1, "aten::mul": 1, "aten::softmax": 1}
    with pytest.raises(TypeError):
        count.uncounted_ops["aten::add"] = 0  # type: ignore[index]


def test_an_encoder_layer_is_counted_in_its_parts() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    tokens = 2 * 6
    products = tokens * 16 * (3 * 16 + 16 + 2 * 32)
    attention = 2 * 2 * 6 * 6 * (8 + 8)
    norms = 2 * 5 * tokens * 16  # fvcore: five per element
    assert count_macs(layer, (torch.randn(2, 6, 16),)).total == products + attention + norms


def test_a_shared_module_counts_each_call() -> None:
    shared = nn.Linear(4, 4)
    assert count_macs(nn.Sequential(shared, shared), (torch.randn(1, 4),)).total == 2 * 16


def test_the_model_and_the_process_are_left_as_they_were(caplog: pytest.LogCaptureFixture) -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Softmax(-1))
    net.train()
    net[1].eval()
    fast = torch.backends.mha.get_fastpath_enabled()
    with caplog.at_level(logging.WARNING):
        count_macs(net, (torch.randn(1, 4),))
        with pytest.raises(RuntimeError):
            count_macs(net, (torch.randn(1, 5),))
    assert caplog.records == []
    assert [m.training for m in net.modules()] == [True, True, False, True]
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in net.modules())
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert torch.is_grad_enabled()
