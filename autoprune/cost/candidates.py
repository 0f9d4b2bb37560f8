"""Pruned networks by counts: how many units each group keeps, and how many weights of each layer are not zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from autoprune.cost.extents import Floats, Ints
from autoprune.cost.table import DENSE
from autoprune.errors import ConfigError
from autoprune.graph.groups import ModelGraph
from autoprune.pruning.granularity import DEPTH, granularity, removed_count
from autoprune.pruning.plan import Plan
from autoprune.spec.config import PruningConfig


@dataclass(frozen=True)
class Candidates:
    """``n`` pruned networks.

    Attributes:
        kept: Units that each group keeps, shape (n, groups), groups in the order of the graph; at least 1.
        pattern: Granularity of each layer's mask, a number in ``patterns``, :data:`DENSE` for none; shape (n, layers),
            layers in the order of the graph.
        nonzeros: Weights of each layer that stay, of those that the removed units leave; shape (n, layers). Not read
            where ``pattern`` is :data:`DENSE`.
        patterns: Granularity keys.
    """

    kept: Ints
    pattern: Ints
    nonzeros: Ints
    patterns: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.kept)


def joined(parts: Sequence[Candidates]) -> Candidates:
    """Return all candidates of several, at least one, in one."""
    patterns = tuple(dict.fromkeys(key for part in parts for key in part.patterns))
    renumbered = [
        np.concatenate([[DENSE], [patterns.index(key) for key in part.patterns]]).astype(np.int64)[part.pattern + 1]
        for part in parts
    ]
    return Candidates(
        np.concatenate([part.kept for part in parts]),
        np.concatenate(renumbered),
        np.concatenate([part.nonzeros for part in parts]),
        patterns,
    )


class Asked:
    """Turns what configs ask for into counts.

    Args:
        graph: Groups and layers.
        shapes: From kept units, shape (n, groups), and a layer to the sizes (out, in, *kernel) of its weight.
    """

    def __init__(self, graph: ModelGraph, shapes: Callable[[Ints, str], tuple[Ints, ...]]) -> None:
        self._graph = graph
        self._shapes = shapes
        self._groups = {name: n for n, name in enumerate(graph.groups)}
        self._layers = {name: n for n, name in enumerate(graph.layers)}
        self._weights = {layer.weight: n for n, layer in enumerate(graph.layers.values())}
        self._units = np.array([group.units for group in graph.groups.values()], np.int64)

    def fractions(self, kept: Ints, pattern: Ints, sparsity: Floats, patterns: Sequence[str]) -> Candidates:
        """Return candidates whose masks remove a fraction of the units of each layer.

        Args:
            kept: As in :class:`Candidates`.
            pattern: Likewise.
            sparsity: Fraction of units that the mask removes, shape (n, layers); not read where there is no mask.
            patterns: Granularity keys.
        """
        nonzeros = np.zeros(pattern.shape, np.int64)
        for column, name in enumerate(self._layers):
            for number in np.unique(pattern[:, column]):
                if number == DENSE:
                    continue
                rows = np.flatnonzero(pattern[:, column] == number)
                sizes = self._shapes(kept[rows], name)
                nonzeros[rows, column] = _kept(patterns[number], sizes, sparsity[rows, column])
        return Candidates(kept, pattern, nonzeros, tuple(patterns))

    def configs(self, configs: Sequence[PruningConfig]) -> Candidates:
        """Return candidates of configs that were checked against the graph.

        Raises:
            ConfigError: A threshold decides somewhere, or residual blocks go: what that removes, only scores tell.
        """
        count = len(configs)
        kept = np.tile(self._units, (count, 1))
        pattern = np.full((count, len(self._layers)), DENSE, np.int64)
        sparsity = np.zeros(pattern.shape)
        patterns: dict[str, int] = {}
        for row, config in enumerate(configs):
            for name, choice in config.choices():
                if choice.threshold is not None:
                    raise ConfigError(
                        f"layer {name!r} has a threshold, and only scores tell what it removes; plan the config first"
                    )
                if choice.granularity == DEPTH:
                    raise ConfigError(f"stage {name!r} loses blocks, and only scores tell which; plan the config first")
                if granularity(choice.granularity).removed:
                    units = int(self._units[self._groups[name]])
                    kept[row, self._groups[name]] = units - removed_count(units, choice.fraction)
                elif choice.fraction:
                    column = self._layers[name]
                    pattern[row, column] = patterns.setdefault(choice.granularity, len(patterns))
                    sparsity[row, column] = choice.fraction
        return self.fractions(kept, pattern, sparsity, list(patterns))

    def plan(self, plan: Plan) -> Candidates:
        """Return the one candidate that a plan makes, masks counted."""
        kept = self._units.copy()
        for name, count in plan.gone.items():
            kept[self._groups[name]] -= count
        pattern = np.full(len(self._layers), DENSE, np.int64)
        nonzeros = np.zeros(len(self._layers), np.int64)
        patterns: dict[str, int] = {}
        for weight, mask in plan.masks.items():
            column = self._weights[weight]
            pattern[column] = patterns.setdefault(plan.patterns[weight], len(patterns))
            nonzeros[column] = int(mask.sum())
        return Candidates(kept[None], pattern[None], nonzeros[None], tuple(patterns))


def _kept(key: str, sizes: Sequence[Ints], sparsity: Floats) -> Ints:
    """Count what a mask keeps; a granularity of a plug-in that cannot say so makes masks of equal scores."""
    shape = granularity(key)
    if shape.kept is not None:
        return shape.kept(sizes, sparsity)
    assert shape.mask is not None
    counts = []
    for row, fraction in enumerate(sparsity.tolist()):
        scores = torch.zeros([int(np.broadcast_to(size, sparsity.shape)[row]) for size in sizes])
        counts.append(int(shape.mask(scores, fraction).sum()))
    return np.asarray(counts, np.int64)
