"""Which zeros pay: a pattern saves MACs, bytes or time only where the device profile lists it.

Everywhere else a masked weight is read, multiplied and written like any other, and only the file gets smaller.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

from autoprune.cost.workload import Op
from autoprune.spec.config import n_of_m
from autoprune.spec.hardware import DeviceProfile, Format, SparseSupport

# Index width of compressed rows: enough for 65536 inputs of one output channel.
_INDEX_BITS = 16
_POINTER_BITS = 32


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


def savings_of(op: Op, profile: DeviceProfile, runtime: str | None = None) -> Savings:
    """Return what the zeros in ``op``'s weight save.

    Args:
        op: The operator, with pattern and density.
        profile: The device.
        runtime: Only entries of this runtime count; None: of any.
    """
    support = _support(op, profile, runtime)
    if support is None:
        return Savings(1.0, op.macs, 1.0, None)
    row = op.c_in // op.groups * op.kernel[0] * op.kernel[1]
    factor = format_factor(support.format, op.weight_density, 8 * op.itemsize, pattern=support.pattern, row=row)
    return Savings(factor, op.macs * op.weight_density, support.speedup.value, support)


def format_factor(form: Format, density: float, bits: int, pattern: str = "", row: int = 1) -> float:
    """Return stored bits over dense bits, at most 1: a format that does not pay is not used.

    Sources: bitmask and compressed rows by counting bits; N:M as cuSPARSELt stores it, packed values with
    ``ceil(log2 M)``-bit indices; run length as Eyeriss (JSSC 2017) stores activations, three values in 64 bit.

    Args:
        form: How the non-zeros are stored.
        density: Share of non-zeros.
        bits: Width of a value.
        pattern: "N:M", for that format.
        row: Elements in one row, which shares one pointer (compressed rows).
    """
    if form == "n:m":
        kept, of = n_of_m(pattern)
        factor = kept / of * (1 + ceil(log2(of)) / bits)
    elif form == "bitmask":
        factor = density + 1 / bits
    elif form == "csr":
        factor = density * (1 + _INDEX_BITS / bits) + _POINTER_BITS / (row * bits)
    else:
        factor = density * 64 / (3 * bits)
    return min(1.0, factor)


def _support(op: Op, profile: DeviceProfile, runtime: str | None) -> SparseSupport | None:
    if op.weight_name is None or op.pattern is None or op.weight_density >= 1 or op.transposed:
        return None
    kind = {"conv": "conv", "gemm": "linear"}.get(op.kind)
    columns = op.c_in // op.groups * op.kernel[0] * op.kernel[1]
    for entry in profile.sparse_support:
        if (
            entry.pattern == op.pattern
            and kind in entry.ops
            and op.dtype in entry.dtypes
            and runtime in (None, entry.runtime)
            and op.c_out >= entry.min_rows
            and columns >= entry.min_cols
            and 1 - op.weight_density >= entry.min_sparsity
            and (entry.max_kernel is None or max(op.kernel) <= entry.max_kernel)
        ):
            return entry
    return None
