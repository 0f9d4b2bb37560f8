"""RigL: what has the largest gradient grows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from autoprune.training.methods.dynamic import DropAndGrow
from autoprune.training.methods.method import METHODS, Training
from autoprune.training.units import Units


@METHODS.register("rigl")
@dataclass
class RigL(DropAndGrow):
    """Drop by magnitude, grow by the magnitude of the gradient (Evci et al. 2020, arXiv 1911.11134).

    For training from scratch at 80 to 90 % sparsity with ``ConstantSchedule(begin=0, end=3 * steps // 4, every=100)``.

    Attributes:
        fraction: Share of what is there that is dropped at the first change.

    Raises:
        UsageError: ``fraction`` is not between 0 and 1.
    """

    fraction: float = 0.3
    key: ClassVar[str] = "rigl"
    summary: ClassVar[str] = "drop the smallest, grow the largest gradients; Evci 2020 (arXiv 1911.11134)"
    _gradients: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def on_gradient(self, training: Training) -> None:
        """Keep the whole gradient where masks change after this step."""
        due = training.schedule.due(training.step + 1)
        self._gradients = {}
        for name in training.pruned_weights() if due else ():
            gradient = training.parameters[name].grad
            if gradient is not None:
                self._gradients[name] = gradient.detach().abs().clone()

    def _growth(self, units: Units, training: Training) -> Tensor:
        place = units.weights()[0]
        gradient = self._gradients.get(place.tensor)
        if gradient is None:
            return torch.zeros(units.count, dtype=torch.float64, device=training.parameters[place.tensor].device)
        return units.sums({place.tensor: gradient.double()}, (place,))
