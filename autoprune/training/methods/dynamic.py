"""Dynamic sparse training: at every change of masks some weights are dropped and as many are grown."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from autoprune.errors import ConfigError, UsageError
from autoprune.training.methods.method import Method, Training
from autoprune.training.methods.ranked import Ranked
from autoprune.training.units import Units


class DropAndGrow(Method):
    """What RigL and SET share; a subclass says by what units grow (``_growth``).

    Where masks change, the smallest of the units that are there are dropped, a fraction of them that falls from
    ``fraction`` to 0 along a cosine over the schedule (Evci et al. 2020, section 3), and as many are grown, from zero,
    among all that are not there. The sparsity is the schedule's: constant with :class:`ConstantSchedule`, and with a
    ramp it is gradual pruning with regrowth (GraNet, Liu et al. 2021, arXiv 2106.10404). The first masks are drawn at
    random.
    """

    removes_at_once: ClassVar[bool] = False
    fraction: float

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise UsageError(f"the fraction of method {self.key!r} is above 0 and below 1, not {self.fraction!r}")

    def start(self, training: Training) -> None:
        """Check the config; nothing is drawn yet."""
        for units in training.units:
            if units.removed:
                raise ConfigError(
                    f"method {self.key!r} grows weights, and group {units.name!r} loses {units.choice.granularity}s, "
                    "which have no gradient once they are masked; give it a weight pattern, or use another method"
                )
        self._generator = torch.Generator().manual_seed(training.config.seed)

    def scores(self, training: Training) -> Ranked:
        """Return ranks: survivors above what may grow above what may not."""
        return Ranked(training.units, tuple(self._ranks(units, training) for units in training.units))

    def _ranks(self, units: Units, training: Training) -> Tensor:
        place = units.weights()[0]
        kept = training.kept.get(place.tensor)
        if kept is None:
            return self._drawn(units.count, place.labels.device)
        there = units.sums({place.tensor: kept.double()}, (place,)) > 0
        size = units.sums({place.tensor: training.parameters[place.tensor].detach().abs().double()}, (place,))
        growth = self._growth(units, training).double()
        left = int(there.sum())
        survivors = torch.zeros_like(there)
        count = left - int(self._share(training) * left)
        order = torch.argsort(torch.where(there, size, -1.0), descending=True, stable=True)
        survivors[order[:count]] = True
        top = growth.max().clamp_min(torch.finfo(torch.float64).tiny)
        return torch.where(survivors, 2 + size / size.max().clamp_min(1e-300), growth / top)

    def _share(self, training: Training) -> float:
        begin, end = training.schedule.begin, max(training.schedule.end, training.schedule.begin + 1)
        done = min(max((training.step - begin) / (end - begin), 0.0), 1.0)
        return self.fraction / 2 * (1 + math.cos(math.pi * done))

    def _drawn(self, count: int, device: torch.device) -> Tensor:
        return torch.rand(count, generator=self._generator, dtype=torch.float64).to(device)

    def state_dict(self) -> dict[str, Any]:
        """Return the generator."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the generator."""
        self._generator.set_state(state["generator"].cpu())

    @abstractmethod
    def _growth(self, units: Units, training: Training) -> Tensor: ...
