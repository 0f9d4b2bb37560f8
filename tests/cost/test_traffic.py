"""The traffic model against silicon, against brute force, and against its own bounds.

Eyeriss (Chen et al., JSSC 2017) published the DRAM megabytes of each AlexNet convolution. The chip stores activations
run-length coded, so the model is compared with the published share of zeros coded the same way: raw words against
compressed figures would be wrong by half. The zeros of each layer's input are published; those of the last output are
not, and are taken to be those of its input. Nothing is tuned: the buffer is the chip's 100 KB, words are 16 bit.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autoprune.cost.dataflow import dataflow_of
from autoprune.cost.tiling import Tensors, TiledBytes, TileSearch, Window
from autoprune.cost.traffic import traffic_of
from autoprune.cost.workload import Op, Workload, workload_of
from autoprune.spec.hardware import DeviceProfile, load_device

# name, c_in, c_out, groups, padded side, output side, kernel, stride, zeros in, zeros out, published DRAM MB (batch 4)
ALEXNET = (
    ("CONV1", 3, 96, 1, 227, 55, 11, 4, 0.0001, 0.387, 5.0),
    ("CONV2", 96, 256, 2, 31, 27, 5, 1, 0.387, 0.725, 4.0),
    ("CONV3", 256, 384, 1, 15, 13, 3, 1, 0.725, 0.793, 3.0),
    ("CONV4", 384, 384, 2, 15, 13, 3, 1, 0.793, 0.776, 2.1),
    ("CONV5", 384, 256, 2, 15, 13, 3, 1, 0.776, 0.776, 1.3),
)


def alexnet(batch: int = 4) -> Workload:
    ops = tuple(
        Op(
            *("conv", name),
            N=batch,
            c_in=c_in,
            c_out=c_out,
            groups=groups,
            H=side,
            W=side,
            E=out,
            F=out,
            kernel=(kernel, kernel),
            stride=(stride, stride),
            macs=batch * c_out * c_in // groups * kernel**2 * out**2,
            dtype="int16",
            itemsize=2,
            input_density=1 - zeros_in,
            output_density=1 - zeros_out,
        )
        for name, c_in, c_out, groups, side, out, kernel, stride, zeros_in, zeros_out, _ in ALEXNET
    )
    return Workload(ops, batch, "int16")


def test_eyeriss_dram_traffic_is_reproduced_untuned() -> None:
    traffic = traffic_of(alexnet(), load_device("eyeriss"))
    published = [row[-1] for row in ALEXNET]
    modelled = [op.dram_bytes / 1e6 for op in traffic.ops]
    errors = [abs(m / p - 1) for m, p in zip(modelled, published, strict=True)]
    assert traffic.dram_bytes / 1e6 == pytest.approx(15.4, rel=0.15)
    assert sum(errors) / len(errors) <= 0.10
    # Counting each tensor once is far too low, which is why the search exists.
    assert traffic.compulsory_bytes / 1e6 < 0.75 * 15.4
    assert sum(op.macs for op in alexnet().ops) / 1e9 == pytest.approx(2.66, abs=0.01)


class Tiles(NamedTuple):
    """One convolution; bytes are those of one stored element."""

    N: int
    c_in: int
    c_out: int
    groups: int
    H: int
    W: int
    E: int
    F: int
    R: int
    S: int
    stride_h: int
    stride_w: int
    outputs: int
    input_bytes: float
    weight_bytes: float
    output_bytes: float
    element_bytes: int
    accumulator_bytes: int


def search_tiles(t: Tiles, capacity: float) -> TiledBytes:
    """Search for one convolution."""
    window = Window(t.H, t.W, t.E, t.F, t.R, t.S, t.stride_h, t.stride_w, t.element_bytes, t.accumulator_bytes)
    sizes = (t.N, t.c_in // t.groups, t.c_out // t.groups, t.outputs // t.groups)
    stored = (t.input_bytes, t.weight_bytes, t.output_bytes)
    found = TileSearch([window], [(t.N, True)], capacity).search(
        Tensors(*(np.array([[size]]) for size in sizes), *(np.array([[each]]) for each in stored))
    )
    return TiledBytes(*(t.groups * part.item() for part in found))


def tiles(
    n: int,
    c_in: int,
    c_out: int,
    groups: int,
    side: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: int,
    factors: tuple[float, float, float] = (1.0, 1.0, 1.0),
    accumulator: int = 4,
) -> Tiles | None:
    (h, w), (r, s) = side, kernel
    e, f = (h + 2 * padding - r) // stride[0] + 1, (w + 2 * padding - s) // stride[1] + 1
    if h + 2 * padding < r or w + 2 * padding < s:
        return None
    c_in, c_out = c_in * groups, c_out * groups
    stored = (4 * factor for factor in factors)
    return Tiles(n, c_in, c_out, groups, h, w, e, f, r, s, *stride, n * c_out * e * f, *stored, 4, accumulator)


small = st.integers(1, 12)
factor = st.sampled_from([1.0, 0.5625, 0.3])


@settings(max_examples=300, deadline=None)
@given(
    n=st.integers(1, 9),
    c_in=small,
    c_out=st.integers(1, 40),
    groups=st.sampled_from([1, 2, 5]),
    side=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    stride=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    padding=st.integers(0, 3),
    factors=st.tuples(factor, factor, factor),
    accumulator=st.sampled_from([2, 4]),
    capacity=st.integers(64, 200_000),
)
def test_lower_bound_model_untiled_are_ordered(
    n, c_in, c_out, groups, side, kernel, stride, padding, factors, accumulator, capacity
) -> None:
    shape = tiles(n, c_in, c_out, groups, side, kernel, stride, padding, factors, accumulator)
    if shape is None:
        return
    found = search_tiles(shape, float(capacity))
    slack = 1 + 1e-12
    assert 0 < found.compulsory <= found.lower_bound <= found.model * slack
    assert found.model <= found.untiled * slack
    roomier = search_tiles(shape, float(2 * capacity))
    assert roomier.model <= found.model * slack


@settings(max_examples=100, deadline=None)
@given(rows=st.integers(1, 4096), inner=st.integers(1, 4096), columns=st.integers(1, 4096), kib=st.integers(1, 4096))
def test_products_lie_between_the_bounds(rows: int, inner: int, columns: int, kib: int) -> None:
    shape = tiles(rows, inner, columns, 1, (1, 1), (1, 1), (1, 1), 0)
    assert shape is not None
    found = search_tiles(shape, 1024.0 * kib)
    assert found.lower_bound <= found.model * (1 + 1e-12) <= found.untiled * (1 + 2e-12)
    # A square tile reaches the bound of the matrix product within the rounding of tiles.
    if min(rows, inner, columns) > 512 and kib < 256:
        assert found.model <= 2.2 * found.lower_bound


def brute_force(t: Tiles, capacity: int) -> float:
    """Play every tiling and count, row by row, what is fetched."""
    c_in, c_out = t.c_in // t.groups, t.c_out // t.groups
    above = max(0, (t.E - 1) * t.stride_h + t.R - t.H) // 2
    columns = {f * t.stride_w + s for f in range(t.F) for s in range(t.S)}
    width = min(t.W, len(columns))
    best = float("inf")
    for n, m, e, held in product(range(1, t.N + 1), range(1, c_out + 1), range(1, t.E + 1), (False, True)):
        most_rows = min(t.H, (e - 1) * min(t.stride_h, t.R) + t.R)
        room = n * m * e * t.F * t.accumulator_bytes + n * most_rows * t.W * t.element_bytes
        if room + held * m * c_in * t.R * t.S * t.element_bytes > capacity:
            continue
        moved = 0.0
        for filters in (min(m, c_out - i) for i in range(0, c_out, m)):
            weights = filters * c_in * t.R * t.S * t.weight_bytes
            moved += weights * held
            for images in (min(n, t.N - i) for i in range(0, t.N, n)):
                for first in range(0, t.E, e):
                    outputs = range(first, min(first + e, t.E))
                    rows = {o * t.stride_h + r - above for o in outputs for r in range(t.R)}
                    inside = len([row for row in rows if 0 <= row < t.H])
                    moved += images * c_in * inside * width * t.input_bytes
                    moved += weights * (not held)
                    moved += images * filters * len(outputs) * t.F * t.output_bytes
        best = min(best, t.groups * moved)
    return best


@pytest.mark.parametrize("capacity", [700, 1500, 4000, 20000])
@pytest.mark.parametrize(
    ("n", "c_in", "c_out", "groups", "side", "kernel", "stride", "padding"),
    [
        (2, 3, 5, 1, (8, 8), (3, 3), (1, 1), 1),
        (1, 4, 6, 2, (9, 7), (3, 2), (2, 1), 0),
        (3, 2, 4, 1, (6, 6), (1, 1), (2, 2), 0),
        (1, 2, 3, 1, (8, 5), (5, 5), (1, 1), 2),
        (7, 9, 5, 1, (1, 1), (1, 1), (1, 1), 0),
        (2, 1, 1, 4, (7, 7), (3, 3), (1, 1), 1),
    ],
)
def test_search_finds_what_brute_force_finds(n, c_in, c_out, groups, side, kernel, stride, padding, capacity) -> None:
    shape = tiles(n, c_in, c_out, groups, side, kernel, stride, padding)
    assert shape is not None
    found = search_tiles(shape, float(capacity))
    assert found.model == pytest.approx(min(brute_force(shape, capacity), found.untiled))


def profile(capacity: int, fusion: tuple[str, ...] = (), device: str = "raspberry-pi-5") -> DeviceProfile:
    """Return a device with one scratchpad on chip."""
    base = load_device(device)
    size = base.memory[-2].bytes.model_copy(update={"value": float(capacity), "range": None})
    inner = base.memory[-2].model_copy(update={"bytes": size, "usable": 1.0})
    return base.model_copy(
        update={"memory": (inner, base.memory[-1]), "runtime": base.runtime.model_copy(update={"fusion": fusion})}
    )


def small_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))


def test_resident_activations_leave_only_weights_input_and_output() -> None:
    net = small_net()
    workload = workload_of(net, (torch.randn(1, 3, 16, 16),))
    traffic = traffic_of(workload, profile(1_000_000))
    kernels = 4 * (8 * 3 * 9 + 4 * 8 * 9)
    norms = 4 * 8 * 4
    assert traffic.dram_bytes == kernels + norms + 4 * (3 * 256) + 4 * (4 * 256)
    assert traffic.dram_bytes == traffic.lower_bound_bytes < traffic.compulsory_bytes < traffic.untiled_bytes
    assert traffic_of(workload, profile(1_000_000), warm=True).dram_bytes == 4 * (3 * 256) + 4 * (4 * 256)


def test_without_room_each_unfused_pointwise_operator_reads_and_writes() -> None:
    workload = workload_of(small_net(), (torch.randn(1, 3, 16, 16),))
    eager = traffic_of(workload, profile(2048))
    plane = 4 * 8 * 256
    assert [op.dram_bytes for op in eager.ops[1:3]] == [2 * plane + 4 * 8 * 4, 2 * plane]
    fused = traffic_of(workload, profile(2048, ("conv+bn", "conv+bn+act")))
    assert [op.fused for op in fused.ops] == [False, True, True, False]
    assert fused.ops[1].dram_bytes == 0
    assert fused.ops[2].dram_bytes == plane  # the chain's result is still written once
    assert fused.ops[0].dram_bytes == pytest.approx(eager.ops[0].dram_bytes - plane, rel=0.01)
    assert fused.dram_bytes < eager.dram_bytes


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(x) + x)


def test_a_fused_addition_still_reads_its_other_operand() -> None:
    workload = workload_of(Residual(), (torch.randn(1, 4, 8, 8),))
    fused = traffic_of(workload, profile(600, ("conv+add+act",)))
    assert [op.fused for op in fused.ops] == [False, True, True]
    assert [op.dram_bytes for op in fused.ops[1:]] == [4 * 256, 4 * 256]


def sparse_linear(
    device: str, density: float = 0.5, rows: int = 64, pattern: str = "2:4"
) -> tuple[float, float, float]:
    op = Op(
        *("gemm", "fc"),
        N=4,
        c_in=256,
        c_out=rows,
        macs=4 * 256 * rows,
        dtype="float16",
        itemsize=2,
        weight_name="fc.weight",
        weight_density=density,
        pattern=pattern,
    )
    traffic = traffic_of(Workload((op,), 4, "float16"), profile(4096, device=device))
    return traffic.effective_macs / op.macs, traffic.dram_bytes, traffic.ops[0].dense_level_bytes[-1]


def test_zeros_save_only_where_the_profile_says_so() -> None:
    macs, moved, dense = sparse_linear("nvidia-h200")
    assert macs == 0.5
    assert dense - moved == pytest.approx((1 - 0.5625) * 2 * 64 * 256)
    for unlisted in (
        sparse_linear("raspberry-pi-5"),
        sparse_linear("nvidia-h200", rows=16),
        sparse_linear("nvidia-h200", pattern="weight"),
        sparse_linear("nvidia-h200", density=1.0),
    ):
        effective, stored, unpacked = unlisted
        assert effective == 1.0
        assert stored == unpacked


def test_transposed_convolutions_lie_between_the_bounds() -> None:
    workload = workload_of(nn.ConvTranspose2d(6, 4, 4, 2, 1, groups=2), (torch.randn(2, 6, 8, 8),))
    traffic = traffic_of(workload, profile(1024))
    assert traffic.lower_bound_bytes <= traffic.dram_bytes <= traffic.untiled_bytes


def test_an_in_place_operator_makes_a_new_version_of_its_tensor() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.ReLU(inplace=True), nn.Conv2d(8, 2, 1, bias=False))
    workload = workload_of(net, (torch.randn(1, 3, 16, 16),))
    plane = 4 * 8 * 256
    flow = dataflow_of(workload)
    assert [value.size for value in flow.values] == [4 * 3 * 256, plane, plane, 4 * 2 * 256]
    # While it is overwritten the tensor exists once.
    assert flow.live_bytes() == [4 * 3 * 256 + plane, plane, plane + 4 * 2 * 256]
    eager, fused = (traffic_of(workload, profile(2048, chains)) for chains in ((), ("conv+act",)))
    assert eager.ops[1].dram_bytes == 2 * plane
    assert fused.ops[1].dram_bytes == plane
    assert fused.dram_bytes == eager.dram_bytes - 2 * plane


def test_a_tensor_with_two_readers_is_not_swallowed_by_fusion() -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return torch.relu(y) * y

    traffic = traffic_of(workload_of(Branch(), (torch.randn(1, 4, 8, 8),)), profile(600, ("conv+act",)))
    assert not any(op.fused for op in traffic.ops)
