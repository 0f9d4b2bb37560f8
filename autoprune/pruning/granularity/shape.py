"""What a granularity is, and the rules that all of them share: counting, ranking, ties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from autoprune.graph.groups import Layer
from autoprune.registry import Registry

CHANNEL = "channel"
HEAD = "head"

Size = tuple[int, ...]
"""Of a weight with the output first: (out, in, *kernel)."""


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
    """

    key: str
    unit: str
    removed: bool
    mask: Callable[[Tensor, float], Tensor] | None
    refusal: Callable[[Layer], str]
    units: Callable[[Size], Tensor] | None = None


GRANULARITIES: Registry[Granularity] = Registry("granularity", "autoprune.granularities")


def removed_count(units: int, sparsity: float) -> int:
    """Return how many of ``units`` go: never more than asked, and one always stays."""
    return max(min(int(units * sparsity + 1e-6), units - 1), 0)


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


def partition(key: str, unit: str, units: Callable[[Size], Tensor], refusal: Callable[[Layer], str]) -> Granularity:
    """Return a weight pattern whose units, a partition of the weight, are ranked by the sum of their scores."""

    def mask(scores: Tensor, sparsity: float) -> Tensor:
        labels = units(tuple(scores.shape)).to(scores.device)
        sums = unit_sums(scores[None], labels)[0]
        # The last place is for weights of no unit (label -1), which stay.
        keep = torch.ones(sums.numel() + 1, dtype=torch.bool, device=scores.device)
        keep[lowest(sums, removed_count(sums.numel(), sparsity))] = False
        return keep[labels]

    return Granularity(key, unit, False, mask, refusal, units)


def always_fits(_: Layer) -> str:
    """Refuse no layer."""
    return ""
