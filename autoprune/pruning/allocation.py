"""Allocation: which layer loses how much, for a wanted total sparsity or MACs. The baselines of every search.

An allocation turns a total sparsity into a number of units per layer or group. The total is over the weights that go
with the units: each unit counts with its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from autoprune.errors import ConfigError
from autoprune.graph.groups import Group, ModelGraph
from autoprune.pruning.criteria.weights import lamp_scores
from autoprune.pruning.granularity import granularity, lowest, removed_count, size_of, unit_sums
from autoprune.pruning.scores import ScoreBook, pattern_scores
from autoprune.registry import Registry
from autoprune.spec.config import LayerChoice, ModelIdentity, PruningConfig, RecoverySpec

_BISECTIONS = 24


@dataclass(frozen=True)
class Place:
    """A layer or group that can lose units.

    Attributes:
        name: Address in a config.
        scores: Of its units, shape (units,), float64.
        weights: Weights that go with one unit, on average.
        spread: Sum over product of the weight's dimensions, of which Erdos-Renyi-Kernel makes a density.
        unit_macs: MACs that go with one unit; 0 where nobody counts them.
    """

    name: str
    scores: Tensor
    weights: float
    spread: float
    unit_macs: float = 0.0

    @property
    def units(self) -> int:
        """Number of units."""
        return len(self.scores)


@dataclass(frozen=True)
class MacsTarget:
    """How many MACs may be left.

    Attributes:
        fraction: Of the dense MACs.
        count: From a config to its MACs, as the study counts them; never more when more is removed.
    """

    fraction: float
    count: Callable[[PruningConfig], float]


Allocation = Callable[[Sequence[Place], float], tuple[int, ...]]
"""From places and a total sparsity to the units that each place loses: never more in total than asked."""

ALLOCATIONS: Registry[Allocation] = Registry("allocation", "autoprune.allocations")


def allocate(
    key: str,
    graph: ModelGraph,
    book: ScoreBook,
    granularity_key: str,
    criterion: str,
    *,
    sparsity: float | None = None,
    macs: MacsTarget | None = None,
    recovery: RecoverySpec | None = None,
) -> PruningConfig:
    """Return the config of an allocation.

    Args:
        key: Registry key of the allocation.
        graph: The model.
        book: Its scores.
        granularity_key: One whose units are chosen one by one; layers that it does not fit stay dense.
        criterion: Ranks the units.
        sparsity: Wanted share of weights to remove, at least 0 and below 1; never exceeded.
        macs: In its place: as little is removed as brings the MACs down to this.
        recovery: Goes into the config.

    Raises:
        ConfigError: Not exactly one of sparsity and macs, nothing to prune, or no sparsity reaches the MACs.
        UnknownNameError: No such allocation, granularity or criterion.
    """
    rule = ALLOCATIONS.get(key)
    if (sparsity is None) == (macs is None):
        raise ConfigError("an allocation is for a sparsity or for MACs; give exactly one of them")
    if sparsity is not None and not 0 <= sparsity < 1:
        raise ConfigError(f"the total sparsity is {sparsity:g}; give a fraction of at least 0 and below 1")
    found = places(graph, book, granularity_key, criterion)

    def config(counts: Sequence[int]) -> PruningConfig:
        layers = {
            place.name: (LayerChoice(granularity=granularity_key, criterion=criterion, sparsity=count / place.units),)
            for place, count in zip(found, counts, strict=True)
            if count
        }
        return PruningConfig(
            model=ModelIdentity(fingerprint=graph.fingerprint),
            seed=book.evidence.seed,
            recovery=recovery or RecoverySpec(),
            layers=layers,
        )

    if sparsity is not None:
        return config(rule(found, sparsity))
    assert macs is not None
    dense = macs.count(config([0] * len(found)))
    ones = [[int(i == j) for j in range(len(found))] for i in range(len(found))]
    found = tuple(
        Place(p.name, p.scores, p.weights, p.spread, max(dense - macs.count(config(one)), 0.0) if p.units > 1 else 0.0)
        for p, one in zip(found, ones, strict=True)
    )
    return _least(rule, found, config, macs, dense)


def _least(
    rule: Allocation,
    found: Sequence[Place],
    config: Callable[[Sequence[int]], PruningConfig],
    macs: MacsTarget,
    dense: float,
) -> PruningConfig:
    low, high = 0.0, 1.0 - 1e-9
    best = config(rule(found, high))
    reached = macs.count(best)
    if reached > macs.fraction * dense:
        raise ConfigError(
            f"{macs.fraction:.0%} of the MACs is below the {reached / dense:.1%} that is left when all but one unit of "
            "each layer goes; ask for more MACs, or take another granularity"
        )
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        tried = config(rule(found, middle))
        if macs.count(tried) <= macs.fraction * dense:
            high, best = middle, tried
        else:
            low = middle
    return best


def places(graph: ModelGraph, book: ScoreBook, granularity_key: str, criterion: str) -> tuple[Place, ...]:
    """Return what a granularity can take units from, in forward order.

    Raises:
        ConfigError: The granularity has no units to choose, or there is nothing to prune with this criterion.
    """
    shape = granularity(granularity_key)
    found: list[Place] = []
    if shape.removed:
        for group in graph.groups.values():
            if group.kind == granularity_key and group.units > 1 and book.serves(criterion, granularity_key, group):
                weights = sum(
                    prod(graph.shapes[s.tensor]) / graph.shapes[s.tensor][s.dim] * s.index.shape[1]
                    for s in group.slices
                )
                found.append(Place(group.name, book.unit_scores(criterion, group), weights, _spread(graph, group)))
    elif shape.units is None:
        raise ConfigError(
            f"{granularity_key} is not chosen unit by unit, so nothing can be allocated; take another granularity"
        )
    else:
        for layer in graph.layers.values():
            if shape.refusal(layer) or not book.serves(criterion, granularity_key, layer):
                continue
            size = size_of(layer)
            scores = book.layer_scores(criterion, layer)
            first = scores.movedim(scores.dim() - len(size) + layer.out_dim, scores.dim() - len(size))
            units = shape.units(size)
            sums = unit_sums(pattern_scores(first, shape, size)[None], units)[0].cpu()
            if len(sums) > 1:
                each = float((units >= 0).sum()) / len(sums)
                found.append(Place(layer.name, sums, each, sum(size) / prod(size)))
    if not found:
        raise ConfigError(
            f"no layer of this model can lose units of granularity {granularity_key!r} scored by {criterion!r}; "
            "take another granularity or criterion"
        )
    return tuple(found)


def _spread(graph: ModelGraph, group: Group) -> float:
    sizes = [size_of(graph.layers[name]) for name in group.layers]
    return sum(map(sum, sizes)) / sum(map(prod, sizes))


def _uniform(found: Sequence[Place], sparsity: float) -> tuple[int, ...]:
    return tuple(removed_count(place.units, sparsity) for place in found)


def _erdos_renyi_kernel(found: Sequence[Place], sparsity: float) -> tuple[int, ...]:
    return tuple(
        removed_count(place.units, 1 - density)
        for place, density in zip(found, erk_densities(found, sparsity), strict=True)
    )


def erk_densities(found: Sequence[Place], sparsity: float) -> tuple[float, ...]:
    """Return densities proportional to (sum of dimensions / product of dimensions), at most 1, that sum to the total.

    Mocanu et al. 2018 (arXiv 1707.04780); with kernels Evci et al. 2020 (arXiv 1911.11134). What a layer capped at 1
    does not take goes to the others.
    """
    sizes = [place.units * place.weights for place in found]
    dense: set[int] = set()
    while True:
        wanted = (1 - sparsity) * sum(sizes) - sum(sizes[i] for i in dense)
        share = sum(
            place.spread * size for i, (place, size) in enumerate(zip(found, sizes, strict=True)) if i not in dense
        )
        scale = wanted / share if share else 0.0
        over = {i for i, place in enumerate(found) if i not in dense and place.spread * scale > 1}
        if not over:
            return tuple(1.0 if i in dense else place.spread * scale for i, place in enumerate(found))
        dense |= over


def _global(found: Sequence[Place], sparsity: float) -> tuple[int, ...]:
    """Rank all units by score over the L2 norm of their layer's scores (Molchanov et al. 2017, arXiv 1611.06440)."""
    return _ranked(found, [_normalised(place.scores) for place in found], sparsity)


