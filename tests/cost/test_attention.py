"""Traffic of attention against every schedule played out, and against a cache that is played word by word."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.cost.roofline import predict_latency
from autoprune.cost.savings import scores_made
from autoprune.cost.traffic import OpTraffic, traffic_of
from autoprune.cost.workload import Op, Workload, workload_of
from autoprune.spec.hardware import DeviceProfile, load_device

BYTES = 4
SHAPES = [(5, 7, 3, 2, 2), (9, 4, 2, 4, 1), (6, 6, 1, 1, 3), (1, 12, 4, 4, 1), (16, 16, 2, 2, 1)]
"""Queries, keys, width of keys, width of values, heads."""


@cache
def _base() -> DeviceProfile:
    return load_device("raspberry-pi-5")


def device(capacity: int, attention: str = "fused") -> DeviceProfile:
    """Return a device with one scratchpad of so many bytes, sums of four bytes."""
    base = _base()
    size = base.memory[-2].bytes.model_copy(update={"value": float(capacity), "range": None})
    inner = base.memory[-2].model_copy(update={"bytes": size, "usable": 1.0})
    runtime = base.runtime.model_copy(update={"attention": attention, "fusion": ()})
    return base.model_copy(update={"memory": (inner, base.memory[-1]), "runtime": runtime})


def attention(queries: int, keys: int, d_k: int, d_v: int, heads: int) -> Workload:
    """Return one operator; four activations of which none stays, for a fifth lives beside them."""
    sizes = [heads * rows * width * BYTES for rows, width in ((queries, d_k), (keys, d_k), (keys, d_v), (queries, d_v))]
    op = Op(
        *("attention", "attention", "scaled_dot_product_attention"),
        N=queries,
        E=keys,
        c_in=heads * d_k,
        c_out=heads * d_v,
        groups=heads,
        macs=heads * queries * keys * (d_k + d_v),
        input_bytes=sum(sizes[:3]),
        output_bytes=sizes[3],
        reads=(0, 1, 2),
        writes=(3,),
    )
    return Workload((op,), 1, "float32", tuple(sizes), (3,))


def modelled(shape: tuple[int, ...], capacity: int, runtime: str = "fused") -> OpTraffic:
    return traffic_of(attention(*shape), device(capacity, runtime)).ops[0]


def brute_force(queries: int, keys: int, d_k: int, d_v: int, heads: int, capacity: int) -> float:
    """Play both loop orders with every block, in words: what is fetched, and what comes and goes."""
    state, best = d_v + 2, float("inf")
    for block in range(1, queries + 1):
        if block * (d_k + state) + (d_k + d_v) + 1 <= capacity:
            blocks = range(0, queries, block)
            moved = sum(min(block, queries - i) * (d_k + d_v) + keys * (d_k + d_v) for i in blocks)
            best = min(best, moved)
    for block in range(1, keys + 1):
        if block * (d_k + d_v) + d_k + state + 1 <= capacity:
            moved = 0
            for i in range(0, keys, block):
                moved += min(block, keys - i) * (d_k + d_v) + queries * d_k
                moved += queries * state * (i > 0)  # sums, maximum and norm come back
                moved += queries * (d_v if i + block >= keys else state)
            best = min(best, moved)
    return heads * best


@pytest.mark.parametrize("capacity", [12, 20, 33, 60])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_model_finds_what_brute_force_finds(shape: tuple[int, ...], capacity: int) -> None:
    queries, keys, d_k, d_v, heads = shape
    words = heads * (queries + keys) * (d_k + d_v)
    untiled = words + 2 * heads * queries * keys * (d_k + d_v)
    expected = words if words <= capacity else min(brute_force(*shape, capacity), untiled)
    found = modelled(shape, BYTES * capacity)
    assert found.dram_bytes == pytest.approx(BYTES * expected)
    assert found.untiled_bytes == pytest.approx(BYTES * untiled)


Word = tuple[str, int, int, int]


def accesses(queries: int, keys: int, d_k: int, d_v: int, heads: int, block: int) -> Iterator[tuple[Word, bool]]:
    """Yield (word, written) of a fused kernel that holds a block of queries."""
    for head, first in product(range(heads), range(0, queries, block)):
        for key, query in product(range(keys), range(first, min(first + block, queries))):
            for c in range(d_k):
                yield ("q", head, query, c), False
                yield ("k", head, key, c), False
            for c in range(d_v):
                yield ("v", head, key, c), False
                yield ("o", head, query, c), True
            yield ("norm", head, query, 0), True
            yield ("maximum", head, query, 0), True


def words_moved(shape: tuple[int, ...], block: int, capacity: int) -> int:
    """Return the words between an LRU cache and memory; norms and maxima are gone when their query is done."""
    cache: OrderedDict[Word, bool] = OrderedDict()
    spilled: set[Word] = set()
    moved = 0
    for word, written in accesses(*shape, block):
        moved += word not in cache and (not written or word in spilled)
        cache[word] = cache.get(word, False) or written
        cache.move_to_end(word)
        if len(cache) > capacity:
            old, dirty = cache.popitem(last=False)
            moved += dirty
            spilled |= {old} if dirty else set()
    return moved + sum(dirty for word, dirty in cache.items() if word[0] == "o")


@pytest.mark.parametrize("capacity", [24, 40, 80])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_simulated_cache_lies_where_theory_puts_it(shape: tuple[int, ...], capacity: int) -> None:
    found = modelled(shape, BYTES * capacity)
    queries = shape[0]
    small, large = (min(words_moved(shape, b, c) for b in range(1, queries + 1)) for c in (capacity, 2 * capacity))
    assert found.compulsory_bytes <= BYTES * small
    assert BYTES * large <= 2 * found.dram_bytes  # Sleator and Tarjan, CACM 1985


@settings(max_examples=80, deadline=None)
@given(
    shape=st.tuples(*(st.integers(1, most) for most in (64, 64, 32, 32, 6))),
    capacity=st.integers(64, 60_000),
    runtime=st.sampled_from(["fused", "unfused"]),
)
def test_lower_bound_model_untiled_are_ordered(shape: tuple[int, ...], capacity: int, runtime: str) -> None:
    found, roomier = modelled(shape, capacity, runtime), modelled(shape, 2 * capacity, runtime)
    assert 0 < found.lower_bound_bytes <= found.dram_bytes * (1 + 1e-12)
    assert found.dram_bytes <= found.untiled_bytes * (1 + 1e-12)
    assert roomier.dram_bytes <= found.dram_bytes * (1 + 1e-12)


@pytest.mark.parametrize("runtime", ["fused", "unfused"])
def test_scores_are_stored_only_by_a_runtime_without_a_kernel(runtime: str) -> None:
    shape = (64, 64, 8, 8, 2)
    scores = 2 * 64 * 64 * BYTES
    tensors = BYTES * 2 * 64 * 4 * 8
    run = attention(*shape)
    roomy = traffic_of(run, device(tensors + 2 * scores, runtime))
    tight = traffic_of(run, device(tensors + 2 * scores - 1, runtime))
    assert roomy.dram_bytes == tensors
    assert roomy.activation_bytes == tensors + (2 * scores if runtime == "unfused" else 0)
    # Products that are tiled well read each operand once; the scores are written, read, written and read.
    assert tight.dram_bytes == tensors + (4 * scores if runtime == "unfused" else 0)


class Grouped(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def test_heads_that_share_keys_read_them_once() -> None:
    q, k = torch.randn(1, 4, 16, 8), torch.randn(1, 2, 16, 8)
    run = workload_of(Grouped(), (q, k, k.clone()))
    ops = [op for op in run.ops if op.kind == "attention"]
    assert len(ops) == 1
    assert [op.kind for op in run.ops if op.kind != "attention"] == []
    once = sum(run.tensor_bytes)
    # Room for the keys and values of one head and not for all tensors.
    found = traffic_of(run, device(16 * 16 * BYTES + 1024))
    assert found.dram_bytes == once


class Masked(nn.Module):
    """Attention whose queries see no later key, or, by the same products, one that sees all."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.causal = causal

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)


