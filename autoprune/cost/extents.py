"""Sizes of dimensions as exact functions of how many units each group keeps.

A dimension loses ``k`` places with each unit of a group that goes, so its size is linear in the counts. Where units of
two groups cross (heads, and channels within each head) a place stays only if both of its units do: then the product of
the two counts comes in. The coefficients are differences of integers that were seen, not fitted numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Extents:
    """Sizes of ``A`` dimensions.

    Attributes:
        dense: Sizes in the dense model, shape (A,).
        lost: Places lost with one unit of each group, shape (groups, A).
        pairs: Groups whose units cross, by number.
        both: Places that a unit of each of a pair share, so that they are not lost twice, shape (pairs, A).
    """

    dense: Ints
    lost: Ints
    pairs: tuple[tuple[int, int], ...]
    both: Ints

    @classmethod
    def from_samples(
        cls, dense: Ints, singles: Sequence[Ints], pairs: Sequence[tuple[int, int]], crossed: Sequence[Ints]
    ) -> Extents:
        """Take differences.

        Args:
            dense: Sizes with nothing removed, shape (A,).
            singles: For each group the sizes with one of its units removed.
            pairs: Groups whose units may cross.
            crossed: For each pair the sizes with one unit of each removed.
        """
        lost = np.stack([dense - seen for seen in singles]) if singles else np.zeros((0, dense.size), np.int64)
        both = [seen - (dense - lost[i] - lost[j]) for (i, j), seen in zip(pairs, crossed, strict=True)]
        kept = [n for n, cross in enumerate(both) if cross.any()]
        return cls(
            dense,
            lost,
            tuple(pairs[n] for n in kept),
            np.stack([both[n] for n in kept]) if kept else np.zeros((0, dense.size), np.int64),
        )

    def sizes(self, gone: Ints) -> Ints:
        """Return sizes, shape (n, A), from the units that each group loses, shape (n, groups)."""
        # In float64, for numpy multiplies integer matrices in a loop; every number here is far below 2^53.
        removed = gone.astype(np.float64)
        lost, both = self._as_floats
        sizes = self.dense - removed @ lost
        if self.pairs:
            first, second = map(list, zip(*self.pairs, strict=True))
            sizes += (removed[:, first] * removed[:, second]) @ both
        return np.rint(sizes).astype(np.int64)

    @cached_property
    def _as_floats(self) -> tuple[Floats, Floats]:
        return self.lost.astype(np.float64), self.both.astype(np.float64)

    def distinct(self) -> tuple[Extents, Ints]:
        """Return each function once, and for every dimension which one it is; number 0 is the constant 1."""
        rows = np.concatenate([self.dense[None], self.lost, self.both]).T
        one = np.zeros((1, rows.shape[1]), np.int64)
        one[0, 0] = 1
        unique, which = np.unique(np.concatenate([one, rows]), axis=0, return_inverse=True)
        which = which.reshape(-1)
        order = np.concatenate([[which[0]], np.delete(np.arange(len(unique)), which[0])])
        place = np.argsort(order)
        groups = len(self.lost)
        table = unique[order].T
        return Extents(table[0], table[1 : 1 + groups], self.pairs, table[1 + groups :]), place[which[1:]]

    def constant(self) -> NDArray[np.bool_]:
        """Say which dimensions never change, shape (A,)."""
        changes = np.concatenate([self.lost, self.both]).any(axis=0)
        fixed: NDArray[np.bool_] = np.logical_not(changes)
        return fixed


@dataclass(frozen=True)
class Products:
    """Products of dimensions: elements of tensors.

    Attributes:
        factor: Product of all that is constant, shape (m,).
        axes: The dimensions that change, by number, filled up with the constant 1; shape (most, m).
    """

    factor: Ints
    axes: Ints

    @classmethod
    def of(cls, shapes: Sequence[Sequence[int]], extents: Extents) -> Products:
        """Describe tensors by the numbers of their dimensions in ``extents``."""
        fixed = extents.constant()
        changing = [[axis for axis in shape if not fixed[axis]] for shape in shapes]
        most = max(map(len, changing), default=0)
        factor = [
            int(np.prod([extents.dense[axis] for axis in shape if fixed[axis]], dtype=np.int64)) for shape in shapes
        ]
        table = np.zeros((most, len(shapes)), np.int64)
        for column, axes in enumerate(changing):
            table[: len(axes), column] = axes
        return cls(np.asarray(factor, np.int64), table)

    def elements(self, sizes: Ints) -> Ints:
        """Return the products, shape (n, m), from the sizes of all dimensions, shape (n, A)."""
        if not len(self.axes):
            return np.repeat(self.factor[None], len(sizes), axis=0)
        total: Ints = self.factor * sizes[:, self.axes[0]]
        for axes in self.axes[1:]:
            total *= sizes[:, axes]
        return total
