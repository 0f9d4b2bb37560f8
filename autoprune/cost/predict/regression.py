"""Relative Bayesian regression: a sum of kernels whose widths are those that explain the measurements best.

The prior is a Gaussian process with one linear kernel for each family of columns, and a smooth one over the widths of
the groups for what the columns miss (caches, and what a runtime chooses by size). The widths maximise the marginal
likelihood (Rasmussen and Williams, 2006, chapter 5), and leaving one out has a closed form (5.10 to 5.12 there).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from autoprune.cost.extents import Floats, Ints

_GRID = (0.4, 2.5)
_SWEEPS = 3


@dataclass(frozen=True)
class Inputs:
    """What the regression sees of ``n`` networks.

    Attributes:
        trend: Columns with a wide prior, shape (n, t): the constant, the modelled ratio.
        columns: Kernel columns, shape (n, c).
        widths: Share of units that each group keeps, shape (n, g).
    """

    trend: Floats
    columns: Floats
    widths: Floats

    def __len__(self) -> int:
        return len(self.trend)


@dataclass(frozen=True)
class Regression:
    """A fitted regression; made by :func:`fit`.

    Attributes:
        seen: Networks it was fitted to.
        family: Family of each column.
        scales: Standard deviations of the priors: of each family, of the smooth part, and its length; then the noise.
        solved: Inverse covariance times measurements, shape (n,).
        inverse: Inverse covariance, shape (n, n).
        left_out: Prediction of each measurement from all others, shape (n,).
        evidence: Logarithm of the marginal likelihood.
    """

    seen: Inputs
    family: Ints
    scales: Floats
    solved: Floats
    inverse: Floats = field(repr=False)
    left_out: Floats = field(repr=False)
    evidence: float

    @property
    def noise(self) -> float:
        """Relative standard deviation of a measurement."""
        return float(self.scales[-1])

    @property
    def column_weights(self) -> Floats:
        """Coefficients of the columns, shape (c,)."""
        weights: Floats = self.scales[self.family] ** 2 * (self.seen.columns.T @ self.solved)
        return weights

    @property
    def trend_weights(self) -> Floats:
        """Coefficients of the trend, shape (t,)."""
        weights: Floats = self.seen.trend.T @ self.solved
        return weights

    def predict(self, inputs: Inputs) -> tuple[Floats, Floats]:
        """Return mean and standard deviation without a measurement's noise, each of shape (n,)."""
        cross = _kernel(inputs, self.seen, self.family, self.scales)
        own = _own(inputs, self.family, self.scales)
        variance = own - np.einsum("ij,ij->i", cross @ self.inverse, cross)
        return cross @ self.solved, np.sqrt(np.maximum(variance, 1e-12))


def fit(
    seen: Inputs, ratios: Floats, spread: Floats, family: Ints, start: Floats | None = None, sweeps: int = _SWEEPS
) -> Regression:
    """Fit to measured ratios.

    Args:
        seen: Their networks.
        ratios: Measured, shape (n,).
        spread: Relative standard deviation that each measurement states, shape (n,).
        family: Family of each column, shape (c,).
        start: Scales of an earlier fit; None: the usual ones.
        sweeps: How often each scale is tried anew; 0: the scales stay as they are.
    """
    count = int(family.max(initial=-1)) + 1
    scales = np.concatenate([np.full(count, 0.3), [0.05, 1.0, 0.01]]) if start is None else start.copy()
    blocks = [seen.columns[:, family == number] for number in range(count)]
    grams = [block @ block.T for block in blocks]
    trend = seen.trend @ seen.trend.T
    distance = _distances(seen.widths, seen.widths)

    def solve(scales: Floats) -> tuple[float, Floats, Floats]:
        kernel = trend + sum(s**2 * gram for s, gram in zip(scales, grams, strict=False))
        kernel = kernel + scales[-3] ** 2 * np.exp(-distance / (2 * scales[-2] ** 2))
        kernel = kernel + np.diag(ratios**2 * (spread**2 + scales[-1] ** 2) + 1e-8)
        solved = np.linalg.solve(kernel, ratios)
        evidence = -0.5 * ratios @ solved - 0.5 * np.linalg.slogdet(kernel)[1]
        # Scales about as large as one, unless the measurements say otherwise.
        evidence -= 0.5 * float(np.sum((np.log(scales[:-3]) - np.log(0.3)) ** 2 / 4))
        evidence -= 0.5 * float((np.log(scales[-2])) ** 2 + (np.log(scales[-3] / 0.05)) ** 2 / 4)
        return float(evidence), solved, kernel

    best = solve(scales)
    for _ in range(sweeps):
        before = best[0]
        for number in range(len(scales)):
            for factor in _GRID:
                trial = scales.copy()
                trial[number] = np.clip(trial[number] * factor, 1e-4, 10.0)
                found = solve(trial)
                if found[0] > best[0]:
                    best, scales = found, trial
        if best[0] - before < 0.1:
            break
    evidence, solved, kernel = best
    inverse = np.asarray(np.linalg.inv(kernel), np.float64)
    left_out: Floats = ratios - solved / np.diag(inverse)
    return Regression(seen, family, scales, solved, inverse, left_out, evidence)


def _kernel(a: Inputs, b: Inputs, family: Ints, scales: Floats) -> Floats:
    weighted = a.columns * scales[family] ** 2 if len(family) else a.columns
    kernel: Floats = a.trend @ b.trend.T + weighted @ b.columns.T
    kernel += scales[-3] ** 2 * np.exp(-_distances(a.widths, b.widths) / (2 * scales[-2] ** 2))
    return kernel


def _own(a: Inputs, family: Ints, scales: Floats) -> Floats:
    columns = a.columns**2 @ scales[family] ** 2 if len(family) else 0.0
    own: Floats = (a.trend**2).sum(axis=1) + columns + scales[-3] ** 2
    return own


def _distances(a: Floats, b: Floats) -> Floats:
    squares: Floats = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * a @ b.T
    return np.maximum(squares, 0.0)
