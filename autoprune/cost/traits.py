"""What no channel changes of the operators of a network, as arrays: made once, read for thousands of versions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from autoprune.cost.extents import Ints
from autoprune.cost.workload import Op
from autoprune.spec.hardware import LayerKind


class OpTraits:
    """Traits of operators; arrays have shape (ops,).

    Args:
        ops: Of any version of the network.
    """

    def __init__(self, ops: Sequence[Op]) -> None:
        self.ops = tuple(ops)
        self._masks: dict[tuple[str, ...], NDArray[np.bool_]] = {}

    @cached_property
    def taps(self) -> Ints:
        """Places of the kernel."""
        return np.array([op.kernel[0] * op.kernel[1] for op in self.ops], np.int64)

    @cached_property
    def itemsize(self) -> Ints:
        """Bytes of one element of the result."""
        return np.array([op.itemsize for op in self.ops], np.int64)

    @cached_property
    def recorded_macs(self) -> Ints:
        """Multiply-adds of the version that was recorded."""
        return np.array([op.macs for op in self.ops], np.int64)

    @cached_property
    def transposed(self) -> NDArray[np.bool_]:
        """Which are transposed convolutions."""
        return np.array([op.transposed for op in self.ops], np.bool_)

    def of_kind(self, *kinds: str) -> NDArray[np.bool_]:
        """Say which operators are of some kinds; the array is shared, so it is not to be written to."""
        if kinds not in self._masks:
            self._masks[kinds] = np.array([op.kind in kinds for op in self.ops], np.bool_)
        return self._masks[kinds]


def layer_kind(op: Op) -> LayerKind:
    """Return which kind of operator it is to a device: kinds that reach different shares of the peak."""
    if op.kind == "conv":
        if op.groups > 1 and op.c_in == op.groups:
            return "depthwise"
        return "conv1x1" if max(op.kernel) == 1 else "conv"
    if op.kind in ("gemm", "recurrent"):
        return "linear"
    if op.kind == "attention":
        return "attention"
    return "batch_norm" if op.operator in ("batch_norm", "native_batch_norm") else "elementwise"


class Sums:
    """Sums over a few of many columns: ``values @ matrix`` for a matrix that is nearly all zeros.

    The sums of integers are exact, in whatever order they are added.

    Args:
        matrix: Shape (values, sums).

    Attributes:
        terms: Which value each term is, sum after sum, shape (terms,).
        weights: How often it counts; 0 for the term that stands for a sum of nothing.
        owners: Which sum it belongs to.
    """

    def __init__(self, matrix: Ints) -> None:
        rows, owners = np.nonzero(matrix)
        # numpy adds stretches of terms and knows no empty one.
        empty = np.setdiff1d(np.arange(matrix.shape[1]), owners) if len(matrix) else np.zeros(0, np.int64)
        every = np.concatenate([owners, empty])
        order = np.argsort(every, kind="stable")
        nothing = np.zeros(len(empty), np.int64)
        self.owners: Ints = every[order]
        self.terms: Ints = np.concatenate([rows, nothing])[order]
        self.weights: Ints = np.concatenate([matrix[rows, owners], nothing])[order]
        self._starts = np.searchsorted(self.owners, np.arange(matrix.shape[1]))

    def of(self, values: Ints) -> Ints:
        """Return the sums, shape (n, sums), of values of shape (n, values)."""
        return self.added(values[:, self.terms] * self.weights)

    def added(self, terms: Ints) -> Ints:
        """Return the sums of terms that were picked and weighted already, shape (n, terms)."""
        if not len(self.terms):
            return np.zeros((len(terms), len(self._starts)), np.int64)
        sums: Ints = np.add.reduceat(terms, self._starts, axis=1)
        return sums

    def any(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Say which sums have a term for which ``mask``, shape (n, values), holds."""
        if not len(self.terms):
            return np.zeros((len(mask), len(self._starts)), np.bool_)
        there = mask[:, self.terms] & (self.weights > 0)
        found: NDArray[np.bool_] = np.logical_or.reduceat(there, self._starts, axis=1)
        return found
