"""A Gaussian process over candidates: Matern 5/2, one length for each knob, each observation with its own noise.

Fitted by maximum a posteriori (L-BFGS on the exact gradient) on at most a few hundred observations: the gradient for
all lengths together costs one matrix product, since each enters the squared distance with a factor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize

from autoprune.search.greybox.domain import Floats

FIT_POINTS = 240
"""Observations that hyperparameters are fitted on: more change them little, and each step costs their cube."""

_JITTER = 1e-6


@dataclass(frozen=True)
class Hyperparameters:
    """Of the process, all as logarithms.

    Attributes:
        weights: Factor of each knob in the squared distance, shape (knobs,).
        scale: Variance of the process.
        noise: Variance of an observation.
    """

    weights: Floats
    scale: float
    noise: float


@dataclass(frozen=True)
class Prior:
    """What is believed of the hyperparameters before any observation: normal distributions of their logarithms.

    Attributes:
        weights: Mean of the log weights, shape (knobs,).
        spread: Standard deviation of them.
        scale: Mean of the log variance (its standard deviation is 1).
        noise: Mean of the log noise (its standard deviation is 1).
    """

    weights: Floats
    spread: float = 1.0
    scale: float = 0.0
    noise: float = -4.0


@dataclass(frozen=True)
class Observations:
    """What was seen.

    Attributes:
        coordinates: Shape (n, coordinates).
        owner: Knob of each coordinate, shape (coordinates,).
        trend: Known functions of the candidate whose factors are fitted with the process, shape (n, t).
        values: Shape (n,).
        extra: Further noise variance of each, shape (n,): 0 for a trial of full fidelity.
    """

    coordinates: Floats
    owner: NDArray[np.int64]
    trend: Floats
    values: Floats
    extra: Floats


def fit(seen: Observations, prior: Prior, iterations: int = 25) -> Hyperparameters:
    """Return the hyperparameters of the highest posterior density.

    Args:
        seen: At most :data:`FIT_POINTS` of them are used: evenly spread over the order given.
        prior: Of the hyperparameters.
        iterations: Of L-BFGS.
    """
    if len(seen.values) > FIT_POINTS:
        seen = _some(seen, np.linspace(0, len(seen.values) - 1, FIT_POINTS).astype(np.int64))
    knobs = len(prior.weights)
    owner_of = np.zeros((len(seen.owner), knobs))
    owner_of[np.arange(len(seen.owner)), seen.owner] = 1.0
    mean = np.concatenate([prior.weights, [prior.scale, prior.noise]])
    spread = np.concatenate([np.full(knobs, prior.spread), [1.0, 1.0]])

    def loss(at: Floats) -> tuple[float, Floats]:
        found = Hyperparameters(at[:knobs], at[knobs], at[knobs + 1])
        value, gradient = _evidence(seen, found, owner_of)
        away = (at - mean) / spread
        return value + 0.5 * float(away @ away), gradient + away / spread

    found = minimize(
        loss,
        mean,
        jac=True,
        method="L-BFGS-B",
        bounds=[(low - 5 * s, low + 5 * s) for low, s in zip(mean, spread, strict=True)],
        options={"maxiter": iterations},
    ).x
    return Hyperparameters(found[:knobs], float(found[knobs]), float(found[knobs + 1]))


class Process:
    """The posterior.

    Args:
        seen: Observations.
        hyperparameters: From :func:`fit`.
    """

    def __init__(self, seen: Observations, hyperparameters: Hyperparameters) -> None:
        self._stretch = np.exp(hyperparameters.weights / 2)[seen.owner]
        self._at = seen.coordinates * self._stretch
        self._scale = float(np.exp(hyperparameters.scale))
        kernel = self._scale * _matern(_distances(self._at, self._at))
        kernel[np.diag_indices_from(kernel)] += np.exp(hyperparameters.noise) + seen.extra + _JITTER * self._scale
        self._factor = np.linalg.cholesky(kernel)
        whitened = solve_triangular(self._factor, np.column_stack([seen.trend, seen.values]), lower=True)
        trend, values = whitened[:, :-1], whitened[:, -1]
        # A little ridge: a trend that is constant so far has no factor yet.
        normal = trend.T @ trend + 1e-6 * np.eye(trend.shape[1])
        self.factors: Floats = np.linalg.solve(normal, trend.T @ values)
        self._weights = solve_triangular(self._factor, values - trend @ self.factors, lower=True, trans="T")

    def posterior(self, coordinates: Floats, trend: Floats) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of what is observed without noise, shape (n,) each."""
        cross = self._scale * _matern(_distances(coordinates * self._stretch, self._at))
        mean = trend @ self.factors + cross @ self._weights
        explained = solve_triangular(self._factor, cross.T, lower=True, check_finite=False)
        variance = self._scale - np.einsum("ij,ij->j", explained, explained)
        return mean, np.sqrt(np.maximum(variance, 1e-10))


