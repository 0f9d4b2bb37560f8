"""Network Slimming: channels become quiet through the scales of their batch norms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from autoprune.errors import ConfigError
from autoprune.graph.groups import Group, Layer
from autoprune.pruning.scores import Scores
from autoprune.training.methods.l1 import check_strength
from autoprune.training.methods.method import METHODS, Method, Training
from autoprune.training.methods.proximal import soft_threshold


@dataclass(frozen=True)
class _ByNormScale:
    """Channels by |gamma| of their batch norms, weight patterns by magnitude."""

    scales: dict[str, Tensor]
    weights: dict[str, Tensor]
    kept: dict[str, Tensor]

    def layer_scores(self, criterion: str, layer: Layer) -> Tensor:
        weight = self.weights[layer.weight].detach().abs()
        kept = self.kept.get(layer.weight)
        return weight if kept is None else weight.clamp_min(torch.finfo(weight.dtype).tiny) * kept

    def unit_scores(self, criterion: str, group: Group) -> Tensor:
        return self.scales[group.name]


@METHODS.register("slimming")
@dataclass
class NetworkSlimming(Method):
    """The loss gets ``strength`` times the sum of |gamma| over the batch norms of the config's channels; the channels
    with the smallest scales go (Liu et al. 2017, arXiv 1708.06519).

    The paper follows the subgradient; here a proximal step makes zeros exact. Entries of the config with weight
    patterns are pruned by magnitude.

    Attributes:
        strength: Weight of the penalty beside the mean loss; the paper takes 1e-4 to 1e-5 over 160 epochs.

    Raises:
        UsageError: ``strength`` is not above 0.
    """  # noqa: D205

    strength: float = 1e-3
    key: ClassVar[str] = "slimming"
    summary: ClassVar[str] = "proximal L1 on batch-norm scales, the smallest go; Liu 2017 (arXiv 1708.06519)"

    def __post_init__(self) -> None:
        check_strength(self.key, self.strength)

    def start(self, training: Training) -> None:
        """Check that every group has a batch norm."""
        channels = [units for units in training.units if units.removed]
        if not channels:
            raise ConfigError("method 'slimming' prunes channels, and the config has none; choose 'l1' or 'gradual'")
        for units in channels:
            if not any(each.tensor in training.graph.norm_scales for each in units.places):
                raise ConfigError(
                    f"method 'slimming' needs a batch norm in group {units.name!r}; take it out or use 'l1'"
                )

    def after_step(self, training: Training) -> None:
        """Move the scales towards zero."""
        for name in self._scales(training):
            soft_threshold(training.parameters[name], self.strength * training.learning_rate(name))

    def scores(self, training: Training) -> Scores:
        """Return the sizes of the scales."""
        found = {}
        for units in training.units:
            places = tuple(each for each in units.places if each.tensor in training.graph.norm_scales)
            if units.removed and places:
                values = {each.tensor: self._sizes(each.tensor, training) for each in places}
                found[units.name] = units.sums(values, places).cpu()
        return _ByNormScale(found, dict(training.parameters), training.kept)

    def _sizes(self, name: str, training: Training) -> Tensor:
        """Return |gamma|, and -1 where it is masked: what is gone stays gone."""
        size = training.parameters[name].detach().abs().double()
        kept = training.kept.get(name)
        return size if kept is None else torch.where(kept, size, -1.0)

    def _scales(self, training: Training) -> list[str]:
        names = (each.tensor for units in training.units for each in units.places if units.removed)
        return list(dict.fromkeys(name for name in names if name in training.graph.norm_scales))
