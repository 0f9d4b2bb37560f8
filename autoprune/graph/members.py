"""From ties to units: classes of channels that stand in the same tensors, along the same dimensions, equally often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from autoprune.graph.identity import Identities

Axis = tuple[str, int]
"""A tensor and one of its dimensions, or an integer attribute and ``SIZE``."""


@dataclass(frozen=True)
class Members:
    """Classes of one signature, in the order in which they stand in the first axis.

    Attributes:
        roots: The class of each unit.
        index: Axis to the places of each unit in it, shape (units, k).
    """

    roots: tuple[int, ...]
    index: Mapping[Axis, Tensor]


def members(ids: Identities) -> list[Members]:
    """Return all classes that may go, by signature.

    A signature is interned axis by axis: a class that stands k times in an axis moves from its signature so far to the
    one that (signature, axis, k) stands for. All classes of an axis move at once; ResNet-50 has 10^5 of those moves.
    """
    table = ids.table()
    free = ids.free(table)
    signature = torch.zeros(table.numel(), dtype=torch.int64)
    axes_of: list[tuple[Axis, ...]] = [()]
    interned: dict[tuple[int, Axis, int], int] = {}
    places: dict[Axis, tuple[Tensor, Tensor]] = {}
    for axis, identities in ids.axes():
        roots, order = torch.sort(table[identities], stable=True)
        kept = free[roots]
        places[axis] = roots[kept], order[kept]
        present, counts = torch.unique_consecutive(roots[kept], return_counts=True)
        step = identities.numel() + 1  # more than any count: one number stands for (signature, count)
        moves, which = torch.unique(signature[present] * step + counts, return_inverse=True)
        targets = []
        for move in moves.tolist():
            before, count = divmod(move, step)
            key = (before, axis, count)
            if key not in interned:
                interned[key] = len(axes_of)
                axes_of.append((*axes_of[before], axis))
            targets.append(interned[key])
        signature[present] = torch.tensor(targets, dtype=torch.int64)[which]
    return [
        _bundle(torch.nonzero(signature == each).reshape(-1), axes_of[each], places)
        for each in torch.unique(signature).tolist()
        if each
    ]


def _bundle(roots: Tensor, axes: tuple[Axis, ...], places: Mapping[Axis, tuple[Tensor, Tensor]]) -> Members:
    index = {}
    for axis in axes:
        owners, order = places[axis]
        index[axis] = order[torch.isin(owners, roots)].reshape(roots.numel(), -1)
    units = torch.argsort(index[axes[0]][:, 0])
    return Members(tuple(roots[units].tolist()), {axis: where[units] for axis, where in index.items()})
