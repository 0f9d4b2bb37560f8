"""What the recorder sees, against fvcore and by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autoprune.cost.macs import count_macs
from autoprune.cost.workload import Op, workload_of


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.point = nn.Conv2d(8, 16, 1, stride=2)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.stem(x)), inplace=True)
        x = x + self.deep(x)
        return self.head(self.point(F.pad(x[:, :, ::2, ::2], (1, 1, 1, 1))).mean((2, 3)))


def by_kind(ops: tuple[Op, ...], *kinds: str) -> list[Op]:
    return [op for op in ops if op.kind in kinds]


def test_macs_of_convolutions_and_products_are_fvcores() -> None:
    net, x = Residual(), torch.randn(2, 3, 16, 16)
    workload = workload_of(net, (x,))
    counted = count_macs(net, (x,)).modules
    products = by_kind(workload.ops, "conv", "gemm")
    assert {op.name: op.macs for op in products} == {name: counted[name] for name in ("stem", "deep", "point", "head")}
    assert workload.macs == sum(op.macs for op in products)
    assert (workload.batch, workload.dtype) == (2, "float32")


def test_operators_stand_in_order_with_their_bytes_and_views_cost_nothing() -> None:
    workload = workload_of(Residual(), (torch.randn(2, 3, 16, 16),))
    assert [(op.kind, op.name) for op in workload.ops] == [
        ("conv", "stem"),
        ("pointwise", "norm"),
        ("pointwise", "relu_"),
        ("conv", "deep"),
        ("pointwise", "add"),
        ("move", "pad"),
        ("conv", "point"),
        ("pool", "mean"),
        ("gemm", "head"),
    ]
    stem, norm, relu, deep, add, pad, *_ = workload.ops
    plane = 4 * 2 * 8 * 256
    assert (stem.weight_bytes, stem.input_bytes, stem.output_bytes) == (4 * 8 * 27, 4 * 2 * 3 * 256, plane)
    assert (stem.kernel, stem.stride, stem.H, stem.W, stem.E, stem.F) == ((3, 3), (1, 1), 16, 16, 16, 16)
    assert (norm.weight_bytes, norm.input_bytes) == (4 * 4 * 8, plane)
    assert relu.reads == relu.writes  # in place
    assert (deep.groups, deep.weight_name) == (8, "deep.weight")
    assert add.input_bytes == 2 * plane
    assert pad.input_bytes == plane // 4  # a strided view was read
    assert workload.outputs == workload.ops[-1].writes


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv1d(4, 6, 3, stride=2), (2, 4, 11)),
        (nn.Conv3d(2, 3, (2, 3, 3), padding=1), (1, 2, 4, 6, 6)),
        (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (2, 4, 5, 5)),
        (nn.Conv2d(4, 6, 3, padding="same", dilation=2), (1, 4, 9, 9)),
        (nn.Linear(7, 5), (2, 3, 7)),
        (nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), (2, 6, 16)),
    ],
)
def test_macs_agree_with_fvcore(module: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    counted = count_macs(module, (x,))
    norms = sum(count for name, count in counted.modules.items() if name.startswith("norm"))
    assert workload_of(module, (x,)).macs == counted.total - norms


class Products(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(6, 5))
        self.b = nn.Parameter(torch.randn(5))
        self.lstm = nn.LSTM(5, 4)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = torch.addmm(self.b, x, self.w)  # 3x6 @ 6x5
        z = torch.einsum("ni,nj->nij", y, y) @ y[:, :, None]
        out, _ = self.lstm(y[:, None])
        return {"z": z, "out": out, "sorted": self.w.sort().values}


def test_products_are_found_inside_einsum_and_what_is_unknown_keeps_its_bytes() -> None:
    workload = workload_of(Products(), (torch.randn(3, 6),))
    addmm, *rest = by_kind(workload.ops, "gemm")
    assert (addmm.weight_name, addmm.macs, addmm.N, addmm.c_in, addmm.c_out) == ("w", 90, 3, 6, 5)
    assert rest[-1].macs == 3 * 5 * 5
    assert rest[-1].groups == 3
    (lstm,) = by_kind(workload.ops, "recurrent")
    assert lstm.macs == 3 * (16 * 5 + 16 * 4)
    assert lstm.weight_bytes == 4 * (16 * 5 + 16 * 4 + 2 * 16)
    unknown = [op for op in by_kind(workload.ops, "other") if op.weight_bytes]
    assert [(op.macs, op.weight_bytes) for op in unknown] == [(0, 4 * 6 * 5)]


def test_zeros_are_counted_and_their_pattern_is_told() -> None:
    net = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 4))
    with torch.no_grad():
        net[0].weight[:, ::2] = 0
    first, second = workload_of(net, (torch.randn(1, 8),)).ops
    assert (first.weight_density, first.pattern) == (0.5, "weight")
    assert (second.weight_density, second.pattern) == (1.0, None)
    first, _ = workload_of(net, (torch.randn(1, 8),), patterns={"0.weight": ("2:4", 0.5)}).ops
    assert (first.weight_density, first.pattern) == (0.5, "2:4")


def test_the_model_is_left_as_it_was() -> None:
    net = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(4))
    net.train()
    net[0].eval()
    mean = net[1].running_mean.clone()
    workload_of(net, (torch.randn(5, 4),))
    assert [m.training for m in net.modules()] == [True, False, True]
    assert torch.equal(net[1].running_mean, mean)
    with pytest.raises(RuntimeError):
        workload_of(net, (torch.randn(5, 3),))
    assert [m.training for m in net.modules()] == [True, False, True]
    assert not torch.is_inference_mode_enabled()


def test_keyword_arguments_and_integer_inputs() -> None:
    embedding = nn.Embedding(100, 8)
    (op,) = workload_of(embedding, (), {"input": torch.zeros(2, 3, dtype=torch.long)}).ops
    assert (op.kind, op.weight_bytes, op.output_bytes) == ("move", 4 * 48, 4 * 48)  # the rows looked up
