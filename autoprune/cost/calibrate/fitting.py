"""Fit of the roofline's rates to measured layers: bounded, relative, with a pull towards the prior.

Minimises ``sum ((t(c) - y) / y)^2 + n ridge sum ln(c / c0)^2`` over ``ln c`` inside the bounds, by Levenberg-Marquardt
with projection; ``t = launch_kind + max(MACs / rate_kind, bytes_level / bandwidth_level ...)``: launch and rate of a
kind are those of all kinds times a factor, which is pulled towards 1. The ridge is the one with the smallest
leave-one-out error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from autoprune.cost.extents import Floats
from autoprune.ranks import spearman
from autoprune.spec.hardware import LayerKind

_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)
_STEPS = 40
_MOST_FACTOR = 30.0
"""Between a kind and all: a depthwise convolution reaches a few percent of the peak, a large product most of it."""
_LOOSE = 0.3
"""Pull on those factors, relative to that on the rates: kinds are known to differ."""


@dataclass(frozen=True)
class Samples:
    """Measured layers, each one operator.

    Attributes:
        seconds: Shape (n,).
        macs: As executed, shape (n,).
        padded_macs: With channels rounded up to the device's steps, shape (n,).
        level_bytes: Over each edge between memory levels, inner to outer, shape (n, levels - 1).
        kinds: Of each layer; empty: all are of one kind.
    """

    seconds: Floats
    macs: Floats
    padded_macs: Floats
    level_bytes: Floats
    kinds: tuple[LayerKind, ...] = ()

    @cached_property
    def names(self) -> tuple[LayerKind, ...]:
        """The distinct kinds."""
        return tuple(dict.fromkeys(self.kinds))

    @cached_property
    def of_kind(self) -> NDArray[np.int64]:
        """Number of each layer's kind in ``names``, shape (n,)."""
        return np.array([self.names.index(kind) for kind in self.kinds], np.int64)


@dataclass(frozen=True)
class KindFit:
    """Fitted rates of one kind of layer.

    Attributes:
        launch_s: To start one.
        macs_per_s: What well-shaped layers reach; None where they do no products.
        loo_mape: Mean absolute relative error of layers of this kind that were left out.
        samples: Layers.
    """

    launch_s: float
    macs_per_s: float | None
    loo_mape: float
    samples: int


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
        one_rate_mape: The same error with one rate and one launch for all kinds.
        kinds: Rates of each kind; empty where the samples tell no kinds.
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
    one_rate_mape: float
    kinds: Mapping[LayerKind, KindFit] = field(default_factory=dict)

    @property
    def better_baseline(self) -> str | None:
        """The baseline that is at least as good, if one is."""
        name, error = min(
            (("MACs only", self.macs_only_mape), ("bytes only", self.bytes_only_mape)), key=lambda each: each[1]
        )
        return name if error <= self.loo_mape else None


def model_seconds(log_c: Floats, samples: Samples) -> Floats:
    """Return modelled seconds, shape (n,).

    Args:
        log_c: Logarithms of (launch, MAC rate, bandwidths ..., launch factor of each kind ..., rate factor ...).
        samples: The layers; their own times are not read.
    """
    terms = 2 + samples.level_bytes.shape[1]
    c = np.exp(log_c)
    launch, rate = c[0], c[1]
    if samples.names:
        factors = c[terms:].reshape(2, -1)[:, samples.of_kind]
        launch, rate = launch * factors[0], rate * factors[1]
    waits = samples.level_bytes / c[2:terms]
    seconds: Floats = launch + np.maximum(samples.padded_macs / rate, waits.max(axis=1))
    return seconds


