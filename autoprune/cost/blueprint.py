"""The blueprint of a model's costs: every dimension of every operator as a function of the units that groups keep.

Which unit takes which places is known from the graph. What that does to the operators that really run is not read off
the code but seen: one unit of each group is cut in turn, the smaller model runs (without data, on torch's meta device,
where it can), and the differences are the coefficients. Cutting many units of all groups at once, at random, must then
give what the functions say, operator by operator and dimension by dimension; a model for which it does not has no
blueprint, and its costs are counted each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from torch import nn

from autoprune.cost.extents import Extents, Ints, Products
from autoprune.cost.probe import UNSEEN, BlueprintError, Probe
from autoprune.cost.table import FIELDS
from autoprune.cost.workload import Workload
from autoprune.graph.groups import Group, ModelGraph

__all__ = ["Blueprint", "BlueprintError", "draw_blueprint"]


@dataclass(frozen=True)
class Blueprint:
    """Sizes of everything that one run touches, as functions of counts.

    Attributes:
        workload: The dense run; weights count as dense.
        groups: Names of the groups, in the order of all arrays.
        units: Units of each group, shape (groups,).
        extents: The distinct functions.
        fields: Name of a dimension of operators to the number of its function for each operator, shape (ops,).
        operands: Shape of every operand of every operator, in order, as numbers of functions.
        tensors: The same of every activation.
        stored: Name of every parameter and buffer to its shape, likewise.
        thin: Groups that make copies come or go when they keep a single unit (heads that need not be put side by side).
            MACs and stored sizes hold then too; traffic and activations have a copy too many or too few.
        loose: Groups that do so with any unit (queries narrower than values: torch takes another attention kernel).
    """

    workload: Workload
    groups: tuple[str, ...]
    units: Ints
    extents: Extents
    fields: Mapping[str, Ints]
    operands: tuple[tuple[tuple[int, ...], ...], ...]
    tensors: tuple[tuple[int, ...], ...]
    stored: Mapping[str, tuple[int, ...]]
    thin: frozenset[str] = frozenset()
    loose: frozenset[str] = frozenset()

    def sizes(self, kept: Ints) -> Ints:
        """Return the values of all functions, shape (n, functions), for kept units, shape (n, groups)."""
        return self.extents.sizes(self.units - kept)

    @cached_property
    def constant(self) -> Mapping[str, bool]:
        """Whether a dimension of operators is the same in every smaller model."""
        fixed = self.extents.constant()
        return {name: bool(fixed[which].all()) for name, which in self.fields.items()}

    def products(self, shapes: Sequence[tuple[int, ...]]) -> Products:
        """Return the element counts of tensors whose shapes are given as numbers of functions."""
        return Products.of(shapes, self.extents)


def draw_blueprint(
    model: nn.Module, graph: ModelGraph, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None, seed: int = 0
) -> Blueprint:
    """Find the functions and check them.

    Args:
        model: The dense model; left as it is.
        graph: Its groups.
        args: Positional inputs.
        kwargs: Keyword inputs.
        seed: Of the units that are cut.

    Raises:
        BlueprintError: What runs, or a size of it, does not follow from counts.
    """
    groups = list(graph.groups.values())
    _check_crossings(groups)
    probe = Probe(model, graph, args, dict(kwargs or {}), seed)
    dense = probe.dense
    singles = [probe.without({group.name: 1}) if group.units > 1 else dense for group in groups]
    pairs = [(i, j) for i, j in combinations(range(len(groups)), 2) if _cross(groups[i], groups[j])]
    crossed = [probe.without({groups[k].name: min(1, groups[k].units - 1) for k in pair}) for pair in pairs]
    extents = Extents.from_samples(
        dense, [_known(dense, s) for s in singles], pairs, [_known(dense, s) for s in crossed]
    )
    probe.check(extents)
    return _assembled(probe, groups, extents)


def _places(group: Group) -> dict[tuple[str, int], Ints]:
    return {(each.tensor, each.dim): each.index.numpy() for each in group.slices}


def _cross(a: Group, b: Group) -> bool:
    """Whether some places belong to a unit of each."""
    places = _places(b)
    return any(np.isin(index, places[axis]).any() for axis, index in _places(a).items() if axis in places)


def _check_crossings(groups: Sequence[Group]) -> None:
    """Check that sizes depend on counts alone: any two units of groups that cross share equally many places.

    Raises:
        BlueprintError: They do not.
    """
    for a, b in combinations(groups, 2):
        theirs = _places(b)
        for axis, index in _places(a).items():
            other = theirs.get(axis)
            if other is None or not np.isin(index, other).any():
                continue
            owner = np.full(max(index.max(), other.max()) + 1, -1)
            owner[other.reshape(-1)] = np.repeat(np.arange(b.units), other.shape[1])
            shared = np.zeros((a.units, b.units + 1), np.int64)
            np.add.at(shared, (np.repeat(np.arange(a.units), index.shape[1]), owner[index.reshape(-1)]), 1)
            if np.unique(shared[:, :-1]).size > 1:
                raise BlueprintError(
                    f"groups {a.name!r} and {b.name!r} share places of {axis[0]!r} unevenly, so what is left depends "
                    "on which units go"
                )


def _assembled(probe: Probe, groups: Sequence[Group], extents: Extents) -> Blueprint:
    workload, stored = probe.dense_run
    distinct, which = extents.distinct()
    numbers = iter(which.tolist())

    def take(rank: int) -> tuple[int, ...]:
        return tuple(next(numbers) for _ in range(rank))

    fields, operands = [], []
    for op in workload.ops:
        fields.append(take(len(FIELDS)))
        operands.append(tuple(take(len(operand.shape)) for operand in op.operands))
    table = np.asarray(fields, np.int64).reshape(-1, len(FIELDS))
    tensors = tuple(take(len(tensor.shape)) for tensor in workload.tensors)
    shapes = {name: take(len(shape)) for name, shape in stored.items()}
    dense = replace(workload, ops=tuple(replace(op, pattern=None) for op in workload.ops))
    return Blueprint(
        workload=dense,
        groups=tuple(group.name for group in groups),
        units=np.asarray([group.units for group in groups], np.int64),
        extents=distinct,
        fields={name: table[:, column] for column, name in enumerate(FIELDS)},
        operands=tuple(operands),
        tensors=tensors,
        stored=shapes,
        thin=frozenset(probe.thin),
        loose=frozenset(probe.loose),
    )


def _known(dense: Ints, seen: Ints) -> Ints:
    """Leave a size that was not seen as it is: the copy it belongs to does not run whenever this group shrinks."""
    return np.where(seen == UNSEEN, dense, seen)
