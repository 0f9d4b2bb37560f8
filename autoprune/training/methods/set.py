"""SET: what grows is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from autoprune.training.methods.dynamic import DropAndGrow
from autoprune.training.methods.method import METHODS, Training
from autoprune.training.units import Units


@METHODS.register("set")
@dataclass
class SET(DropAndGrow):
    """Drop by magnitude, grow at random (Mocanu et al. 2018, arXiv 1707.04780); what grows starts from zero.

    Attributes:
        fraction: Share of what is there that is dropped at the first change.

    Raises:
        UsageError: ``fraction`` is not between 0 and 1.
    """

    fraction: float = 0.3
    key: ClassVar[str] = "set"
    summary: ClassVar[str] = "drop the smallest, grow at random; Mocanu 2018 (arXiv 1707.04780)"

    def _growth(self, units: Units, training: Training) -> Tensor:
        return self._drawn(units.count, training.parameters[units.weights()[0].tensor].device)
