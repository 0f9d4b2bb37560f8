"""Between the first objective and what the process models: the logarithm of a rise that adds up.

Damages of single layers add up in the loss, and an accuracy saturates: a network that is already broken loses nothing
more. So a value v that can reach at most ``top`` is told as the rise -top log(1 - v / top), of which v is the value to
first order, and the process sees the logarithm of the rise, whose errors are about as large for small ones as for large
ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from autoprune.search.greybox.domain import Floats

BROKEN = 0.95
"""Share of ``top`` from which on values are told as this: what lies beyond is chance."""

NODES = 48
"""Values at which a distribution is read, beside the levels that are asked for."""


@dataclass(frozen=True)
class Link:
    """The link between a value and its latent.

    Attributes:
        shift: Above 0; rises far below it are not told apart.
        top: The most that a value can reach; infinite where there is no such bound: then the rise is the value.
    """

    shift: float
    top: float = math.inf

    def rise(self, values: Floats) -> Floats:
        """Return the rises of values, in their unit."""
        if math.isinf(self.top):
            return values
        rises: Floats = -self.top * np.log1p(-np.minimum(values / self.top, BROKEN))
        return rises

    def latent(self, values: Floats) -> Floats:
        """Return log(rise + shift)."""
        latent: Floats = np.log(self.rise(values) + self.shift)
        return latent

    def value(self, latent: Floats) -> Floats:
        """Return the values of latents: the inverse of :meth:`latent`."""
        rises = np.exp(np.minimum(latent, 50.0)) - self.shift
        return rises if math.isinf(self.top) else -self.top * np.expm1(-rises / self.top)

    def below(self, levels: Floats, mean: Floats, deviation: Floats) -> Floats:
        """Return E[(level - v)+] for Gaussian latents, v counted as 0 where it is below, shape (n, k).

        That is the integral of P(v < t) for t from 0 to the level, by the trapezoidal rule.

        Args:
            levels: Ascending, at least 0, shape (k,).
            mean: Of the latents, shape (n,).
            deviation: Standard deviations, shape (n,).
        """
        ends = self.latent(np.array([0.0, max(float(levels[-1]), 1e-9)]))
        nodes = np.clip(self.value(np.linspace(ends[0], ends[1], NODES)), 0.0, levels[-1])
        at = np.unique(np.concatenate([[0.0], nodes, levels]))
        under = ndtr((self.latent(at)[None] - mean[:, None]) / np.maximum(deviation, 1e-9)[:, None])
        area = np.cumsum((under[:, 1:] + under[:, :-1]) * (np.diff(at) / 2), axis=1)
        area = np.concatenate([np.zeros((len(mean), 1)), area], axis=1)
        return area[:, np.searchsorted(at, levels)]
