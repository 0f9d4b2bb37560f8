"""Which choices move an objective: a ridge regression of its ranks on everything that the configs chose.

Ranks make it robust against outliers; a linear model of ranks finds what acts alone, not what acts only together. The
cross-validated share of variance that it explains is told beside it, and below a fifth nothing else is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.ranks import ranks
from autoprune.results.facts import measured
from autoprune.spec.front import DENSE
from autoprune.spec.record import RunRecords, TrialRecord

FEWEST = 12
WORTH_TELLING = 0.2
_STRENGTHS = tuple(10.0**power for power in range(-2, 5))


@dataclass(frozen=True)
class Importance:
    """What explains one objective.

    Attributes:
        metric: The objective.
        explained: Share of the variance of its ranks that the model explains in trials that it has not seen
            (leave one out); below 0 it explains nothing.
        trials: How many it was fitted to.
        shares: Address and its part in what the model says, largest first: the variance of that address's
            contributions over the sum of all; they add up to 1.
    """

    metric: str
    explained: float
    trials: int
    shares: tuple[tuple[str, float], ...]

    @property
    def tells(self) -> bool:
        """Whether the model explains enough to be listened to."""
        return self.explained >= WORTH_TELLING


def importance(records: RunRecords) -> tuple[Importance, ...]:
    """Return what explains each objective; empty where fewer than 12 complete trials chose anything.

    Objectives that hardly vary, and addresses that no trial varies, are left out.
    """
    trials = [t for t in measured(records) if t.config is not None and t.origin != DENSE]
    out, known = [], dict[tuple[int, ...], _Choices]()
    for metric in records.study.spec.objectives:
        found = [t for t in trials if math.isfinite(t.values.get(metric, math.nan))]
        if len(found) < FEWEST:
            continue
        numbers = tuple(t.number for t in found)
        choices = known[numbers] if numbers in known else known.setdefault(numbers, _choices(found))
        target = ranks([t.values[metric] for t in found])
        if choices.owners and float(np.ptp(target)) > 0:
            out.append(_fit(metric, choices, target))
    return tuple(out)


@dataclass(frozen=True)
class _Choices:
    """What trials chose: standardised columns (n, p), their singular value decomposition, and the address of each."""

    columns: NDArray[np.float64]
    left: NDArray[np.float64]
    sizes: NDArray[np.float64]
    right: NDArray[np.float64]
    owners: tuple[str, ...]


def _choices(trials: Sequence[TrialRecord]) -> _Choices:
    """Sparsity of each address, and one column for each granularity and criterion that it varies; standardised."""
    rows: list[dict[tuple[str, str], float]] = []
    for trial in trials:
        row: dict[tuple[str, str], float] = {}
        for name, choice in trial.config.choices() if trial.config else ():
            fraction = 0.5 if math.isnan(choice.fraction) else choice.fraction
            row[name, "sparsity"] = row.get((name, "sparsity"), 0.0) + fraction
            if fraction:
                row[name, f"granularity {choice.granularity}"] = 1.0
                row[name, f"criterion {choice.criterion}"] = 1.0
        rows.append(row)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    matrix = np.array([[row.get(key, 0.0) for key in keys] for row in rows]).reshape(len(rows), len(keys))
    spread = matrix.std(axis=0)
    varied = np.flatnonzero(spread > 1e-12)
    standard = (matrix[:, varied] - matrix[:, varied].mean(axis=0)) / spread[varied]
    left, sizes, right = np.linalg.svd(standard, full_matrices=False)
    return _Choices(standard, left, sizes, right, tuple(keys[i][0] for i in varied))


def _fit(metric: str, choices: _Choices, target: NDArray[np.float64]) -> Importance:
    """Ridge with the strength that predicts left-out trials best (PRESS, Allen 1974, doi:10.2307/1267500)."""
    n = len(target)
    centred = target - target.mean()
    columns, left, sizes, owners = choices.columns, choices.left, choices.sizes, choices.owners
    along = left.T @ centred
    best, coefficients = math.inf, np.zeros(columns.shape[1])
    for strength in _STRENGTHS:
        shrink = sizes**2 / (sizes**2 + strength * n)
        leverage = np.minimum((left**2) @ shrink + 1 / n, 1 - 1e-9)
        press = float((((centred - left @ (shrink * along)) / (1 - leverage)) ** 2).sum())
        if press < best:
            kept = sizes > 1e-12
            best = press
            coefficients = choices.right[kept].T @ (shrink[kept] / sizes[kept] * along[kept])
    addresses = list(dict.fromkeys(owners))
    own = np.array(owners)
    parts = np.array([float((columns[:, own == name] @ coefficients[own == name]).var()) for name in addresses])
    total = float(parts.sum()) or 1.0
    order = sorted(range(len(addresses)), key=lambda i: (-parts[i], i))
    # The mean of the others predicts a left-out trial with error (n / (n - 1))^2 times the variance.
    baseline = float((centred**2).sum()) * (n / (n - 1)) ** 2
    return Importance(metric, 1 - best / baseline, n, tuple((addresses[i], float(parts[i]) / total) for i in order))
