"""Bytes that many versions of one network move over each memory level: the arrays behind ``cost.traffic``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.cost.dataflow import dataflow_of
from autoprune.cost.extents import Floats, Ints
from autoprune.cost.savings import SavingsTable, format_factor, savings_of
from autoprune.cost.table import OpTable, kind_mask
from autoprune.cost.tiling import Tensors, TiledBytes, TileSearch, window_of
from autoprune.cost.workload import Workload
from autoprune.spec.hardware import DeviceProfile


@dataclass(frozen=True)
class Moved:
    """Bytes of ``n`` versions.

    Attributes:
        level_bytes: Over the inner edge of each memory level but the innermost, shape (n, ops, levels - 1).
        dense_level_bytes: The same with the zeros stored and read.
        live: Bytes of all activations that exist while an operator runs, shape (n, ops).
        savings: What zeros save.
        fused: Which operators run inside an earlier one, shape (ops,).
        lower_bound: Bytes over the last edge that no tiling can avoid, given what is resident; shape (n, ops).
        compulsory: Each tensor once, resident or not.
        untiled: Both operands of every MAC.
    """

    level_bytes: Floats
    dense_level_bytes: Floats
    live: Floats
    savings: SavingsTable
    fused: NDArray[np.bool_]
    lower_bound: Floats
    compulsory: Floats
    untiled: Floats


@dataclass(frozen=True)
class _Shares:
    """Which part of an operator's tensors crosses an edge, each (n, ops) or (1, ops)."""

    paid_in: Floats
    read: Floats
    paid_out: Floats
    written: Floats


