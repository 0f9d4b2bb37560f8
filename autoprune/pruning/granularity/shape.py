"""What a granularity is, and the rules that all of them share: counting, ranking, ties."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoprune.graph.groups import Layer
from autoprune.registry import Registry

CHANNEL = "channel"
HEAD = "head"
DEPTH = "depth"

Size = tuple[int, ...]
"""Of a weight with the output first: (out, in, *kernel)."""

Counts = NDArray[np.int64]
Sizes = Sequence[Any]
"""Of many weights: for each of (out, in, *kernel) an integer or an array of them, shape (n,)."""


@dataclass(frozen=True)
class Granularity:
    """One shape of unit.

    Attributes:
        key: As it stands in a config.
        unit: What one unit is, for ``autoprune list``.
        removed: Whether units are really cut out, so that the module gets smaller.
        mask: From scores, shape (out, in, *kernel), and the fraction to remove, to the kept weights (bool, same shape);
            None where units are removed.
        refusal: From a layer to why the pattern does not fit it; empty where it fits.
        units: From a size to the unit of each weight, numbered from 0, -1 for weights that always stay; None where
            units are not chosen one by one from all of the layer (N:M, pattern).
        kept: From the sizes of n weights and the fractions to remove, shape (n,), to how many weights stay of each:
            what ``mask`` keeps, whatever the scores. None where only the mask tells.
    """

    key: str
    unit: str
    removed: bool
    mask: Callable[[Tensor, float], Tensor] | None
    refusal: Callable[[Layer], str]
    units: Callable[[Size], Tensor] | None = None
    kept: Callable[[Sizes, NDArray[np.float64]], Counts] | None = None


GRANULARITIES: Registry[Granularity] = Registry("granularity", "autoprune.granularities")


def removed_count(units: int, sparsity: float) -> int:
    """Return how many of ``units`` go: never more than asked, and one always stays."""
    return max(min(int(units * sparsity + 1e-6), units - 1), 0)


def removed_counts(units: Any, sparsity: NDArray[np.float64]) -> Counts:
    """Return :func:`removed_count` for arrays that broadcast."""
    whole = np.asarray(units) * sparsity + 1e-6
    removed: Counts = np.maximum(np.minimum(whole.astype(np.int64), np.asarray(units) - 1), 0)
    return removed


def kept_of(tiling: Callable[[Sizes], tuple[Any, Any]]) -> Callable[[Sizes, NDArray[np.float64]], Counts]:
    """Return ``Granularity.kept`` of a pattern whose units are equally large.

    Args:
        tiling: From sizes to (number of units, weights in each).
    """

    def kept(sizes: Sizes, sparsity: NDArray[np.float64]) -> Counts:
        count, each = tiling(sizes)
        stays: Counts = elements(sizes) - each * removed_counts(count, sparsity)
        return stays

    return kept


def elements(sizes: Sizes) -> Counts:
    """Return how many weights there are, shape (n,)."""
    total = np.asarray(1, np.int64)
    for size in sizes:
        total = total * size
    return total


def lowest(scores: Tensor, count: int) -> Tensor:
    """Return the places of the ``count`` lowest scores of a 1-D tensor, ascending; ties go to the lower index."""
    order = torch.argsort(scores, stable=True)
    return order[:count].sort().values


def size_of(layer: Layer) -> Size:
    """Return the size of a layer's weight, (out, in, *kernel)."""
    size = list(layer.shape)
    size.insert(0, size.pop(layer.out_dim))
    return tuple(size)


def unit_sums(values: Tensor, units: Tensor) -> Tensor:
    """Sum values over units.

    Args:
        values: Shape (draws, *size).
        units: Unit of each weight, shape ``size``; -1 belongs to none.

    Returns:
        Shape (draws, number of units), float64.
    """
    labels = units.reshape(-1).to(values.device)
    count = int(labels.max()) + 1 if labels.numel() else 0
    flat = values.reshape(values.shape[0], -1).double()
    sums = torch.zeros(values.shape[0], count + 1, dtype=torch.float64, device=values.device)
    return sums.index_add_(1, torch.where(labels < 0, count, labels), flat)[:, :count]


def partition(
    key: str,
    unit: str,
    units: Callable[[Size], Tensor],
    refusal: Callable[[Layer], str],
    tiling: Callable[[Sizes], tuple[Any, Any]] | None = None,
) -> Granularity:
    """Return a weight pattern whose units, a partition of the weight, are ranked by the sum of their scores.

    Args:
        key: As it stands in a config.
        unit: What one unit is.
        units: As in :class:`Granularity`.
        refusal: Likewise.
        tiling: For units that are equally large, from sizes to (number of units, weights in each).
    """

    def mask(scores: Tensor, sparsity: float) -> Tensor:
        labels = units(tuple(scores.shape)).to(scores.device)
        sums = unit_sums(scores[None], labels)[0]
        # The last place is for weights of no unit (label -1), which stay.
        keep = torch.ones(sums.numel() + 1, dtype=torch.bool, device=scores.device)
        keep[lowest(sums, removed_count(sums.numel(), sparsity))] = False
        return keep[labels]

    return Granularity(key, unit, False, mask, refusal, units, kept_of(tiling) if tiling else None)


def always_fits(_: Layer) -> str:
    """Refuse no layer."""
    return ""
