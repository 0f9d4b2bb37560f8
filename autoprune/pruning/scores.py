"""Scores of weights and units: computed once per criterion, kept over trials.

The one rule by which scores of weights become scores of units, whatever the criterion and the granularity: they are
summed over the unit. Signed contributions (draws first) are summed over the unit, squared, and averaged over draws.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from autoprune.errors import ConfigError
from autoprune.graph.blocks import Stage, is_within
from autoprune.graph.groups import Group, Layer, Slices
from autoprune.pruning.columns import Moments
from autoprune.pruning.criteria import CRITERIA, Evidence
from autoprune.pruning.criteria.curvature import input_moments
from autoprune.pruning.granularity import DEPTH, Granularity, unit_sums

T = TypeVar("T")


class Scores(Protocol):
    """What a plan asks about a model."""

    def layer_scores(self, criterion: str, layer: Layer) -> Tensor:
        """Return the scores of a layer's weight: its shape, or with a leading dimension of draws."""
        ...

    def unit_scores(self, criterion: str, group: Group) -> Tensor:
        """Return the scores of a group's units, shape (units,)."""
        ...


class BlockScores(Protocol):
    """What decides which residual blocks go."""

    def block_scores(self, criterion: str, stage: Stage) -> Tensor:
        """Return the scores of a stage's blocks, shape (blocks,)."""
        ...


