"""Traffic of one operator by a search over tiles.

A tile of ``n`` images, ``m`` filters and ``e`` output rows is accumulated on chip while one input channel after the
other streams by. Fewer tiles mean fewer re-reads, larger tiles need more room; the best that fits gives the traffic.
With nothing tuned this reproduces the DRAM traffic that was measured on Eyeriss (Chen et al., JSSC 2017) within 6 %.

Between the bounds, always: max(compulsory, ``2 MACs / sqrt(S r)``) <= model <= one read of both operands per MAC.
Not modelled: partial cache lines, prefetching, bias vectors, the wider halo of a dilated kernel.
"""

from __future__ import annotations

from functools import lru_cache
from math import sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from autoprune.cost.workload import Op


class Tiles(NamedTuple):
    """What the tile search needs to know of one operator; hashable, so equal layers are searched once.

    ``outputs`` is the number of output elements, which for a transposed convolution is not ``N c_out E F``.
    Bytes are those of one stored element, compression included, and 0 for what stays on chip.
    """

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


class TiledBytes(NamedTuple):
    """Bytes by the best tiling, and what stands around them."""

    model: float
    lower_bound: float
    compulsory: float
    untiled: float


def tiles_of(op: Op, accumulator: int) -> Tiles:
    """Describe a convolution or product; ``accumulator`` is the bytes of a partial sum."""
    b = float(op.itemsize)
    outputs = op.N * op.c_out * op.E * op.F
    if op.transposed:
        # Each input pixel meets all weights: a product whose results are summed on chip into fewer outputs.
        taps = op.kernel[0] * op.kernel[1]
        return Tiles(
            *(op.N * op.H * op.W, op.c_in, op.c_out * taps, op.groups, 1, 1, 1, 1, 1, 1, 1, 1),
            *(outputs, b, b, b, op.itemsize, accumulator),
        )
    return Tiles(
        *(op.N, op.c_in, op.c_out, op.groups, op.H, op.W, op.E, op.F, *op.kernel, *op.stride),
        *(outputs, b, b, b, op.itemsize, accumulator),
    )


def _span(outputs: int, kernel: int, stride: int) -> int:
    """Return how many input rows ``outputs`` output rows touch; a stride above the kernel skips rows."""
    return (outputs - 1) * min(stride, kernel) + kernel


def compulsory_elements(t: Tiles) -> tuple[int, int, int]:
    """Return the elements of input, weight and output that must move at least once."""
    rows, columns = min(t.H, _span(t.E, t.R, t.stride_h)), min(t.W, _span(t.F, t.S, t.stride_w))
    return t.N * t.c_in * rows * columns, t.c_out * (t.c_in // t.groups) * t.R * t.S, t.outputs


@lru_cache(maxsize=8192)
def search_tiles(t: Tiles, capacity: float) -> TiledBytes:
    """Search the tiles of one operator against ``capacity`` bytes on chip.

    Sources: the loop order is that of the Eyeriss row-stationary mapping; the bound is Chen et al., HPCA 2020
    (arXiv 1911.05662), with the window reuse ``r`` averaged over the image, which holds under padding too.
    """
    c_in, c_out = t.c_in // t.groups, t.c_out // t.groups
    rows, columns = min(t.H, _span(t.E, t.R, t.stride_h)), min(t.W, _span(t.F, t.S, t.stride_w))
    macs = t.N * c_out * c_in * t.R * t.S * t.E * t.F  # of one group, as are all numbers up to the last line
    x, w, o = t.N * c_in * rows * columns, c_out * c_in * t.R * t.S, t.outputs / t.groups
    compulsory = x * t.input_bytes + w * t.weight_bytes + o * t.output_bytes
    untiled = macs * (t.input_bytes + t.weight_bytes) + o * t.output_bytes

    # Of all tiles with equally many repeats the smallest is the best, so the sizes ceil(total / k) are enough.
    n = _sizes(t.N)[:, None, None]
    m = _sizes(c_out)[None, :, None]
    e = _sizes(t.E)[None, None, :]
    span = (e - 1) * min(t.stride_h, t.R) + t.R
    read = _rows_read(t.H, t.E, t.R, t.stride_h)[None, None, :]
    room = n * m * e * t.F * t.accumulator_bytes + n * np.minimum(span, t.H) * t.W * t.element_bytes
    q_x = -(-c_out // m) * (t.N * c_in * columns * t.input_bytes) * read
    again = (-(-t.E // e)) * (-(-t.N // n)) * (w * t.weight_bytes)
    q_o = o * t.output_bytes
    streamed = np.where(room <= capacity, q_x + again, np.inf).min()
    held = np.where(room + m * (c_in * t.R * t.S * t.element_bytes) <= capacity, q_x + w * t.weight_bytes, np.inf).min()
    model = min(float(min(streamed, held)) + q_o, untiled)

    smallest = min(t.element_bytes, t.accumulator_bytes)
    elements = capacity / smallest
    reuse = max(t.R * t.S * t.E * t.F / (rows * columns), 1e-12)
    cheapest = min(t.input_bytes, t.weight_bytes, t.output_bytes, smallest)
    # Where outputs are summed on chip (a transposed convolution) the bound on the product does not hold.
    whole = t.outputs == t.N * t.c_out * t.E * t.F
    bound = 2 * macs / sqrt(reuse * elements) * cheapest if whole else 0.0
    lower = max(compulsory, bound)
    return TiledBytes(*(t.groups * q for q in (max(model, compulsory), lower, compulsory, untiled)))


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
    """Return the distinct values of ``ceil(total / k)``, ascending; about ``2 sqrt(total)`` of them."""
    return np.unique(-(-total // np.arange(1, total + 1, dtype=np.int64)))