class TrafficModel:
    """Traffic on one device of versions of a network that run the same operators.

    Args:
        table: Operators of any version; sizes that channels never change are taken from it.
        profile: The device.
        runtime: Only its entries of ``sparse_support`` count; None: those of any runtime.
        warm: Whether weights that fit beside the activations stay from the run before.
        most_images: Most images, or rows, that each operator may see in any version, where they vary: shape (ops,).
    """

    def __init__(
        self,
        table: OpTable,
        profile: DeviceProfile,
        runtime: str | None = None,
        warm: bool = False,
        most_images: Ints | None = None,
    ) -> None:
        self._profile, self._runtime, self._warm = profile, runtime, warm
        self._ops = ops = table.ops
        sizes = tuple(table.tensor_bytes[0].tolist())
        flow = dataflow_of(Workload(ops, table.batch, table.dtype, sizes, table.outputs), profile.runtime.fusion)
        self.fused = np.array([step in flow.fused for step in range(len(ops))], np.bool_)
        self._activation = np.array([value.activation for value in flow.values], np.int64)
        internal = np.array([n in flow.internal for n in range(len(flow.values))], np.bool_)
        self._outside = ~internal
        self._leaves = np.array([value.leaves for value in flow.values], np.bool_)
        self._first = np.array([max(value.writer, 0) for value in flow.values], np.int64)
        self._last = np.array([value.last for value in flow.values], np.int64)
        self._reads, self._enters, self._writes, self._alive = (
            np.zeros((len(flow.values), len(ops))) for _ in range(4)
        )
        for step in range(len(ops)):
            for read in flow.reads[step]:
                self._reads[read, step] += 1
                # What is resident costs nothing, but an input of the network arrives once.
                self._enters[read, step] += flow.values[read].writer < 0 and step == flow.values[read].readers[0]
            self._writes[list(flow.writes[step]), step] = 1
        for number, value in enumerate(flow.values):
            if value.last >= 0 and not internal[number]:
                self._alive[number, max(value.writer, 0) : value.last + 1] = 1
        self._reads_any = np.array([bool(op.reads) for op in ops], np.bool_)
        self._writes_any = np.array([bool(op.writes) for op in ops], np.bool_)
        self._tiled = np.flatnonzero(kind_mask(ops, "conv", "gemm"))
        self._attention, self._recurrent = kind_mask(ops, "attention"), kind_mask(ops, "recurrent")
        self._searches = [self._search(table, level.effective_bytes, most_images) for level in profile.memory[:-1]]
        self._itemsize = np.array([op.itemsize for op in ops], np.int64)
        self._packed_in, self._packed_out = (self._packed(name) for name in ("input_density", "output_density"))

    def moved(self, table: OpTable, bounds: bool = False) -> Moved:
        """Return the traffic of all versions in ``table``.

        Args:
            table: Versions that run the operators that this was made for.
            bounds: Whether the bounds are wanted too; else they are those of the tiled operators only.
        """
        savings = savings_of(table, self._profile, self._runtime)
        values = table.tensor_bytes[:, self._activation].astype(np.float64)
        live = values @ self._alive
        levels, dense_levels, last = [], [], None
        for level, search in zip(self._profile.memory[:-1], self._searches, strict=True):
            last, dense = self._over_edge(table, values, live, savings, level.effective_bytes, search)
            levels.append(last.model)
            dense_levels.append(dense)
        assert last is not None
        n = max(len(each) for each in (live, *levels))
        return Moved(
            level_bytes=_stacked(levels, n),
            dense_level_bytes=_stacked(dense_levels, n),
            live=live,
            savings=savings,
            fused=self.fused,
            lower_bound=last.lower_bound,
            compulsory=last.compulsory,
            untiled=last.untiled,
        )

    def _over_edge(
        self,
        table: OpTable,
        values: Floats,
        live: Floats,
        savings: SavingsTable,
        capacity: float,
        search: Callable[[Tensors], TiledBytes],
    ) -> tuple[TiledBytes, Floats]:
        """Return the bytes over one edge, and those with the weights' zeros stored; shape (n, ops)."""
        shares = self._shares(values, live, capacity)
        kept = np.zeros((1, 1), np.bool_)
        if self._warm:
            kept = table.weight_bytes.sum(axis=1, keepdims=True) + live.max(axis=1, keepdims=True) <= capacity
        # A norm inside a fused operator is folded into the weights before it.
        weights = np.where(kept | self.fused, 0.0, 1.0)
        other, dense = self._plain(table, live, shares, weights, capacity)
        if not self._tiled.size:
            return other, dense
        tiled, tiled_dense = self._tiled_ops(table, live, shares, weights, savings, capacity, search)
        merged = [_placed(whole, part, self._tiled) for whole, part in zip(other, tiled, strict=True)]
        return TiledBytes(*merged), _placed(dense, tiled_dense, self._tiled)

    def _shares(self, values: Floats, live: Floats, capacity: float) -> _Shares:
        """Find what is resident: values beside which all that lives fits, from first write to last read."""
        full = np.zeros((len(live), live.shape[1] + 1))
        np.cumsum(live > capacity, axis=1, out=full[:, 1:])
        resident = (full[:, self._last + 1] == full[:, self._first]) & (self._last >= 0)
        outside = values * self._outside
        total = values @ self._reads
        paid = np.where(resident, 0.0, outside) @ self._reads + np.where(resident, outside, 0.0) @ self._enters
        nothing = np.where(self._reads_any, 0.0, 1.0)
        known = total > 0
        safe = np.where(known, total, 1.0)
        written = (self._outside.astype(np.float64) @ self._writes > 0) | ~self._writes_any
        leaves = (self._outside & (~resident | self._leaves)).astype(np.float64) @ self._writes > 0
        return _Shares(
            paid_in=np.where(known, paid / safe, nothing),
            read=np.where(known, (outside @ self._reads) / safe, nothing),
            paid_out=(leaves | ~self._writes_any).astype(np.float64),
            written=written.astype(np.float64)[None],
        )

    def _plain(
        self, table: OpTable, live: Floats, shares: _Shares, weights: Floats, capacity: float
    ) -> tuple[TiledBytes, Floats]:
        """Return the bytes of operators that read and write once; attention and recurrence read again what must be."""
        inputs, outputs = table.input_bytes * self._packed_in, table.output_bytes * self._packed_out
        once = inputs * shares.read + outputs * shares.written + table.weight_bytes * ~self.fused
        model = inputs * shares.paid_in + outputs * shares.paid_out + table.weight_bytes * weights
        lower, untiled = model, once
        if self._attention.any():
            untiled = untiled + np.where(self._attention, 2.0 * table.macs * self._itemsize, 0.0)
            again = np.where(live > capacity, self._attention_again(table, capacity), 0.0)
            model = np.where(self._attention, np.minimum(model + again, untiled), model)
        if self._recurrent.any():
            # Each step reads all weights; where they do not fit beside the activations they come again each time.
            again = np.where(table.weight_bytes + live > capacity, (table.E - 1.0) * table.weight_bytes, 0.0)
            untiled = untiled + np.where(self._recurrent, 2.0 * table.macs * self._itemsize, 0.0)
            model = np.where(self._recurrent, np.minimum(model + again, untiled), model)
        model, lower, once, untiled = np.broadcast_arrays(model, lower, once, untiled)
        return TiledBytes(model, lower, once, untiled), model

    def _attention_again(self, table: OpTable, capacity: float) -> Floats:
        """Return extra bytes of keys and values, read once per block of queries (FlashAttention, arXiv 2205.14135)."""
        d_k, d_v = table.c_in // table.groups, table.c_out // table.groups
        accumulator = self._profile.compute.accumulator_bytes
        block = np.maximum(1, np.floor(capacity / (d_k * self._itemsize + (d_v + 2) * accumulator)))
        passes = np.ceil(table.N / block)
        again: Floats = (passes - 1.0) * (table.groups * table.E * (d_k + d_v) * self._itemsize)
        return again

    def _tiled_ops(
        self,
        table: OpTable,
        live: Floats,
        shares: _Shares,
        weights: Floats,
        savings: SavingsTable,
        capacity: float,
        search: Callable[[Tensors], TiledBytes],
    ) -> tuple[TiledBytes, Floats]:
        """Return the bytes of convolutions and products, by tiles where not everything fits; shape (n, tiled)."""
        at = self._tiled
        b = self._itemsize[at].astype(np.float64)
        factor = savings.weight_factor[:, at]
        groups = table.groups[:, at]
        packed_in, packed_out = b * self._packed_in[at], b * self._packed_out[at]
        tensors = self._tensors(table, b)._replace(
            input_bytes=packed_in * (shares.read[:, at] > 0),
            weight_bytes=b * factor,
            output_bytes=packed_out * shares.written[:, at],
        )
        once = TiledBytes(*(groups * part for part in search(tensors)))
        dense = once.model
        if (savings.support[:, at] >= 0).any():
            dense = groups * search(tensors._replace(weight_bytes=np.broadcast_to(b, (1, len(at))))).model
        fits = (live[:, at] <= capacity) & (self._reads_any | self._writes_any)[at]
        if not fits.any():
            return once, dense
        # Everything lives side by side, so nothing is read twice; what is resident is not even read once.
        plain = groups * tensors.N * tensors.c_in * self._area[at]
        w = groups * tensors.c_out * tensors.c_in * self._taps[at] * b
        rest = plain * packed_in * shares.paid_in[:, at]
        rest = rest + groups * tensors.outputs * packed_out * shares.paid_out[:, at]
        model = rest + w * factor * weights[:, at]
        return (
            TiledBytes(
                np.where(fits, model, once.model),
                np.where(fits, model, once.lower_bound),
                once.compulsory,
                np.where(fits, np.maximum(once.untiled, model), once.untiled),
            ),
            np.where(fits, rest + w * weights[:, at], dense),
        )

    def _tensors(self, table: OpTable, b: Floats) -> Tensors:
        """Return the sizes of one group of each tiled operator; a transposed convolution is a product (see tiling)."""
        at = self._tiled
        groups = table.groups[:, at]
        images, c_in, c_out = table.N[:, at], table.c_in[:, at] // groups, table.c_out[:, at] // groups
        outputs = images * c_out * table.E[:, at] * table.F[:, at]
        transposed = self._transposed[at]
        if transposed.any():
            images = np.where(transposed, images * table.H[:, at] * table.W[:, at], images)
            c_out = np.where(transposed, c_out * self._kernel[at], c_out)
        one = b[None]
        return Tensors(images, c_in, c_out, outputs, one, one, one)

    def _search(self, table: OpTable, capacity: float, most_images: Ints | None) -> Callable[[Tensors], TiledBytes]:
        windows, images = [], []
        self._transposed = np.array([op.transposed for op in self._ops], np.bool_)
        self._kernel = np.array([op.kernel[0] * op.kernel[1] for op in self._ops], np.int64)
        self._area, self._taps = np.ones((2, len(self._ops)), np.int64)
        accumulator = self._profile.compute.accumulator_bytes
        for number in self._tiled.tolist():
            sizes: dict[str, Any] = {n: int(getattr(table, n)[0, number]) for n in ("N", "H", "W", "E", "F")}
            op = replace(self._ops[number], **sizes)
            window = window_of(op, accumulator)
            windows.append(window)
            self._area[number], self._taps[number] = window.rows * window.columns, window.R * window.S
            fold = op.H * op.W if op.transposed else 1
            varies = most_images is not None and most_images[number] > 0
            most = int(most_images[number]) if varies and most_images is not None else op.N
            images.append((most * fold, not varies))
        return TileSearch(windows, images, capacity).search

    def _packed(self, which: str) -> Floats:
        """Return stored over raw bits of activations, on a chip that compresses them."""
        form = self._profile.runtime.activation_format
        if form is None:
            return np.ones(len(self._ops))
        return np.array([format_factor(form, getattr(op, which), 8 * op.itemsize) for op in self._ops])


def _placed(whole: Floats, part: Floats, at: Ints) -> Floats:
    """Return ``whole`` with columns ``at`` replaced."""
    rows = max(len(whole), len(part))
    filled = np.array(np.broadcast_to(whole, (rows, whole.shape[1])))
    filled[:, at] = part
    return filled


def _stacked(levels: list[Floats], rows: int) -> Floats:
    return np.stack([np.broadcast_to(level, (rows, level.shape[1])) for level in levels], axis=2)
