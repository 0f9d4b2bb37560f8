"""Which zeros pay: a pattern saves MACs, bytes or time only where the device profile lists it.

Everywhere else a masked weight is read, multiplied and written like any other, and only the file gets smaller.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.cost.extents import Floats, Ints
from autoprune.cost.table import DENSE, OpTable
from autoprune.spec.config import n_of_m
from autoprune.spec.hardware import DeviceProfile, Format, SparseSupport

# Index width of compressed rows: enough for 65536 inputs of one output channel.
_INDEX_BITS = 16
_POINTER_BITS = 32
# Which of 8 patterns a kernel takes.
_PATTERN_BITS = 3


@dataclass(frozen=True)
class Savings:
    """What the zeros of one weight save on one device.

    Attributes:
        weight_factor: Stored bits over dense bits, at most 1.
        effective_macs: Multiply-adds that are executed.
        speedup: Dense time over sparse time.
        support: The profile's entry, None where nothing pays.
    """

    weight_factor: float
    effective_macs: float
    speedup: float
    support: SparseSupport | None


@dataclass(frozen=True)
class SavingsTable:
    """:class:`Savings` of many operators, shape (n, ops); ``support`` numbers the profile's entries, -1 for none."""

    weight_factor: Floats
    effective_macs: Floats
    speedup: Floats
    support: Ints

    def at(self, row: int, op: int, profile: DeviceProfile) -> Savings:
        """Return those of one operator of one version."""
        entry = int(self.support[row, op])
        return Savings(
            float(self.weight_factor[row, op]),
            float(self.effective_macs[row, op]),
            float(self.speedup[row, op]),
            profile.sparse_support[entry] if entry >= 0 else None,
        )


def savings_of(table: OpTable, profile: DeviceProfile, runtime: str | None = None) -> SavingsTable:
    """Return what the zeros in the weights save.

    Args:
        table: Operators, with patterns and densities.
        profile: The device.
        runtime: Only entries of this runtime count; None: of any.
    """
    shape = np.broadcast_shapes(table.pattern.shape, table.macs.shape)
    factor, speedup = np.ones(shape), np.ones(shape)
    macs = np.broadcast_to(table.macs, shape).astype(np.float64)
    support = np.full(shape, -1, np.int64)
    masked = (table.pattern != DENSE) & (table.density < 1)
    for number, entry in enumerate(profile.sparse_support) if masked.any() else ():
        if runtime not in (None, entry.runtime) or entry.pattern not in table.patterns:
            continue
        listed = masked & (table.pattern == table.patterns.index(entry.pattern)) & (support < 0) & _fits(table, entry)
        if not listed.any():
            continue
        bits = np.array([8 * op.itemsize for op in table.ops])
        row, taps = _row(table), np.array([op.kernel[0] * op.kernel[1] for op in table.ops])
        stored = format_factor(entry.format, table.density, bits, entry.pattern, row, table.c_out, taps)
        factor = np.where(listed, stored, factor)
        speedup = np.where(listed, entry.speedup.value, speedup)
        macs = np.where(listed, table.macs * table.density, macs)
        support = np.where(listed, number, support)
    return SavingsTable(factor, macs, speedup, support)


def _row(table: OpTable) -> Ints:
    """Return the inputs of one output channel, kernel places included."""
    taps = np.array([op.kernel[0] * op.kernel[1] for op in table.ops], np.int64)
    row: Ints = table.c_in // table.groups * taps
    return row


def _fits(table: OpTable, entry: SparseSupport) -> NDArray[np.bool_]:
    kinds = {"conv": "conv", "gemm": "linear"}
    op_fits = np.array(
        [
            op.weight_name is not None
            and not op.transposed
            and kinds.get(op.kind) in entry.ops
            and op.dtype in entry.dtypes
            and (entry.max_kernel is None or max(op.kernel) <= entry.max_kernel)
            for op in table.ops
        ],
        np.bool_,
    )
    large = (table.c_out >= entry.min_rows) & (_row(table) >= entry.min_cols)
    fits: NDArray[np.bool_] = op_fits & large & (1 - table.density >= entry.min_sparsity)
    return fits


def format_factor(
    form: Format, density: Any, bits: Any, pattern: str = "", row: Any = 1, rows: Any = 1, taps: Any = 1
) -> Any:
    """Return stored bits over dense bits, at most 1: a format that does not pay is not used.

    Sources: bitmask, compressed rows and blocks by counting bits; N:M as cuSPARSELt stores it, packed values with
    ``ceil(log2 M)``-bit indices; kernel patterns as PatDNN (arXiv 2001.00138) does, a pattern's number beside each
    kernel; run length as Eyeriss (JSSC 2017) stores activations, three values in 64 bit.

    Args:
        form: How the non-zeros are stored.
        density: Share of non-zeros; a number or an array, as all that follows.
        bits: Width of a value.
        pattern: Granularity: "N:M" for that format, "block:RxC" for blocks, "row" or "column" for ``compact``.
        row: Elements in one row, which shares one pointer (compressed rows).
        rows: Rows of the 2-D weight.
        taps: Elements of one kernel.
    """
    if form == "n:m":
        kept, of = n_of_m(pattern)
        factor = kept / of * (1 + ceil(log2(of)) / bits)
    elif form == "bitmask":
        factor = density + 1 / bits
    elif form == "csr":
        factor = density * (1 + _INDEX_BITS / bits) + _POINTER_BITS / (row * bits)
    elif form == "bsr":
        high, wide = (int(side) for side in pattern.partition(":")[2].split("x"))
        factor = density * (1 + _INDEX_BITS / (high * wide * bits)) + _POINTER_BITS / (row * high * bits)
    elif form == "compact":  # whole rows or columns, with their numbers
        factor = density * (1 + _INDEX_BITS / ((row if pattern == "row" else rows) * bits))
    elif form == "kernel":
        factor = density * (1 + _INDEX_BITS / (taps * bits)) + _POINTER_BITS / (row * bits)
    elif form == "pattern":  # four of nine values stay of a kernel that stays
        left = np.minimum(1.0, density * 9 / 4)
        factor = density + left * (_PATTERN_BITS + _INDEX_BITS) / (9 * bits) + _POINTER_BITS / (row * bits)
    else:
        factor = density * 64 / (3 * bits)
    return np.minimum(1.0, factor) if np.ndim(factor) else min(1.0, factor)
