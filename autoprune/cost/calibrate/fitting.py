"""Fit of the roofline's rates to measured layers: bounded, relative, with a pull towards the prior.

Minimises ``sum ((t(c) - y) / y)^2 + n ridge sum ln(c / c0)^2`` over ``ln c`` inside the bounds, by Levenberg-Marquardt
with projection; ``t = launch + max(MACs / rate, bytes_level / bandwidth_level ...)``. The ridge is the one with the
smallest leave-one-out error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.cost.extents import Floats
from autoprune.ranks import spearman

_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)
_STEPS = 40


@dataclass(frozen=True)
class Samples:
    """Measured layers, each one operator.

    Attributes:
        seconds: Shape (n,).
        macs: As executed, shape (n,).
        padded_macs: With channels rounded up to the device's steps, shape (n,).
        level_bytes: Over each edge between memory levels, inner to outer, shape (n, levels - 1).
    """

    seconds: Floats
    macs: Floats
    padded_macs: Floats
    level_bytes: Floats

    def without(self, row: int) -> Samples:
        """Return all but one."""
        keep = np.arange(len(self.seconds)) != row
        return Samples(self.seconds[keep], self.macs[keep], self.padded_macs[keep], self.level_bytes[keep])


@dataclass(frozen=True)
class Fit:
    """Fitted rates and how wrong they are on a layer that was left out.

    Attributes:
        launch_s: To start an operator.
        macs_per_s: What well-shaped layers reach.
        bandwidths: Bytes/s over each edge, inner to outer.
        ridge: Chosen by leave-one-out.
        loo_mape: Mean absolute relative error of layers left out.
        loo_max: Largest.
        loo_spearman: Rank correlation of layers left out.
        macs_only_mape: The same error of ``a + b MACs``.
        bytes_only_mape: The same error of ``a + b bytes`` over the outermost edge.
    """

    launch_s: float
    macs_per_s: float
    bandwidths: tuple[float, ...]
    ridge: float
    loo_mape: float
    loo_max: float
    loo_spearman: float
    macs_only_mape: float
    bytes_only_mape: float

    @property
    def better_baseline(self) -> str | None:
        """The baseline that is at least as good, if one is."""
        name, error = min(
            (("MACs only", self.macs_only_mape), ("bytes only", self.bytes_only_mape)), key=lambda each: each[1]
        )
        return name if error <= self.loo_mape else None


def model_seconds(log_c: Floats, samples: Samples) -> Floats:
    """Return modelled seconds, shape (n,), for logarithms of (launch, MAC rate, bandwidths ...)."""
    c = np.exp(log_c)
    waits = samples.level_bytes / c[2:]
    seconds: Floats = c[0] + np.maximum(samples.padded_macs / c[1], waits.max(axis=1))
    return seconds


def fit_roofline(
    samples: Samples, prior: Sequence[float], bounds: Sequence[tuple[float, float]], ridges: Sequence[float] = _RIDGES
) -> Fit:
    """Fit (launch in s, MACs/s, bytes/s over each edge inner to outer).

    Args:
        samples: Measured layers, more than there are terms.
        prior: Where each term is pulled to, and the fit starts.
        bounds: Lowest and highest value of each term.
        ridges: Strengths of the pull to try.
    """
    start = np.log(np.array(prior, np.float64))
    ends = np.log(np.array(bounds, np.float64)).T
    y = samples.seconds
    tried = []
    for ridge in ridges:
        out = np.array(
            [model_seconds(_solve(samples.without(n), start, ends, ridge), _row(samples, n))[0] for n in range(len(y))]
        )
        tried.append((float(np.mean(np.abs(out / y - 1))), ridge, out))
    mape, ridge, out = min(tried, key=lambda each: each[0])
    c = np.exp(_solve(samples, start, ends, ridge))
    return Fit(
        launch_s=float(c[0]),
        macs_per_s=float(c[1]),
        bandwidths=tuple(float(x) for x in c[2:]),
        ridge=ridge,
        loo_mape=mape,
        loo_max=float(np.abs(out / y - 1).max()),
        loo_spearman=spearman(out, y),
        macs_only_mape=line_mape(samples.macs, y),
        bytes_only_mape=line_mape(samples.level_bytes[:, -1], y),
    )


def _row(samples: Samples, n: int) -> Samples:
    of = slice(n, n + 1)
    return Samples(samples.seconds[of], samples.macs[of], samples.padded_macs[of], samples.level_bytes[of])


def _solve(samples: Samples, start: Floats, ends: Floats, ridge: float) -> Floats:
    pull = np.sqrt(ridge * len(samples.seconds))

    def residuals(log_c: Floats) -> Floats:
        return np.concatenate([model_seconds(log_c, samples) / samples.seconds - 1, pull * (log_c - start)])

    def inside(log_c: Floats) -> Floats:
        log_c = np.clip(log_c, *ends)
        # No level is slower than the one outside it.
        log_c[2:] = np.maximum.accumulate(log_c[:1:-1])[::-1]
        return log_c

    at, damping = inside(start.copy()), 1e-2
    r = residuals(at)
    for _ in range(_STEPS):
        jacobian = np.stack([(residuals(at + step) - r) / 1e-6 for step in 1e-6 * np.eye(len(at))], axis=1)
        normal = jacobian.T @ jacobian
        move = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -jacobian.T @ r)
        trial = inside(at + move)
        changed = residuals(trial)
        if changed @ changed < r @ r:
            done = np.abs(trial - at).max() < 1e-6
            at, r, damping = trial, changed, damping / 3
            if done:
                break
        else:
            damping *= 4
            if damping > 1e8:
                break
    return at


def line_mape(x: Floats, y: Floats) -> float:
    """Return the leave-one-out error of ``a + b x`` with ``a, b >= 0``, fitted relative to y."""
    errors = []
    for n in range(len(y)):
        keep = np.arange(len(y)) != n
        rows = np.stack([1 / y[keep], x[keep] / y[keep]], axis=1)
        ones = np.ones(len(rows))
        a, b = np.linalg.lstsq(rows, ones, rcond=None)[0]
        if b < 0:
            a, b = float((rows[:, 0] @ ones) / (rows[:, 0] @ rows[:, 0])), 0.0
        elif a < 0:
            a, b = 0.0, float((rows[:, 1] @ ones) / (rows[:, 1] @ rows[:, 1]))
        errors.append(abs((a + b * x[n]) / y[n] - 1))
    return float(np.mean(errors))
