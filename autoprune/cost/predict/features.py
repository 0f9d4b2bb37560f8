"""What a kernel's time may depend on, as columns of a regression: one group of columns for each kind of kernel.

A network's time is the sum of its kernels' times, and a kernel's time is a combination of its work: multiply-adds as
they are, with both channel counts rounded up to the vector widths that runtimes pad to, a penalty where a count is off
those widths, bytes, and work and copies in and out of a layout in blocks of channels, which ONNX Runtime leaves where
they do not divide (63 channels took 1.55 of the time of 64). What runs inside another operator (``runtime.fusion``) has
no columns of its own. Each is relative to its dense value and weighted with the operator's share of the dense network
by the roofline, so that all coefficients are about as large as one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from autoprune.cost.extents import Floats, Ints
from autoprune.cost.table import OpTable
from autoprune.cost.workload import Op

STEPS = (4, 8, 16, 32)
"""Channels that runtimes of today round up to: SSE and NEON, AVX2, AVX-512 and int8 tensor cores, wide blockings."""

BLOCKS = (8, 16)
"""Channels that lie together in a blocked layout: AVX2 and AVX-512 in ONNX Runtime (``MlasNchwcGetBlockSize``)."""

FAMILIES = ("work", "padded", "off step", "bytes", "blocked", "rearranged")
"""Groups of columns that share the width of their prior."""

_PRODUCTS = ("conv", "gemm", "attention")


class KernelFeatures:
    """Columns of networks that run the operators of one dense network, each on its own sizes.

    Args:
        dense: The dense network, one row.
        share: Each operator's share of its time, by a model; shape (ops,). 0 for what runs inside another.
    """

    def __init__(self, dense: OpTable, share: Floats) -> None:
        ops = dense.ops
        self._share = share
        products = dense.traits.of_kind(*_PRODUCTS)
        self._products = np.flatnonzero(products & (share > 0))
        self._others = np.flatnonzero(~products & (share > 0))
        self._in_class, self._other_class = (_classes(ops, at) for at in (self._products, self._others))
        self._dense = _whole(_work(dense, self._products)), _whole(_work(dense, self._others, products=False))
        self.family = np.array(
            [
                FAMILIES.index(family)
                for work, classes in zip(self._dense, (self._in_class, self._other_class), strict=True)
                for family, _ in work
                for _ in range(classes.shape[1])
            ],
            np.int64,
        )

    def columns(self, table: OpTable, macs: Floats, present: NDArray[np.bool_]) -> Floats:
        """Return the columns of every network in ``table``, shape (n, columns).

        Args:
            table: Networks that run the dense one's operators.
            macs: Multiply-adds that the device executes, shape (n, ops): fewer where it skips zeros.
            present: Which operators run, shape (n or 1, ops): not those of residual blocks that are gone.
        """
        parts = [(amount * present[:, at]) @ classes for amount, at, classes in self._amounts(table, macs)]
        return np.concatenate(parts, axis=1) if parts else np.zeros((len(macs), 0))

    def by_op(self, table: OpTable, macs: Floats, weights: Floats) -> Floats:
        """Return what each operator adds to a prediction with these column weights, shape (n, ops)."""
        out = np.zeros((len(macs), len(self._share)))
        column = 0
        for amount, at, classes in self._amounts(table, macs):
            out[:, at] += amount * (classes @ weights[column : column + classes.shape[1]])
            column += classes.shape[1]
        return out

    def _amounts(self, table: OpTable, macs: Floats) -> Iterator[tuple[Floats, Ints, Floats]]:
        """Yield, in the order of the columns: amounts of shape (n, at), which operators, and their kernels."""
        for at, dense, classes, products in (
            (self._products, self._dense[0], self._in_class, True),
            (self._others, self._dense[1], self._other_class, False),
        ):
            executed = macs[:, at] / np.maximum(table.macs[:, at], 1) if products else np.ones((len(macs), 1))
            for (family, work), (_, whole) in zip(_work(table, at, products), dense, strict=True):
                scale = self._share[at] / np.maximum(whole, 1.0)
                yield work * (executed if family != "bytes" else np.ones_like(executed)) * scale, at, classes


def _work(table: OpTable, at: Ints, products: bool = True) -> list[tuple[str, Floats]]:
    """Return (family, amounts of shape (n, at)); the list is the same for every table."""
    if not at.size:
        return []
    if not products:
        moved = (table.input_bytes + table.output_bytes + table.weight_bytes)[:, at].astype(np.float64)
        return [("bytes", moved)]
    macs = table.macs[:, at].astype(np.float64)
    groups = table.groups[:, at]
    c_in, c_out = table.c_in[:, at] // groups, table.c_out[:, at] // groups
    across = (c_in == 1) & (groups > 1)  # depthwise: the groups run side by side
    c_in, c_out = np.where(across, 1, c_in), np.where(across, table.c_out[:, at], c_out)
    found = [("work", macs)]
    for step in STEPS:
        wide_in, wide_out = np.where(c_in == 1, 1, _up(c_in, step)), _up(c_out, step)
        found.append(("padded", macs * (wide_in / np.maximum(c_in, 1)) * (wide_out / np.maximum(c_out, 1))))
    for step in STEPS[:3]:
        off_in, off_out = (c_in % step != 0) & (c_in > 1), c_out % step != 0
        found += [("off step", macs * off) for off in (off_in, off_out, off_in | off_out)]
        found.append(
            ("off step", found[STEPS.index(16) + 1][1] * (off_in | off_out))
        )  # a slower kernel, padded as well
    found.append(("bytes", table.input_bytes[:, at].astype(np.float64)))
    found.append(("bytes", table.output_bytes[:, at].astype(np.float64)))
    found.append(("bytes", table.weight_bytes[:, at].astype(np.float64)))
    for block in BLOCKS:
        found += _blocked(table, at, c_in, c_out, across, block)
    return found


def _blocked(
    table: OpTable, at: Ints, c_in: Ints, c_out: Ints, across: NDArray[np.bool_], block: int
) -> list[tuple[str, Floats]]:
    """Return the work of a convolution in a blocked layout, or outside it, and the bytes that are laid out anew.

    ONNX Runtime takes the blocked kernel where the input channels (of a depthwise convolution all channels) are a
    multiple of four, or fewer than a block; those few are read as they come. Everything else is a plain product, and
    between the two tensors are copied from one layout to the other (``nchwc_transformer.cc``; seen in the graphs that
    1.32 makes).
    """
    macs = table.macs[:, at].astype(np.float64)
    few = (c_in < block) & ~across
    fits = np.where(across, c_out % 4 == 0, few | (c_in % 4 == 0))
    wide_in = np.where(across | few, c_in, _up(c_in, block))
    padded = macs * (wide_in / np.maximum(c_in, 1)) * (_up(c_out, block) / np.maximum(c_out, 1))
    read, written = table.input_bytes[:, at].astype(np.float64), table.output_bytes[:, at].astype(np.float64)
    return [
        ("blocked", padded * fits),
        ("blocked", macs * ~fits),
        ("rearranged", written * (_up(c_out, block) / np.maximum(c_out, 1)) * fits),
        ("rearranged", read * (_up(c_in, block) / np.maximum(c_in, 1)) * (fits & ~few)),
        ("rearranged", read * few),
        ("rearranged", read * ~fits),
        ("rearranged", written * ~fits),
    ]


def _whole(work: list[tuple[str, Floats]]) -> list[tuple[str, Floats]]:
    """Return what each amount is relative to: its dense value; for what may be 0 there, all work or all bytes."""
    whole = dict(reversed(work))
    instead = {"off step": "work", "blocked": "work", "rearranged": "bytes"}
    return [(family, whole[instead[family]] if family in instead else amount) for family, amount in work]


def _classes(ops: Sequence[Op], at: Ints) -> Floats:
    """Return which kernels each operator belongs to, shape (at, kernels): its own kind, and all of them together."""
    keys = [_key(ops[place]) for place in at.tolist()]
    distinct = list(dict.fromkeys(keys))
    table = np.zeros((len(keys), len(distinct) + 1))
    for row, key in enumerate(keys):
        table[row, distinct.index(key)] = 1
    table[:, -1] = 1
    return table if len(distinct) > 1 else table[:, :1]


def _key(op: Op) -> tuple[object, ...]:
    depthwise = op.groups > 1 and op.c_in == op.groups
    return op.kind, op.operator, op.kernel, op.stride, depthwise, op.E * op.F, op.dtype


def _up(channels: Ints, step: int) -> Ints:
    rounded: Ints = -(-channels // step) * step
    return rounded
