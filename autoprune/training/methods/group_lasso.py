"""Group lasso: whole units become zero by themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from autoprune.training.methods.l1 import check_strength
from autoprune.training.methods.method import METHODS, Method, Training
from autoprune.training.methods.proximal import shrink_factors


@METHODS.register("group_lasso")
@dataclass
class GroupLasso(Method):
    """The loss gets ``strength`` times sqrt(n) |w|_2 for every unit of n weights (Yuan & Lin 2006; in networks Wen
    et al. 2016, arXiv 1608.03665).

    Units are those of the config's granularities: single weights make it L1, of channels the weights count in which
    they are made. As in :class:`L1` a proximal step follows the optimizer's.

    Attributes:
        strength: Weight of the penalty beside the mean loss.

    Raises:
        UsageError: ``strength`` is not above 0.
    """  # noqa: D205 - the formula needs its sources

    strength: float = 1e-3
    key: ClassVar[str] = "group_lasso"
    summary: ClassVar[str] = "proximal sqrt(n) |unit|_2, then the config's criteria; Wen 2016 (arXiv 1608.03665)"

    def __post_init__(self) -> None:
        check_strength(self.key, self.strength)

    def after_step(self, training: Training) -> None:
        """Shrink every unit towards zero."""
        for units in training.units:
            places = units.weights()
            weights = {each.tensor: training.parameters[each.tensor] for each in places}
            norms = units.sums({name: weight.square() for name, weight in weights.items()}, places).sqrt()
            sizes = units.sums({name: torch.ones_like(weight) for name, weight in weights.items()}, places)
            amounts = self.strength * training.learning_rate(places[0].tensor) * sizes.sqrt()
            factors = shrink_factors(norms, amounts)
            for each in places:
                weights[each.tensor].mul_(units.spread(factors, each, 1.0))
