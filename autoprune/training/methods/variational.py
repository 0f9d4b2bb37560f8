"""Sparse variational dropout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from autoprune.training.methods.l1 import check_strength
from autoprune.training.methods.method import METHODS, Training
from autoprune.training.methods.noise import NoisyWeights
from autoprune.training.methods.ranked import Ranked
from autoprune.training.units import Units

K1, K2, K3 = 0.63576, 1.87320, 1.48695
"""Of the fitted divergence (Molchanov et al. 2017, equation 14)."""


def divergence(log_alpha: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence to the log-uniform prior, up to a constant (equation 14).

    Args:
        log_alpha: log of the variance over the square of the mean, any shape.
    """
    return K1 - K1 * torch.sigmoid(K2 + K3 * log_alpha) + 0.5 * torch.nn.functional.softplus(-log_alpha)


@METHODS.register("variational")
@dataclass
class VariationalDropout(NoisyWeights):
    """Every weight is a Gaussian with learned variance; those with the most noise for their size go (Molchanov et al.
    2017, arXiv 1701.05369).

    The loss gets ``strength`` times the divergence to a log-uniform prior, summed over weights. Noise is drawn per
    weight and step, not per activation (the paper's local reparametrisation): gradients are unbiased, with more
    variance. Units rank by their most certain weight's -log alpha summed over the unit.

    Attributes:
        strength: Weight of the divergence beside the mean loss: 1 / samples of the training set is Bayes' rule.
        rate: Learning rate of the variances.
        initial: log of the first variances.

    Raises:
        UsageError: ``strength`` is not above 0.
    """  # noqa: D205

    strength: float = 1e-4
    rate: float = 0.02
    initial: float = -9.0
    key: ClassVar[str] = "variational"
    summary: ClassVar[str] = "learned Gaussian noise, the least certain weights go; Molchanov 2017 (arXiv 1701.05369)"

    def __post_init__(self) -> None:
        check_strength(self.key, self.strength)

    def scores(self, training: Training) -> Ranked:
        """Return how certain each unit is; what is masked stays masked."""
        found = []
        for units, variance in zip(training.units, self._learned, strict=True):
            total = torch.zeros(units.count, device=variance.device)
            for each, log_variance in zip(units.weights(), self._split(units, variance, training), strict=True):
                log_alpha = self._log_alpha(self._weights[each.tensor], log_variance)
                certain = (40 - log_alpha).clamp_min(1e-3)
                kept = training.kept.get(each.tensor)
                certain = certain if kept is None else certain * kept
                total += units.sums({each.tensor: certain}, (each,))
            found.append(total)
        return Ranked(training.units, tuple(found))

    def _touched(self, units: Units, training: Training) -> tuple[str, ...]:
        return tuple(dict.fromkeys(each.tensor for each in units.weights()))

    def _make(self, units: Units, training: Training) -> Tensor:
        first = training.parameters[units.weights()[0].tensor]
        count = sum(training.parameters[each.tensor].numel() for each in units.weights())
        return torch.full((count,), self.initial, dtype=torch.float32, device=first.device)

    def _split(self, units: Units, flat: Tensor, training: Training) -> list[Tensor]:
        shapes = [training.parameters[each.tensor].shape for each in units.weights()]
        parts = torch.split(flat, [shape.numel() for shape in shapes])
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    def _draw(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self._generator).to(like.device)

    def _log_alpha(self, weight: Tensor, log_variance: Tensor) -> Tensor:
        return (log_variance - (weight.square() + 1e-12).log()).clamp(-20, 20)

    def _noisy(self, training: Training) -> dict[str, Tensor]:
        found = {name: weight.clone() for name, weight in self._weights.items()}
        for units, learned, noise in zip(training.units, self._learned, self._noise, strict=True):
            parts = zip(
                units.weights(), self._split(units, learned, training), self._split(units, noise, training), strict=True
            )
            for each, log_variance, drawn in parts:
                found[each.tensor] += torch.exp(0.5 * log_variance) * drawn
        return found

    def _evaluated(self, training: Training) -> dict[str, Tensor]:
        return dict(self._weights)

    def _backward(self, training: Training) -> None:
        gradients = training.gradients()
        for units, learned, noise in zip(training.units, self._learned, self._noise, strict=True):
            total = torch.zeros_like(learned)
            split = self._split(units, total, training)
            parts = zip(
                units.weights(),
                self._split(units, learned, training),
                self._split(units, noise, training),
                split,
                strict=True,
            )
            for each, log_variance, drawn, slot in parts:
                gradient = gradients.get(each.tensor)
                if gradient is None:
                    continue
                with torch.enable_grad():
                    weight = self._weights[each.tensor].detach().requires_grad_()
                    variance = log_variance.detach().clone().requires_grad_()
                    prior = self.strength * divergence(self._log_alpha(weight, variance)).sum()
                    by_weight, by_variance = torch.autograd.grad(prior, [weight, variance])
                slot.copy_(by_variance + gradient * drawn * 0.5 * torch.exp(0.5 * log_variance))
                gradient += by_weight
            learned.grad = total
