"""Scores that a method has learned or made up, per unit of the config's entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from autoprune.graph.groups import Group, Layer
from autoprune.training.units import Units


@dataclass(frozen=True)
class Ranked:
    """One score per unit; the lowest go, whatever criterion the config names.

    Attributes:
        units: The units of every entry.
        scores: In the same order, each of shape (count,).
    """

    units: tuple[Units, ...]
    scores: tuple[Tensor, ...]

    def layer_scores(self, criterion: str, layer: Layer) -> Tensor:
        """Return scores of weights whose sums over units are the scores of the units."""
        for units, scores in zip(self.units, self.scores, strict=True):
            if not units.removed and units.name == layer.name:
                place = units.weights()[0]
                flat = place.labels.reshape(-1)
                sizes = flat[flat >= 0].bincount(minlength=units.count).clamp_min(1)
                share = scores.detach().double() / sizes.to(scores.device)
                return units.spread(share, place, float(share.max()))
        raise KeyError(layer.name)

    def unit_scores(self, criterion: str, group: Group) -> Tensor:
        """Return the scores of a group's units."""
        for units, scores in zip(self.units, self.scores, strict=True):
            if units.removed and units.name == group.name:
                return scores.detach().double().cpu()
        raise KeyError(group.name)


def state_of(tensors: Mapping[str, Tensor] | tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Return copies of a method's tensors by name, or by number, for a checkpoint."""
    items = tensors.items() if isinstance(tensors, Mapping) else ((str(i), each) for i, each in enumerate(tensors))
    return {name: each.detach().clone() for name, each in items}
