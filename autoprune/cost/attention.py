"""Traffic of scaled dot-product attention, for many versions of the same operators at once.

A fused kernel never stores the scores (FlashAttention, arXiv 2205.14135). Per head it keeps one of two things on chip:

* a block of queries, each with its sums, its maximum and its norm; all keys and values stream by once per block; or
* a block of keys and values; all queries stream by once per block, and their sums come and go with them.

For each the largest block that fits is the best, and the better of the two gives the traffic. Heads that share keys and
values (grouped queries) count as one head with the queries of all. A causal mask counts as if nothing were masked: what
a kernel leaves out shortens its time (:mod:`autoprune.cost.savings`), and would at best halve the passes over the keys.

A runtime without such a kernel makes the scores, their softmax, and the result one after the other: two products with
the tiles of :mod:`autoprune.cost.tiling`, and the scores go to memory four times unless they fit beside what lives.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.cost.extents import Floats, Ints
from autoprune.cost.table import OpTable
from autoprune.cost.tiling import Tensors, TileSearch, Window
from autoprune.cost.workload import Op
from autoprune.spec.hardware import DeviceProfile


class Attention:
    """Attention operators of one network on one device.

    Args:
        table: Operators of any version.
        profile: The device; ``runtime.attention`` says whether it has a fused kernel.
        most_queries: Most queries of each operator in any version, where they vary: shape (ops,).

    Attributes:
        at: Which operators they are, by number.
        fused: Whether the scores never leave the kernel.
    """

    def __init__(self, table: OpTable, profile: DeviceProfile, most_queries: Ints | None = None) -> None:
        self.at = np.flatnonzero(table.traits.of_kind("attention"))
        self.fused = profile.runtime.attention == "fused"
        self._element = table.traits.itemsize[self.at]
        self._accumulator = profile.compute.accumulator_bytes
        self._sharing = np.array([_sharing(table.ops[n]) for n in self.at.tolist()], np.int64)
        self._searches: list[TileSearch] = []
        if not self.fused:
            windows = [Window(1, 1, 1, 1, 1, 1, 1, 1, each, self._accumulator) for each in self._element.tolist()]
            rows = []
            for number in self.at.tolist():
                varies = most_queries is not None and bool(most_queries[number])
                most = most_queries[number] if varies and most_queries is not None else table.N[0, number]
                rows.append((int(most), not varies))
            self._searches = [TileSearch(windows, rows, level.effective_bytes) for level in profile.memory[:-1]]

    def score_bytes(self, table: OpTable) -> Ints:
        """Return the bytes of scores, and of their softmax, that live beside the activations; shape (n, ops)."""
        held = np.zeros((max(len(table.N), len(table.groups), len(table.E)), len(table.ops)), np.int64)
        if not self.fused:
            held[:, self.at] = 2 * self._scores(table)
        return held

    def again(self, table: OpTable, capacity: float) -> Floats:
        """Return what a fused kernel moves beyond each tensor once, bytes, shape (n, attention operators).

        Infinite where not even one query and one key fit.
        """
        b, at = self._element, self.at
        heads = np.maximum(table.groups[:, at] // self._sharing, 1)
        queries, keys = table.N[:, at] * self._sharing, table.E[:, at]
        d_k, d_v = table.c_in[:, at] // table.groups[:, at], table.c_out[:, at] // table.groups[:, at]
        query, pair, state = d_k * b, (d_k + d_v) * b, (d_v + 2) * self._accumulator
        room = capacity - self._accumulator  # of one score
        by_query = _passes(queries, (room - pair) // (query + state)) * keys * pair
        by_key = _passes(keys, (room - query - state) // pair) * queries * (query + 2 * state)
        extra: Floats = heads * np.minimum(by_query, by_key)
        return extra

    def by_products(self, table: OpTable, level: int) -> Floats:
        """Return what making scores, softmax and result in turn moves over an edge, shape (n, attention operators)."""
        at, groups = self.at, table.groups[:, self.at]
        b = self._element.astype(np.float64)[None]
        n, e = table.N[:, at], table.E[:, at]
        d_k, d_v = table.c_in[:, at] // groups, table.c_out[:, at] // groups
        scores = Tensors(n, d_k, e, n * e, b, b, b)
        result = Tensors(n, e, d_v, n * d_v, b, b, b)
        search = self._searches[level]
        moved: Floats = groups * (search.models(scores, b)[0] + search.models(result, b)[0])
        return moved + 2.0 * self._scores(table)

    def untiled(self, table: OpTable) -> Floats:
        """Return both operands of every multiply-add, and scores where they are stored; shape (n, attention ops)."""
        untiled = (2 * table.macs[:, self.at] * self._element).astype(np.float64)
        if not self.fused:
            untiled = untiled + 3.0 * self._scores(table)
        return untiled

    def _scores(self, table: OpTable) -> Ints:
        at = self.at
        scores: Ints = table.groups[:, at] * table.N[:, at] * table.E[:, at] * self._element
        return scores


def _passes(total: Ints, block: NDArray[Any]) -> Floats:
    """Return how often the other side comes again; infinite where no block fits."""
    again: Floats = np.where(block >= 1, np.ceil(total / np.maximum(block, 1)) - 1.0, np.inf)
    return again


def _sharing(op: Op) -> int:
    """Return how many heads of queries share one head of keys and values."""
    if len(op.operands) < 3 or len(op.operands[1].shape) < 2:
        return 1
    return max(op.groups // max(prod(op.operands[1].shape[:-2]), 1), 1)