def _global_per_mac(found: Sequence[Place], sparsity: float) -> tuple[int, ...]:
    """As ``global``, with the score divided by the MACs that go with the unit."""
    if not any(place.unit_macs for place in found):
        raise ConfigError("allocation 'global_per_mac' needs MACs; give a MACs target, or use 'global'")
    per_mac = [_normalised(place.scores) / max(place.unit_macs, 1.0) for place in found]
    return _ranked(found, per_mac, sparsity)


def _lamp(found: Sequence[Place], sparsity: float) -> tuple[int, ...]:
    """Rank all units by LAMP: score over the sum of the scores in the layer that are not lower (Lee et al. 2021)."""
    return _ranked(found, [lamp_scores(place.scores.sqrt()) for place in found], sparsity)


def _normalised(scores: Tensor) -> Tensor:
    norm = max(float(scores.norm()), torch.finfo(scores.dtype).tiny)
    return scores / norm


def _ranked(found: Sequence[Place], scores: Sequence[Tensor], sparsity: float) -> tuple[int, ...]:
    """Remove the lowest of all units as long as the total is not exceeded; the best of each place stays."""
    owner, value, weight = [], [], []
    for number, (place, ranked) in enumerate(zip(found, scores, strict=True)):
        candidates = ranked[lowest(ranked, place.units - 1)]
        owner.append(torch.full((len(candidates),), number))
        value.append(candidates)
        weight.append(torch.full((len(candidates),), place.weights, dtype=torch.float64))
    order = torch.argsort(torch.cat(value), stable=True)
    gone = torch.cat(weight)[order].cumsum(0) <= sparsity * sum(p.units * p.weights for p in found) * (1 + 1e-12)
    counts = torch.bincount(torch.cat(owner)[order][gone], minlength=len(found))
    return tuple(int(count) for count in counts)


ALLOCATIONS.add("uniform", _uniform)
ALLOCATIONS.add("global", _global)
ALLOCATIONS.add("global_per_mac", _global_per_mac)
ALLOCATIONS.add("erdos_renyi_kernel", _erdos_renyi_kernel)
ALLOCATIONS.add("lamp", _lamp)