@pytest.mark.parametrize(("queries", "keys", "block"), [(7, 7, 1), (100, 60, 16), (60, 100, 16), (64, 64, 512)])
def test_scores_that_a_causal_mask_leaves(queries: int, keys: int, block: int) -> None:
    made = np.zeros((queries, keys), bool)
    for first in range(0, keys, block):
        made[first:, first : first + block] = True  # the first key of the block is seen from query ``first`` on
    assert scores_made(np.array([queries]), np.array([keys]), block) == pytest.approx(made.mean())


def test_a_causal_mask_shortens_the_time_and_leaves_the_count() -> None:
    q = torch.randn(1, 2, 2048, 8)
    full, masked = (workload_of(Masked(causal), (q, q.clone(), q.clone())) for causal in (False, True))
    assert full.macs == masked.macs == 2 * 2048**2 * 16
    torch_, unknown = device(1 << 30), _base().model_copy(update={"runtime": device(1 << 30, "unfused").runtime})
    assert torch_.runtime.causal_block is not None
    assert torch_.runtime.causal_block.value == 512
    share = (1 + 2 + 3 + 4) / 16  # blocks of 512 keys that the queries of each block see
    executed = [traffic_of(run, torch_, "torch").effective_macs for run in (full, masked)]
    assert executed == [full.macs, pytest.approx(share * full.macs)]
    times = [
        [predict_latency(run, traffic_of(run, profile, runtime), profile).ops[0] for run in (full, masked)]
        for profile, runtime in ((torch_, "torch"), (torch_, "onnxruntime"), (unknown, "torch"))
    ]
    works = [[each.seconds - each.launch_s for each in pair] for pair in times]
    assert works[0][1] == pytest.approx(share * works[0][0])
    assert works[1][1] == works[1][0]
    assert works[2][1] == works[2][0]
