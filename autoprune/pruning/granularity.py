"""Granularities: the shape of what is removed. ``channel`` is really cut out, weight patterns are zeroed.

A weight pattern turns scores, one per weight, into a mask. Channels are chosen by the group, not by the layer, so
``channel`` has no mask; it is here so that one list holds all keys.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from autoprune.errors import unknown_name
from autoprune.graph.groups import Layer
from autoprune.registry import Registry
from autoprune.spec.config import n_of_m

CHANNEL = "channel"


@dataclass(frozen=True)
class Granularity:
    """One shape of unit.

    Attributes:
        key: As it stands in a config.
        unit: What one unit is, for ``autoprune list``.
        removed: Whether units are really cut out, so that the module gets smaller.
        mask: From scores, shape (out, inner), and the fraction to remove, to the kept weights (bool, same shape); None
            where units are removed.
        refusal: From a layer to why the pattern does not fit it; empty where it fits.
    """

    key: str
    unit: str
    removed: bool
    mask: Callable[[Tensor, float], Tensor] | None
    refusal: Callable[[Layer], str]


GRANULARITIES: Registry[Granularity] = Registry("granularity", "autoprune.granularities")


def granularity(key: str) -> Granularity:
    """Return the granularity behind a key; every N:M has one.

    Raises:
        UnknownNameError: No such granularity.
    """
    if ":" in key and key not in dict(GRANULARITIES):
        try:
            kept, of = n_of_m(key)
        except ValueError:
            raise unknown_name("granularity", key, GRANULARITIES.names()) from None
        return _n_of_m(key, kept, of)
    return GRANULARITIES.get(key)


def removed_count(units: int, sparsity: float) -> int:
    """Return how many of ``units`` go: never more than asked, and one always stays."""
    return min(int(units * sparsity + 1e-6), units - 1)


def lowest(scores: Tensor, count: int) -> Tensor:
    """Return the places of the ``count`` lowest scores of a 1-D tensor, ascending; ties go to the lower index."""
    order = torch.argsort(scores, stable=True)
    return order[:count].sort().values


def as_matrix(weight: Tensor, out_dim: int) -> Tensor:
    """Return a weight as (out, inner): inner runs over input channels, then the kernel, as im2col orders it."""
    return weight.movedim(out_dim, 0).flatten(1)


def from_matrix(matrix: Tensor, shape: tuple[int, ...], out_dim: int) -> Tensor:
    """Undo :func:`as_matrix` for a weight of ``shape``."""
    moved = list(shape)
    moved.insert(0, moved.pop(out_dim))
    return matrix.reshape(moved).movedim(0, out_dim)


def _weight_mask(scores: Tensor, sparsity: float) -> Tensor:
    flat = scores.reshape(-1)
    keep = torch.ones_like(flat, dtype=torch.bool)
    keep[lowest(flat, removed_count(flat.numel(), sparsity))] = False
    return keep.reshape(scores.shape)


def _n_of_m(key: str, kept: int, of: int) -> Granularity:
    def mask(scores: Tensor, _: float) -> Tensor:
        # After channels were removed the inner size may have a rest below M: it stays, every whole run obeys N:M.
        keep = torch.ones_like(scores, dtype=torch.bool)
        whole = scores.shape[1] // of * of
        runs = scores[:, :whole].reshape(-1, of)
        order = torch.argsort(runs, dim=1, stable=True)
        keep[:, :whole] = (
            torch.ones_like(runs, dtype=torch.bool).scatter(1, order[:, : of - kept], False).reshape(-1, whole)
        )
        return keep

    def refusal(layer: Layer) -> str:
        inner = as_matrix(torch.empty(layer.shape, device="meta"), layer.out_dim).shape[1]
        if inner % of == 0:
            return ""
        return f"{key} needs an inner size that is a multiple of {of}, layer {layer.name!r} has {inner}"

    return Granularity(key, f"{of - kept} zeros in {of} consecutive inputs (im2col order)", False, mask, refusal)


def _fits(_: Layer) -> str:
    return ""


GRANULARITIES.add("weight", Granularity("weight", "one weight", False, _weight_mask, _fits))
GRANULARITIES.add("2:4", _n_of_m("2:4", 2, 4))
GRANULARITIES.add(
    CHANNEL, Granularity(CHANNEL, "a channel with all that is coupled to it, really removed", True, None, _fits)
)
