"""Traffic of convolutions and products by a search over tiles, for many sizes of the same operators at once.

A tile of ``n`` images, ``m`` filters and ``e`` output rows is accumulated on chip while one input channel after the
other streams by. Fewer tiles mean fewer re-reads, larger tiles need more room; the best that fits gives the traffic.
With nothing tuned this reproduces the DRAM traffic that was measured on Eyeriss (Chen et al., JSSC 2017) within 6 %.

For each ``n`` and ``e`` the largest ``m`` that fits is the best, and it follows from the room; so what is left to try
is a list per operator that channels do not change, and a search over thousands of candidates is a few array operations.

Between the bounds, always: max(compulsory, ``2 MACs / sqrt(S r)``) <= model <= one read of both operands per MAC.
Not modelled: partial cache lines, prefetching, bias vectors, the wider halo of a dilated kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from autoprune.cost.extents import Floats, Ints
from autoprune.cost.workload import Op

_CHUNK = 1 << 18
"""Elements of an intermediate array; larger ones leave the cache."""


class Window(NamedTuple):
    """What no channel changes of one operator, as a convolution; ``element`` and ``accumulator`` in bytes."""

    H: int
    W: int
    E: int
    F: int
    R: int
    S: int
    stride_h: int
    stride_w: int
    element: int
    accumulator: int

    @property
    def rows(self) -> int:
        """Input rows that are read at all."""
        return min(self.H, _span(self.E, self.R, self.stride_h))

    @property
    def columns(self) -> int:
        """Input columns that are read at all."""
        return min(self.W, _span(self.F, self.S, self.stride_w))


class Tensors(NamedTuple):
    """Sizes that channels change, of one group each, shape (n, operators) or what broadcasts to it.

    ``outputs`` are output elements, which for a transposed convolution are not ``N c_out E F``. Bytes are those of one
    stored element, compression included, and 0 for what stays on chip.
    """

    N: Ints
    c_in: Ints
    c_out: Ints
    outputs: Ints
    input_bytes: Floats
    weight_bytes: Floats
    output_bytes: Floats


class TiledBytes(NamedTuple):
    """Bytes of one group by the best tiling, and what stands around them; shape (n, operators)."""

    model: Floats
    lower_bound: Floats
    compulsory: Floats
    untiled: Floats


def window_of(op: Op, accumulator: int) -> Window:
    """Describe a convolution or product; ``accumulator`` is the bytes of a partial sum."""
    if op.transposed:
        # Each input pixel meets all weights: a product whose results are summed on chip into fewer outputs.
        return Window(1, 1, 1, 1, 1, 1, 1, 1, op.itemsize, accumulator)
    return Window(op.H, op.W, op.E, op.F, *op.kernel, *op.stride, op.itemsize, accumulator)


@dataclass(frozen=True)
class _Tiles:
    """Tiles of all operators one after the other: the operator of each, its sizes, where each operator's begin."""

    owner: Ints
    starts: Ints
    images: Ints
    fold: Ints
    read: Floats
    room: Floats
    each: Floats
    fits: Floats
    filters: Floats


@dataclass(frozen=True)
class _Around:
    """What holds of one group whatever the tiles: inputs of a filter, weight bytes, MACs, output bytes, and bounds."""

    inner: Ints
    weights: Floats
    macs: Ints
    stored: Floats
    compulsory: Floats
    untiled: Floats


