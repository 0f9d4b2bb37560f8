"""L0 regularisation by hard-concrete gates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from autoprune.training.methods.l1 import check_strength
from autoprune.training.methods.method import METHODS, Training
from autoprune.training.methods.noise import NoisyWeights
from autoprune.training.methods.ranked import Ranked
from autoprune.training.units import Places, Units

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
"""Temperature and stretch of the hard concrete distribution (Louizos et al. 2018, section 4)."""


def gates(log_alpha: Tensor, uniform: Tensor | None) -> Tensor:
    """Return hard-concrete gates in [0, 1] (Louizos et al. 2018, equations 10 to 13).

    Args:
        log_alpha: Location of each gate.
        uniform: Noise in (0, 1), same shape; None for the gates of evaluation.
    """
    if uniform is None:
        s = torch.sigmoid(log_alpha)
    else:
        s = torch.sigmoid((uniform.log() - (1 - uniform).log() + log_alpha) / BETA)
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0.0, 1.0)


def open_probability(log_alpha: Tensor) -> Tensor:
    """Return the probability that a gate is not zero (equation 12)."""
    return torch.sigmoid(log_alpha - BETA * math.log(-GAMMA / ZETA))


@METHODS.register("l0")
@dataclass
class L0(NoisyWeights):
    """A stochastic gate per unit; the loss gets ``strength`` times the expected number of open gates, relative to all
    (Louizos et al. 2018, arXiv 1712.01312).

    A gate stands on a unit's weights, of a channel where it is read. At the schedule's changes of masks the units go
    whose gates are the least open. A pass in evaluation mode sees the deterministic gates; save inside
    :meth:`Sparsifier.settled`.

    Attributes:
        strength: Weight of the penalty beside the mean loss.
        rate: Learning rate of the gates.

    Raises:
        UsageError: ``strength`` is not above 0.
    """  # noqa: D205

    strength: float = 1.0
    rate: float = 0.02
    key: ClassVar[str] = "l0"
    summary: ClassVar[str] = "hard-concrete gates, the least open go; Louizos 2018 (arXiv 1712.01312)"

    def __post_init__(self) -> None:
        check_strength(self.key, self.strength)

    def scores(self, training: Training) -> Ranked:
        """Return how open each gate is; what is masked stays masked."""
        return Ranked(training.units, tuple(self._masked_low(each, training) for each in training.units))

    def _masked_low(self, units: Units, training: Training) -> Tensor:
        log_alpha = self._learned[training.units.index(units)]
        places = self._places(units, training)
        kept = {each.tensor: training.kept.get(each.tensor) for each in places}
        ones = {each.tensor: torch.ones_like(training.parameters[each.tensor]) for each in places}
        alive = {name: ones[name] if mask is None else mask.to(ones[name].dtype) for name, mask in kept.items()}
        return torch.where(units.sums(alive, places) > 0, open_probability(log_alpha), -1.0)

    def _places(self, units: Units, training: Training) -> tuple[Places, ...]:
        own = tuple(each for each in units.places if each.tensor in training.parameters)
        return tuple(each for each in own if each.read) or own

    def _touched(self, units: Units, training: Training) -> tuple[str, ...]:
        return tuple(each.tensor for each in self._places(units, training))

    def _make(self, units: Units, training: Training) -> Tensor:
        weight = training.parameters[units.places[0].tensor]
        return torch.full((units.count,), 2.0, dtype=torch.float32, device=weight.device)

    def _noisy(self, training: Training) -> dict[str, Tensor]:
        return self._gated(training, [gates(a, u) for a, u in zip(self._learned, self._noise, strict=True)])

    def _evaluated(self, training: Training) -> dict[str, Tensor]:
        return self._gated(training, [gates(each, None) for each in self._learned])

    def _gated(self, training: Training, values: list[Tensor]) -> dict[str, Tensor]:
        found = {name: weight.clone() for name, weight in self._weights.items()}
        for units, gate in zip(training.units, values, strict=True):
            for each in self._places(units, training):
                found[each.tensor] *= units.spread(gate, each, 1.0)
        return found

    def _backward(self, training: Training) -> None:
        gradients = training.gradients()
        total = sum(units.count for units in training.units)
        with torch.enable_grad():
            learned = [each.detach().requires_grad_() for each in self._learned]
            weights = {name: self._weights[name].detach().requires_grad_() for name in self._names if name in gradients}
            outputs = dict(weights)
            values = [gates(a, u) for a, u in zip(learned, self._noise, strict=True)]
            for units, gate in zip(training.units, values, strict=True):
                for each in self._places(units, training):
                    if each.tensor in outputs:
                        outputs[each.tensor] = outputs[each.tensor] * units.spread(gate, each, 1.0)
            inner = torch.stack([(outputs[name] * gradients[name]).sum() for name in outputs]).sum()
            penalty = self.strength / total * torch.cat([open_probability(each) for each in learned]).sum()
            found = torch.autograd.grad(inner + penalty, [*learned, *weights.values()])
        for mine, gradient in zip(self._learned, found, strict=False):
            mine.grad = gradient
        for name, gradient in zip(weights, found[len(learned) :], strict=True):
            gradients[name].copy_(gradient)