def _evidence(seen: Observations, at: Hyperparameters, owner_of: Floats) -> tuple[float, Floats]:
    """Return the negative log evidence, trend marginalised by its best factors, and its gradient."""
    stretch = np.exp(at.weights / 2)[seen.owner]
    x = seen.coordinates * stretch
    squared = _distances(x, x)
    scale, noise = np.exp(at.scale), np.exp(at.noise)
    shape, slope = _matern_with_slope(squared)
    kernel = scale * shape
    kernel[np.diag_indices_from(kernel)] += noise + seen.extra + _JITTER * scale
    try:
        factor = cho_factor(kernel, lower=True, check_finite=False)
    except np.linalg.LinAlgError:
        return 1e10, np.zeros(owner_of.shape[1] + 2)
    inverse = cho_solve(factor, np.eye(len(kernel)), check_finite=False)
    trend = seen.trend
    weighted = inverse @ trend
    factors = np.linalg.solve(trend.T @ weighted + 1e-6 * np.eye(trend.shape[1]), weighted.T @ seen.values)
    residual = seen.values - trend @ factors
    alpha = inverse @ residual
    value = 0.5 * float(residual @ alpha) + float(np.log(np.diag(factor[0])).sum())
    pull = inverse - np.outer(alpha, alpha)  # d value / d kernel, times 2
    by_distance = pull * (scale * slope)
    rows = by_distance.sum(axis=1)
    # sum_ij M_ij (x_ik - x_jk)^2 = 2 sum_i r_i x_ik^2 - 2 (X' M X)_kk
    each = 2 * (rows @ x**2) - 2 * np.einsum("ik,ik->k", x, by_distance @ x)
    weights = 0.5 * (each @ owner_of)
    diagonal = float(np.trace(pull))
    of_scale = 0.5 * (float((pull * scale * shape).sum()) + _JITTER * scale * diagonal)
    return value, np.concatenate([weights, [of_scale, 0.5 * noise * diagonal]])


def _distances(a: Floats, b: Floats) -> Floats:
    squared: Floats = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * a @ b.T
    np.maximum(squared, 0.0, out=squared)
    return squared


def _matern(squared: Floats) -> Floats:
    root = np.sqrt(5 * squared)
    value: Floats = (1 + root + 5 / 3 * squared) * np.exp(-root)
    return value


def _matern_with_slope(squared: Floats) -> tuple[Floats, Floats]:
    """Return the kernel and its derivative by the squared distance."""
    root = np.sqrt(5 * squared)
    decay = np.exp(-root)
    return (1 + root + 5 / 3 * squared) * decay, -5 / 6 * (1 + root) * decay


def _some(seen: Observations, rows: NDArray[np.int64]) -> Observations:
    return Observations(seen.coordinates[rows], seen.owner, seen.trend[rows], seen.values[rows], seen.extra[rows])