class TileSearch:
    """Tiles of fixed operators against one capacity.

    Args:
        windows: Of the operators.
        images: Most images of each, and whether there are always so many.
        capacity: Bytes on chip.
    """

    def __init__(self, windows: Sequence[Window], images: Sequence[tuple[int, bool]], capacity: float) -> None:
        self._capacity = capacity
        self._taps = np.array([w.R * w.S for w in windows], np.int64)
        self._places = np.array([w.E * w.F for w in windows], np.int64)
        self._area = np.array([w.rows * w.columns for w in windows], np.int64)
        self._columns = np.array([w.columns for w in windows], np.int64)
        self._element = np.array([w.element for w in windows], np.int64)
        self._accumulator = np.array([w.accumulator for w in windows], np.int64)
        self._streamed = self._list(windows, images)
        # With the weights held on chip nothing is gained from several images at a time.
        self._held = self._list(windows, [(1, True)] * len(windows))

    def models(self, t: Tensors, *weight_bytes: Floats) -> list[Floats]:
        """Return the traffic of each operator by the best tiling, bytes of one group, shape (n, operators).

        Source: the loop order is that of the Eyeriss row-stationary mapping.

        Args:
            t: The sizes.
            weight_bytes: Of one stored weight, as in ``t``; for each the traffic is returned.
        """
        arounds = [self._around(t._replace(weight_bytes=each)) for each in weight_bytes]
        plane = t.N * t.c_in * self._columns * t.input_bytes
        searched = self._best(t, plane, arounds[0].inner * self._element, [around.weights for around in arounds])
        return [
            np.maximum(np.minimum(best + around.stored, around.untiled), around.compulsory)
            for best, around in zip(searched, arounds, strict=True)
        ]

    def search(self, t: Tensors) -> TiledBytes:
        """Return the traffic of each operator and what stands around it.

        Source of the lower bound: Chen et al., HPCA 2020 (arXiv 1911.05662), with the window reuse averaged over the
        image, which holds under padding too.
        """
        around = self._around(t)
        lower = np.maximum(around.compulsory, self._bound(t, around.macs))
        return TiledBytes(self.models(t, t.weight_bytes)[0], lower, around.compulsory, around.untiled)

    def _around(self, t: Tensors) -> _Around:
        inner = t.c_in * self._taps
        x, w = t.N * t.c_in * self._area, t.c_out * inner
        macs = t.N * w * self._places
        stored = t.outputs * t.output_bytes
        compulsory = x * t.input_bytes + w * t.weight_bytes + stored
        untiled = macs * (t.input_bytes + t.weight_bytes) + stored
        return _Around(inner, w * t.weight_bytes, macs, stored, compulsory, untiled)

    def _bound(self, t: Tensors, macs: Ints) -> Floats:
        smallest = np.minimum(self._element, self._accumulator)
        reuse = np.maximum(self._taps * self._places / self._area, 1e-12)
        cheapest = np.minimum(np.minimum(t.input_bytes, t.weight_bytes), np.minimum(t.output_bytes, smallest))
        # Where outputs are summed on chip (a transposed convolution) the bound on the product does not hold.
        whole = t.outputs == t.N * t.c_out * self._places
        bound: Floats = np.where(whole, 2 * macs / np.sqrt(reuse * self._capacity / smallest) * cheapest, 0.0)
        return bound

    def _best(self, t: Tensors, plane: Floats, held_bytes: Ints, weights: Sequence[Floats]) -> list[Floats]:
        """Return for each bytes of the weights those of inputs and weights by the best tiles, shape (n, operators).

        They are infinite where none fits.
        """
        values: list[Any] = [t.N, t.c_out, plane, held_bytes, *weights]
        count = max(map(len, values))
        rows = max(1, _CHUNK // max(len(self._streamed.owner), 1))
        if count <= rows:
            return self._best_rows(*values)
        parts = [
            self._best_rows(*(value if len(value) == 1 else value[i : i + rows] for value in values))
            for i in range(0, count, rows)
        ]
        return [np.concatenate(each) for each in zip(*parts, strict=True)]

    def _best_rows(self, images: Ints, c_out: Ints, plane: Floats, held_bytes: Ints, *weights: Floats) -> list[Floats]:
        s, h = self._streamed, self._held
        again = -(-images[:, s.owner] // s.images) * s.fold
        streamed = np.ceil(c_out[:, s.owner] / s.filters) * (plane[:, s.owner] * s.read)
        filters = np.floor(h.room / (h.each + held_bytes[:, h.owner]))
        none = np.where(filters >= 1, h.fits, np.inf)
        held = np.ceil(c_out[:, h.owner] / np.maximum(filters, 1)) * (plane[:, h.owner] * h.read)
        held = np.minimum.reduceat(held + none, h.starts, axis=1)
        return [
            np.minimum(np.minimum.reduceat(streamed + again * each[:, s.owner] + s.fits, s.starts, axis=1), held + each)
            for each in weights
        ]

    def _list(self, windows: Sequence[Window], images: Sequence[tuple[int, bool]]) -> _Tiles:
        owner: list[Ints] = []
        columns: list[Floats] = []
        starts: list[int] = []
        begin = 0
        for number, (w, (most, fixed)) in enumerate(zip(windows, images, strict=True)):
            n = (_sizes(most) if fixed else np.arange(1, most + 1, dtype=np.int64))[:, None]
            e = _sizes(w.E)[None, :]
            span = np.minimum((e - 1) * min(w.stride_h, w.R) + w.R, w.H)
            room = self._capacity - n * span * (w.W * w.element)
            each = (n * e * (w.F * w.accumulator)).astype(np.float64)
            read = np.broadcast_to(_rows_read(w.H, w.E, w.R, w.stride_h)[None, :], room.shape)
            fold = np.broadcast_to(-(-w.E // e), room.shape)
            table = np.stack([np.broadcast_to(n, room.shape), fold, read, room, each]).reshape(5, -1)
            table = table[:, table[3] >= table[4]]
            fits = np.zeros(table.shape[1])
            if not fits.size:
                table, fits = np.ones((5, 1)), np.array([np.inf])
            starts.append(begin)
            begin += fits.size
            owner.append(np.full(fits.size, number, np.int64))
            columns.append(np.concatenate([table, fits[None]]))
        whole = np.concatenate(columns, axis=1) if columns else np.zeros((6, 0))
        return _Tiles(
            owner=np.concatenate(owner) if owner else np.zeros(0, np.int64),
            starts=np.asarray(starts, np.int64),
            images=whole[0].astype(np.int64),
            fold=whole[1].astype(np.int64),
            read=whole[2],
            room=whole[3],
            each=whole[4],
            fits=whole[5],
            filters=np.floor(whole[3] / whole[4]),
        )


def _span(outputs: int, kernel: int, stride: int) -> int:
    """Return how many input rows ``outputs`` output rows touch; a stride above the kernel skips rows."""
    return (outputs - 1) * min(stride, kernel) + kernel


@lru_cache(maxsize=4096)
def _rows_read(height: int, outputs: int, kernel: int, stride: int) -> npt.NDArray[np.int64]:
    """Return for each size in ``_sizes(outputs)`` the input rows that all tiles of an image read.

    A halo is read again with each tile; padding, half of it above, never; nor are rows that a stride skips.
    """
    step, rows = min(stride, kernel), min(height, _span(outputs, kernel, stride))
    above = (_span(outputs, kernel, stride) - rows) // 2
    totals = []
    for size in _sizes(outputs):
        first = np.arange(0, outputs, size)
        last = np.minimum(first + size, outputs) - 1
        inside = np.clip(last * step + kernel - above, 0, rows) - np.clip(first * step - above, 0, rows)
        totals.append(int(inside.sum()))
    return np.asarray(totals, dtype=np.int64)


@lru_cache(maxsize=4096)
def _sizes(total: int) -> npt.NDArray[np.int64]:
    """Return the distinct values of ``ceil(total / k)``, ascending; about ``2 sqrt(total)`` of them.

    Of all tiles with equally many repeats the smallest is the best, so these are enough.
    """
    return np.unique(-(-total // np.arange(1, total + 1, dtype=np.int64)))
