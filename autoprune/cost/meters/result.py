"""What a measurement gives: medians, percentiles and intervals of samples, outliers counted and never removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from autoprune.spec.record import LatencyConditions, LatencyRecord, MeasuredEnergy

MIN_PAIRS = 8
"""Fewer pairs, or samples of one model, give no interval worth the name."""

_RESAMPLES = 1000
_FENCE = 1.5  # Tukey, Exploratory Data Analysis, 1977: quartile ranges beyond the quartiles


@dataclass(frozen=True)
class PairedLatency:
    """One paired measurement.

    A sample is one run, or for quick models the mean of as many runs as drown the timer; the percentiles are those of
    samples, and with fewer than a hundred of them the 99th is close to the largest.

    Attributes:
        ratio: Median of the pair ratios candidate / dense.
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end.
        dense_ms: Median of the dense samples.
        candidate_ms: Median of the candidate's samples.
        candidate_p90_ms: Their 90th percentile.
        pairs: Number of pairs that count.
        converged: Whether the interval became as narrow as asked before the budget was spent.
        meter: What measured it, and how.
        samples_s: (dense, candidate) of each pair that counts, seconds for one run: what a recording replays.
        candidate_p99_ms: 99th percentile of the candidate's samples.
        outliers: Samples of either side beyond Tukey's fences, 1.5 quartile ranges outside the quartiles.
        warmup_rounds: Rounds run before the first sample.
        steady: Whether the warm-up saw a steady state before its share of the budget was spent.
        prepare_s: Seconds of compiling or exporting what was not at hand yet; no part of the samples or the budget.
        reason: Why it did not converge, and what to do; empty where it did.
        conditions: What was set.
        retries: Calls that failed and were repeated, where a command measures.
        repeated: Samples taken again because another process held the core meanwhile; the first tries count nowhere.
        slowed: Pairs beside those that count, taken while the machine was slow.
        speed: The machine's speed over its best that was seen, where it was slow throughout: 0.57; None elsewhere.
        energy: What an energy meter counted, where one is at hand.
    """

    ratio: float
    low: float
    high: float
    dense_ms: float
    candidate_ms: float
    candidate_p90_ms: float
    pairs: int
    converged: bool
    meter: str
    samples_s: tuple[tuple[float, float], ...] = field(default=(), repr=False)
    candidate_p99_ms: float | None = None
    outliers: int | None = None
    warmup_rounds: int | None = None
    steady: bool | None = None
    prepare_s: float | None = None
    reason: str = ""
    conditions: LatencyConditions | None = None
    retries: int | None = None
    repeated: int | None = None
    slowed: int | None = None
    speed: float | None = None
    energy: MeasuredEnergy | None = None

    def to_record(self, reference_dense_ms: float) -> LatencyRecord:
        """Return the record of a trial.

        Args:
            reference_dense_ms: Dense latency of the study; times the ratio it is comparable over all trials.
        """
        return LatencyRecord(
            ms=self.ratio * reference_dense_ms,
            ratio=self.ratio,
            ratio_low=self.low,
            ratio_high=self.high,
            candidate_ms=self.candidate_ms,
            candidate_p90_ms=self.candidate_p90_ms,
            dense_ms=self.dense_ms,
            pairs=self.pairs,
            converged=self.converged,
            meter=self.meter,
            candidate_p99_ms=self.candidate_p99_ms,
            outliers=self.outliers,
            warmup_rounds=self.warmup_rounds,
            steady=self.steady,
            prepare_s=self.prepare_s,
            reason=self.reason or None,
            conditions=self.conditions,
            retries=self.retries,
            repeated=self.repeated or None,
            slowed=self.slowed or None,
            speed=self.speed,
            energy=self.energy,
        )


@dataclass(frozen=True)
class SingleLatency:
    """One model measured alone.

    Attributes:
        ms: Median of the samples, for one run.
        low_ms: Lower end of the median's 95 % bootstrap interval.
        high_ms: Upper end.
        p90_ms: 90th percentile of the samples.
        p99_ms: 99th percentile.
        samples: Their number.
        outliers: Samples beyond Tukey's fences.
        converged: Whether the interval became as narrow as the study's ``half_width`` before the budget was spent.
        meter: What measured it, and how.
        warmup_rounds: Runs before the first sample.
        prepare_s: Seconds of compiling or exporting; no part of the samples or the budget.
        samples_s: The samples, seconds for one run: what a recording replays.
    """

    ms: float
    low_ms: float
    high_ms: float
    p90_ms: float
    p99_ms: float
    samples: int
    outliers: int
    converged: bool
    meter: str
    warmup_rounds: int = 0
    prepare_s: float = 0.0
    samples_s: tuple[float, ...] = field(default=(), repr=False)

    @property
    def spread(self) -> float:
        """Half the width of the interval over the median."""
        return (self.high_ms - self.low_ms) / 2 / self.ms


def median_interval(values: ArrayLike, seed: int = 0) -> tuple[float, float, float]:
    """Return the median and its 95 % percentile-bootstrap interval; below 8 values the interval is their whole range.

    Args:
        values: Shape (n,), in any unit.
        seed: Of the resampling.
    """
    array = np.asarray(values, dtype=np.float64)
    middle = float(np.median(array))
    if len(array) < MIN_PAIRS:
        return middle, float(array.min()), float(array.max())
    picks = np.random.default_rng(seed).integers(len(array), size=(_RESAMPLES, len(array)))
    low, high = np.percentile(np.median(array[picks], axis=1), [2.5, 97.5])
    return middle, float(low), float(high)


def ratio_interval(pairs: Sequence[tuple[float, float]], seed: int = 0) -> tuple[float, float, float]:
    """Return the median of the ratios candidate / dense and its 95 % interval.

    Args:
        pairs: (dense, candidate) times in any unit.
        seed: Of the resampling.
    """
    times = np.asarray(pairs, dtype=np.float64)
    return median_interval(times[:, 1] / times[:, 0], seed)


def outlier_count(samples: ArrayLike) -> int:
    """Return how many samples, shape (n,), lie over 1.5 quartile ranges outside the quartiles (Tukey's fences)."""
    array = np.asarray(samples, dtype=np.float64)
    lower, upper = np.percentile(array, [25, 75])
    margin = _FENCE * (upper - lower)
    return int(((array < lower - margin) | (array > upper + margin)).sum())
