"""The tile model against a cache that is played word by word, and between its bounds on whole networks.

What can be proven of a cache: no schedule moves less than the lower bound; and with twice the room LRU moves at most
twice what the best replacement moves (Sleator and Tarjan, CACM 1985), which the tile that the model found bounds from
above, because that tile fits. So ``lower bound(C) <= LRU(C)`` and ``LRU(2 C) <= 2 model(C)``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune.cost.tiling import Tensors, TiledBytes, TileSearch, Window
from autoprune.cost.traffic import traffic_of
from autoprune.cost.workload import Op, Workload
from autoprune.spec.hardware import load_device

sys.path.insert(0, str(Path(__file__).parent))
from cache_simulation import TINY, Layer, least_words, words_moved


def model_words(layer: Layer, capacity: int) -> TiledBytes:
    window = Window(
        layer.side, layer.side, layer.out, layer.out, layer.kernel, layer.kernel, *(layer.stride,) * 2, 1, 1
    )
    sizes = (1, layer.c_in, layer.c_out, layer.c_out * layer.out**2)
    found = TileSearch([window], [(1, True)], capacity).search(
        Tensors(*(np.array([[size]]) for size in sizes), *(np.ones((1, 1)) for _ in range(3)))
    )
    return TiledBytes(*(part.item() for part in found))


@pytest.mark.parametrize("capacity", [24, 48, 96])
@pytest.mark.parametrize("layer", TINY)
def test_a_simulated_cache_lies_where_theory_puts_it(layer: Layer, capacity: int) -> None:
    model = model_words(layer, capacity)
    small, large = least_words(layer, capacity), least_words(layer, 2 * capacity)
    assert model.compulsory <= model.lower_bound <= small
    assert large <= 2 * model.model
    assert large <= small


def test_a_cache_that_holds_everything_moves_each_word_once() -> None:
    layer = Layer(2, 3, 5, 3, 1, 1)
    assert words_moved(layer, 3, 5, 10_000) == 2 * 25 + 3 * 2 * 9 + 3 * 25
    assert words_moved(layer, 3, 5, 10_000) == model_words(layer, 10_000).model


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    """Draw a chain of convolutions, products, attention and pointwise operators."""
    ops, sizes = [], [4 * draw(st.integers(1, 5000))]
    for number in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["conv", "gemm", "attention", "pointwise", "pool"]))
        n, groups = draw(st.integers(1, 4)), draw(st.integers(1, 3))
        c_in, c_out = groups * draw(st.integers(1, 24)), groups * draw(st.integers(1, 24))
        side, kernel = (draw(st.integers(3, 20)), draw(st.integers(1, 3))) if kind == "conv" else (1, 1)
        out, inner = side - kernel + 1, c_in // groups
        keys = draw(st.integers(1, 64)) if kind == "attention" else out
        macs = {"attention": n * keys * (c_in + c_out)}.get(kind, n * inner * c_out * kernel**2 * out**2)
        sizes.append(4 * n * c_out * out * out)
        ops.append(
            Op(
                *(kind, f"{kind}{number}", kind),
                N=n,
                c_in=c_in,
                c_out=c_out,
                groups=groups,
                H=side,
                W=side,
                E=keys,
                F=out,
                kernel=(kernel, kernel),
                macs=macs if kind in ("conv", "gemm", "attention") else 0,
                weight_bytes=4 * c_out * inner * kernel**2 if kind in ("conv", "gemm") else 0,
                input_bytes=sizes[-2],
                output_bytes=sizes[-1],
                reads=(number,),
                writes=(number + 1,),
            )
        )
    return Workload(tuple(ops), 1, "float32", tuple(sizes), (len(ops),))


@settings(max_examples=150, deadline=None)
@given(
    workload=workloads(),
    device=st.sampled_from(["raspberry-pi-5", "nvidia-h200", "eyeriss", "stm32h743"]),
    shrink=st.sampled_from([1.0, 1 / 64, 1 / 1024, 1 / 65536]),
    warm=st.booleans(),
)
def test_every_operator_lies_between_its_bounds(workload: Workload, device: str, shrink: float, warm: bool) -> None:
    base = load_device(device)
    levels = [
        level.model_copy(update={"bytes": level.bytes.model_copy(update={"value": shrink * level.bytes.value})})
        for level in base.memory
    ]
    traffic = traffic_of(workload, base.model_copy(update={"memory": tuple(levels)}), warm=warm)
    for op in traffic.ops:
        assert 0 <= op.lower_bound_bytes <= op.dram_bytes * (1 + 1e-12)
        assert op.dram_bytes <= op.untiled_bytes * (1 + 1e-12)
    assert traffic.lower_bound_bytes <= traffic.dram_bytes * (1 + 1e-12)
    assert traffic.dram_bytes <= traffic.untiled_bytes * (1 + 1e-12)
