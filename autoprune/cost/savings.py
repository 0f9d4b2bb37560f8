"""Which zeros pay: a pattern saves MACs, bytes or time only where the device profile lists it.

Everywhere else a masked weight is read, multiplied and written like any other, and only the file gets smaller.

So it is with the zeros of a causal mask. A fused attention kernel leaves out whole blocks of keys, where the profile
says how large they are. Torch on a CPU takes 512 at a time (``kvSplitSize``, FlashAttentionKernel.cpp), and masked over
full attention took 1.03, 1.00, 0.77, 0.58 and 0.49 of the time at 128, 512, 1024, 2048 and 4096 positions (4 heads of
64, one thread of a Xeon, torch 2.13), where the blocks say 1, 1, 0.75, 0.63 and 0.56.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2
from typing import Any

import numpy as np

from autoprune.cost.extents import Floats, Ints
from autoprune.cost.table import DENSE, OpTable
from autoprune.cost.traits import OpTraits
from autoprune.cost.workload import Op
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
        support: The profile's entry, None where no zero of a weight pays.
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


class SavingsModel:
    """What zeros save on one device, for versions of a network that run the same operators.

    Args:
        traits: The operators.
        profile: The device.
        runtime: Only entries of this runtime count; None: of any.
    """

    def __init__(self, traits: OpTraits, profile: DeviceProfile, runtime: str | None = None) -> None:
        self._traits = traits
        self._block = _causal_block(profile, runtime)
        self._causal = np.flatnonzero([self._block is not None and op.causal for op in traits.ops])
        self._entries = [
            (number, entry, np.array([_covers(entry, op) for op in traits.ops], np.bool_))
            for number, entry in enumerate(profile.sparse_support)
            if runtime in (None, entry.runtime)
        ]

    def of(self, table: OpTable) -> SavingsTable:
        """Return the savings of every operator of every version in ``table``, with its patterns and densities."""
        shape = np.broadcast_shapes(table.pattern.shape, table.macs.shape)
        factor, speedup = np.ones(shape), np.ones(shape)
        macs = np.empty(shape)
        macs[:] = table.macs
        support = np.full(shape, -1, np.int64)
        masked = (table.pattern != DENSE) & (table.density < 1)
        if self._entries and masked.any():
            taps = self._traits.taps
            row = table.c_in // table.groups * taps  # inputs of one output channel, kernel places included
            for number, entry, covered in self._entries:
                if entry.pattern not in table.patterns:
                    continue
                listed = masked & (table.pattern == table.patterns.index(entry.pattern)) & (support < 0) & covered
                listed = listed & ((table.c_out >= entry.min_rows) & (row >= entry.min_cols))
                listed = listed & (1 - table.density >= entry.min_sparsity)
                if not listed.any():
                    continue
                bits = 8 * self._traits.itemsize
                stored = format_factor(entry.format, table.density, bits, entry.pattern, row, table.c_out, taps)
                factor = np.where(listed, stored, factor)
                speedup = np.where(listed, entry.speedup.value, speedup)
                macs = np.where(listed, table.macs * table.density, macs)
                support = np.where(listed, number, support)
        if self._causal.size and self._block is not None:
            made = scores_made(table.N[:, self._causal], table.E[:, self._causal], self._block)
            macs[:, self._causal] *= made
            speedup[:, self._causal] /= made
        return SavingsTable(factor, macs, speedup, support)


def scores_made(queries: Ints, keys: Ints, block: int) -> Floats:
    """Return the share of scores that a kernel makes under a causal mask: query ``i`` sees the keys up to ``i``.

    Args:
        queries: Of any shape.
        keys: Of the same shape.
        block: Keys that are taken together, or left out together where no query sees any of them.
    """
    pairs, which = np.unique(np.stack([queries.ravel(), keys.ravel()]), axis=1, return_inverse=True)
    shares = []
    for rows, columns in pairs.T.tolist():
        seen = np.minimum(-(-np.arange(1, rows + 1) // block) * block, columns)
        shares.append(float(seen.mean()) / columns)
    return np.array(shares)[which].reshape(queries.shape)


def _causal_block(profile: DeviceProfile, runtime: str | None) -> int | None:
    """Return the keys that are left out together, None where all scores are made: an ONNX file holds plain products."""
    traits = profile.runtime
    if traits.attention == "unfused" or traits.causal_block is None or runtime == "onnxruntime":
        return None
    return int(traits.causal_block.value)


def _covers(entry: SparseSupport, op: Op) -> bool:
    """Say whether an entry of the profile is for such an operator, whatever its sizes."""
    kind = {"conv": "conv", "gemm": "linear"}.get(op.kind)
    return (
        op.weight_name is not None
        and not op.transposed
        and kind in entry.ops
        and op.dtype in entry.dtypes
        and (entry.max_kernel is None or max(op.kernel) <= entry.max_kernel)
    )


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