@dataclass
class ScoreBook:
    """All scores of one dense model, and what compensation must know of it.

    Attributes:
        evidence: What criteria look at.
    """

    evidence: Evidence
    _weights: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)
    _units: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    _moments: dict[bool, Mapping[str, Moments]] = field(default_factory=dict)
    _kept: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def computed(self) -> Mapping[str, Mapping[str, Tensor]]:
        """Criterion to what :meth:`weight_scores` gave, for the criteria that were asked for so far."""
        return dict(self._weights)

    def take(self, computed: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take over what another book of the same model has :attr:`computed`."""
        self._weights.update(computed)

    def keep(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what ``make`` makes of the dense model, made once and kept under ``key``."""
        if key not in self._kept:
            self._kept[key] = make()
        kept: T = self._kept[key]
        return kept

    def missing_data(self, criterion: str) -> str:
        """Return what a criterion needs and the task does not give, as "Task.batches"; empty if nothing is missing."""
        rule = CRITERIA.get(criterion)
        lacks = {
            "Task.batches": rule.needs_data and self.evidence.batches is None,
            "Task.loss": rule.needs_loss and self.evidence.loss is None,
        }
        return " and ".join(name for name, missing in lacks.items() if missing)

    def serves(self, criterion: str, granularity: str, judged: Layer | Group | Stage) -> bool:
        """Whether a criterion can score the units of a layer, group or stage.

        Raises:
            ConfigError: As :meth:`weight_scores`.
        """
        rule = CRITERIA.get(criterion)
        if rule.granularities is not None and granularity not in rule.granularities:
            return False
        if isinstance(judged, Layer):
            return judged.weight in self.weight_scores(criterion)
        if isinstance(judged, Stage):
            scored = self.weight_scores(criterion)
            return all(any(is_within(name, [block.name]) for name in scored) for block in judged.blocks)
        return bool(self._judged(criterion, judged))

    def weight_scores(self, criterion: str) -> Mapping[str, Tensor]:
        """Return for each tensor that the criterion judges its scores, as :meth:`Criterion.scores` gives them.

        Raises:
            ConfigError: The criterion needs data that the task does not give, or yields NaN or a negative score.
        """
        if criterion not in self._weights:
            missing = self.missing_data(criterion)
            if missing:
                raise ConfigError(
                    f"criterion {criterion!r} needs data, and the task has no {missing}; give it, or choose another "
                    "criterion"
                )
            scores = CRITERIA.get(criterion).scores(self.evidence)
            for name, values in scores.items():
                signed = _is_signed(values, self.evidence.model.get_parameter(name))
                if not bool(torch.isfinite(values).all()) or (not signed and bool((values < 0).any())):
                    raise ConfigError(
                        f"criterion {criterion!r} gives a score for {name!r} that is negative or not finite; "
                        "check the loss on Task.batches, or choose another criterion"
                    )
            self._weights[criterion] = scores
        return self._weights[criterion]

    def layer_scores(self, criterion: str, layer: Layer) -> Tensor:
        """Return the scores of a layer's weight.

        Raises:
            ConfigError: As :meth:`weight_scores`, and where the criterion does not judge this layer.
        """
        scores = self.weight_scores(criterion)
        if layer.weight not in scores:
            raise ConfigError(
                f"criterion {criterion!r} cannot judge layer {layer.name!r} ({layer.type_name}) or saw no input of it; "
                "choose another criterion for it"
            )
        return scores[layer.weight]

    def unit_scores(self, criterion: str, group: Group) -> Tensor:
        """Return the scores of a group's units, shape (units,).

        Every tensor in which the group's channels are made or read, and that the criterion judges, counts the same: its
        scores are summed over each unit and divided by their mean over the units. Without that, the tensor with the
        largest numbers alone would decide (the "mean" normaliser of Fang et al. 2023, arXiv 2301.12900).

        Raises:
            ConfigError: The criterion judges no tensor of the group.
        """
        key = (criterion, group.name)
        if key not in self._units:
            scores = self.weight_scores(criterion)
            judged = self._judged(criterion, group)
            if not judged:
                raise ConfigError(
                    f"criterion {criterion!r} judges nothing in group {group.name!r} ({_why_nothing(criterion)}); "
                    "choose another criterion for it"
                )
            total = torch.zeros(group.units, dtype=torch.float64)
            for slices in judged:
                values = scores[slices.tensor]
                signed = _is_signed(values, self.evidence.model.get_parameter(slices.tensor))
                draws = values if signed else values[None]
                by_place = draws.movedim(slices.dim + 1, 1).flatten(2) if draws.dim() > 2 else draws[..., None]
                sums = by_place.sum(dim=2, dtype=torch.float64).cpu()[:, slices.index].sum(dim=2)
                per_unit = _settle(sums, signed)
                mean = per_unit.mean()
                total += per_unit / mean if mean > 0 else per_unit
            self._units[key] = total
        return self._units[key]

    def block_scores(self, criterion: str, stage: Stage) -> Tensor:
        """Return the scores of a stage's blocks, shape (blocks,): the sum over all weights of a block.

        Raises:
            ConfigError: The criterion judges nothing in a block.
        """
        if not self.serves(criterion, DEPTH, stage):
            raise ConfigError(
                f"criterion {criterion!r} cannot score whole blocks, as of stage {stage.name!r}; "
                "choose another criterion"
            )
        scores = self.weight_scores(criterion)
        return torch.stack([self._block_score(scores, block.name) for block in stage.blocks])

    def _block_score(self, scores: Mapping[str, Tensor], block: str) -> Tensor:
        within = {name: values for name, values in scores.items() if is_within(name, [block])}
        signed = any(_is_signed(values, self.evidence.model.get_parameter(name)) for name, values in within.items())
        draws = [values if signed else values[None] for values in within.values()]
        sums = torch.stack([each.flatten(1).sum(dim=1, dtype=torch.float64).cpu() for each in draws]).sum(dim=0)
        return _settle(sums[:, None], signed)[0]

    def moments(self, second: bool) -> Mapping[str, Moments]:
        """Return the moments of what each layer reads, by weight name; it needs ``Task.batches``.

        Args:
            second: Whether second moments are wanted too; they need inner^2 numbers per layer.
        """
        if second not in self._moments:
            self._moments[second] = self._moments.get(True) or input_moments(self.evidence, gram=second)
        return self._moments[second]

    def _judged(self, criterion: str, group: Group) -> list[Slices]:
        scores = self.weight_scores(criterion)
        roles = CRITERIA.get(criterion).judges
        return [slices for slices in group.slices if slices.tensor in scores and slices.role in roles]


def pattern_scores(values: Tensor, shape: Granularity, size: tuple[int, ...]) -> Tensor:
    """Return non-negative scores per weight whose sums over units are the scores of the units.

    Args:
        values: Scores, shape ``size``, or signed contributions, shape (draws, *size).
        shape: The weight pattern.
        size: Of the weight, (out, in, *kernel).
    """
    if values.dim() == len(size):
        return values
    if shape.units is None:
        return values.double().square().mean(dim=0)
    units = shape.units(size).to(values.device)
    settled = _settle(unit_sums(values, units), signed=True)
    weights = torch.bincount(units[units >= 0], minlength=len(settled))
    share = torch.cat([settled / weights, settled.new_zeros(1)])
    return share[units]


def units_below(scores: Tensor, deviations: float) -> int:
    """Return how many units score below mean - ``deviations`` * std; one always stays.

    Args:
        scores: Shape (units,).
        deviations: Standard deviations (of the population) below the mean.
    """
    if scores.numel() < 2:
        return 0
    limit = scores.mean() - deviations * scores.std(correction=0)
    return min(int((scores < limit).sum()), scores.numel() - 1)


def _is_signed(values: Tensor, parameter: Tensor) -> bool:
    return values.dim() == parameter.dim() + 1


def _settle(sums: Tensor, signed: bool) -> Tensor:
    """Return unit scores from sums over units, shape (draws, units)."""
    return sums.square().mean(dim=0) if signed else sums[0]


def _why_nothing(criterion: str) -> str:
    judges = CRITERIA.get(criterion).judges
    if judges == ("along",):
        return "it has no batch norm"
    return "no layer reads it" if judges == ("in",) else "none of its tensors is scored"