def fit_roofline(
    samples: Samples, prior: Sequence[float], bounds: Sequence[tuple[float, float]], ridges: Sequence[float] = _RIDGES
) -> Fit:
    """Fit (launch in s, MACs/s, bytes/s over each edge inner to outer), and factors of kinds where samples tell them.

    Args:
        samples: Measured layers, more than there are terms.
        prior: Where each term is pulled to, and the fit starts.
        bounds: Lowest and highest value of each term.
        ridges: Strengths of the pull to try.
    """
    start = np.log(np.array(prior, np.float64))
    ends = np.log(np.array(bounds, np.float64)).T
    y = samples.seconds
    mape, ridge, out = _best_ridge(samples, start, ends, ridges)
    one_rate = _best_ridge(replace(samples, kinds=()), start, ends, ridges)[0] if samples.names else mape
    log_c = _Fitting(samples, start, ends, ridge).solve(np.ones(len(y), np.bool_))
    c = np.exp(log_c)
    wrong = np.abs(out / y - 1)
    return Fit(
        launch_s=float(c[0]),
        macs_per_s=float(c[1]),
        bandwidths=tuple(float(x) for x in c[2 : len(start)]),
        ridge=ridge,
        loo_mape=mape,
        loo_max=float(wrong.max()),
        loo_spearman=spearman(out, y),
        macs_only_mape=line_mape(samples.macs, y),
        bytes_only_mape=line_mape(samples.level_bytes[:, -1], y),
        one_rate_mape=one_rate,
        kinds=_kinds(samples, c, len(start), wrong),
    )


def _best_ridge(samples: Samples, start: Floats, ends: Floats, ridges: Sequence[float]) -> tuple[float, float, Floats]:
    """Return the smallest leave-one-out error, the ridge that has it, and the seconds of each layer left out."""
    y = samples.seconds
    tried = []
    for ridge in ridges:
        fitting = _Fitting(samples, start, ends, ridge)
        rows = np.arange(len(y))
        whole = fitting.solve(rows >= 0)
        out = np.array([model_seconds(fitting.solve(rows != n, whole), samples)[n] for n in rows])
        tried.append((float(np.mean(np.abs(out / y - 1))), ridge, out))
    return min(tried, key=lambda each: each[0])


def _kinds(samples: Samples, c: Floats, terms: int, wrong: Floats) -> dict[LayerKind, KindFit]:
    if not samples.names:
        return {}
    launch, rate = c[terms:].reshape(2, -1)
    found: dict[LayerKind, KindFit] = {}
    for number, name in enumerate(samples.names):
        of = samples.of_kind == number
        works = bool(samples.macs[of].any())
        found[name] = KindFit(
            launch_s=float(c[0] * launch[number]),
            macs_per_s=float(c[1] * rate[number]) if works else None,
            loo_mape=float(wrong[of].mean()),
            samples=int(of.sum()),
        )
    return found


class _Fitting:
    """One least-squares problem, for all layers or some."""

    def __init__(self, samples: Samples, start: Floats, ends: Floats, ridge: float) -> None:
        self._samples, self._ends, self._terms = samples, ends, len(start)
        factors = 2 * len(samples.names)
        self._start = np.concatenate([start, np.zeros(factors)])
        self._pull = np.sqrt(ridge) * np.concatenate([np.ones(len(start)), np.full(factors, np.sqrt(_LOOSE))])

    def solve(self, keep: NDArray[np.bool_], begin: Floats | None = None) -> Floats:
        """Return the logarithms of all terms, by Levenberg-Marquardt projected onto the bounds.

        Args:
            keep: Which layers count.
            begin: Where to begin; None: at the prior.
        """
        y, pull = self._samples.seconds[keep], self._pull * np.sqrt(keep.sum())

        def residuals(log_c: Floats) -> Floats:
            modelled = model_seconds(log_c, self._samples)[keep]
            return np.concatenate([modelled / y - 1, pull * (log_c - self._start)])

        at, damping = self._inside(np.array(self._start if begin is None else begin)), 1e-2
        r = residuals(at)
        for _ in range(_STEPS):
            jacobian = np.stack([(residuals(at + step) - r) / 1e-6 for step in 1e-6 * np.eye(len(at))], axis=1)
            normal = jacobian.T @ jacobian
            move = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -jacobian.T @ r)
            trial = self._inside(at + move)
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

    def _inside(self, log_c: Floats) -> Floats:
        terms = self._terms
        log_c[:terms] = np.clip(log_c[:terms], *self._ends)
        # No level is slower than the one outside it.
        log_c[2:terms] = np.maximum.accumulate(log_c[2:terms][::-1])[::-1]
        launch, rate = log_c[terms:].reshape(2, -1)
        most = np.log(_MOST_FACTOR)
        launch[:] = np.clip(launch, -most, most)
        rate[:] = np.clip(rate, -most, max(self._ends[1, 1] - log_c[1], 0.0))  # no kind passes the peak
        return log_c


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
