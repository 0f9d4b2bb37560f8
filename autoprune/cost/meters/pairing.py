"""Blocks A B B A until the interval of the ratio is narrow enough.

On a shared machine the milliseconds of one network vary by 17-36 % and the ratio of two separate runs by 11-49 %; the
median of interleaved pair ratios varies by 1-2 % (duet benchmarking, arXiv 2001.05811, and our own measurements).
A machine that gets slower or faster meanwhile favours neither side of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isfinite
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from autoprune.cost.meters.pace import Pace
from autoprune.cost.meters.result import (
    MIN_PAIRS,
    PairedLatency,
    SingleLatency,
    median_interval,
    outlier_count,
    ratio_interval,
)
from autoprune.errors import MeterError
from autoprune.spec.study import LatencySpec

Side = Literal["dense", "candidate"]

_SLOW = (
    "the machine ran slower than it can all the while (another load, or a lowered clock), where the ratio may be "
    "another; quieten it, or let the meter wait for longer (latency.wait_s)"
)

_FIRST = 1 / 3  # of its budget, that the first measurement beside a reference takes to get to know the machine


def measure_blocks(
    sample: Callable[[Side], float],
    elapsed: Callable[[], float],
    spec: LatencySpec,
    meter: str,
    seed: int = 0,
    pace: Pace | None = None,
) -> PairedLatency:
    """Run A B B A blocks until the interval of the ratio is narrow enough or the budget is spent.

    Args:
        sample: Seconds of one run of a side.
        elapsed: Seconds since the measurement began, warm-up included.
        spec: ``half_width``, relative to the ratio, ``budget_s`` and ``wait_s``. At least one block runs.
        meter: Description for the result.
        seed: Of the bootstrap.
        pace: What is known of the machine's speed beside this reference; pairs taken while it is slow count only where
            there are no others. The time that they took is added to the budget, up to ``wait_s``; where all are slow,
            so long it waits for better ones. The first measurement takes a third of its budget at least. None: every
            pair counts.

    Raises:
        MeterError: A sample is not a positive, finite number.
    """
    blocks = _Blocks(pace)
    least_s = _FIRST * spec.budget_s if pace is not None and pace.new else 0.0
    end_s, narrow_s, check_at, converged = spec.budget_s, float("inf"), MIN_PAIRS, False
    ratio = low = high = float("nan")
    while not converged:
        first = sample("dense"), sample("candidate")
        second = sample("candidate"), sample("dense")
        for seconds in (*first, *second):
            check_sample(seconds, meter)
        now = elapsed()
        blocks.add(first, (second[1], second[0]), now)
        if now >= end_s:
            end_s = spec.budget_s + min(blocks.slow_s(), spec.longest_wait_s)
        spent = now >= min(end_s, narrow_s + spec.longest_wait_s)
        # Checked at growing counts only: to look at the interval costs time, and to stop at the first lucky one biases.
        if spent or (len(blocks.pairs) >= check_at and now >= least_s):
            counted = blocks.counted()
            if spent or blocks.quick or now < narrow_s:
                ratio, low, high = ratio_interval(counted, seed)
                narrow = len(counted) >= MIN_PAIRS and (high - low) / 2 <= spec.half_width * ratio
                converged = narrow and blocks.quick
                narrow_s = min(narrow_s, now) if narrow else narrow_s  # slow throughout: it waits from here on
            check_at = len(blocks.pairs) + (len(counted) // 2 if blocks.quick else MIN_PAIRS)
        if spent:
            break
    return blocks.result((ratio, low, high), converged, spec, meter)


class _Blocks:
    """The pairs of a measurement, and which of them ran while the machine was at full speed."""

    def __init__(self, pace: Pace | None) -> None:
        self._pace = pace
        self._ends_s: list[float] = []
        self.pairs: list[tuple[float, float]] = []
        self.quick = True  # whether enough of them did

    def add(self, first: tuple[float, float], second: tuple[float, float], now: float) -> None:
        """Take the two pairs of a block, (dense, candidate) each."""
        self.pairs += [first, second]
        self._ends_s.append(now)

    def slow_s(self) -> float:
        """Return the seconds of blocks that have no pair at full speed."""
        slow = ~self._full().reshape(-1, 2).any(axis=1)
        return float(np.diff(self._ends_s, prepend=0.0)[slow].sum())

    def counted(self) -> list[tuple[float, float]]:
        """Return the pairs that count: those at full speed where they are enough for an interval, else all."""
        full = self._full()
        self.quick = bool(full.all()) or int(full.sum()) >= MIN_PAIRS
        return [pair for pair, fits in zip(self.pairs, full, strict=True) if fits] if self.quick else self.pairs

    def _full(self) -> NDArray[np.bool_]:
        return np.ones(len(self.pairs), bool) if self._pace is None else self._pace.quick(self.pairs)

    def result(
        self, interval: tuple[float, float, float], converged: bool, spec: LatencySpec, meter: str
    ) -> PairedLatency:
        """Return the measurement, of the pairs that count."""
        counted = self.counted()
        ratio, low, high = interval
        reason = "" if converged else _reason(len(counted), (high - low) / 2 / ratio, spec)
        speed = None
        if self._pace is not None:
            if not self.quick:
                reason, speed = _SLOW, self._pace.speed(self.pairs)
            self._pace.remember(self.pairs)
        found = summary(counted, (ratio, low, high), reason, meter)
        return replace(found, slowed=len(self.pairs) - len(counted), speed=speed)


def summary(
    pairs: Sequence[tuple[float, float]], interval: tuple[float, float, float], reason: str, meter: str
) -> PairedLatency:
    """Return a measurement that has ended.

    Args:
        pairs: Those that count, (dense, candidate), seconds of one run.
        interval: Ratio, lower and upper end.
        reason: Why the interval is not as narrow as asked; empty where it is.
        meter: Description.
    """
    times = np.asarray(pairs) * 1e3
    ratio, low, high = interval
    return PairedLatency(
        ratio=ratio,
        low=low,
        high=high,
        dense_ms=float(np.median(times[:, 0])),
        candidate_ms=float(np.median(times[:, 1])),
        candidate_p90_ms=float(np.percentile(times[:, 1], 90)),
        candidate_p99_ms=float(np.percentile(times[:, 1], 99)),
        outliers=outlier_count(times[:, 0]) + outlier_count(times[:, 1]),
        pairs=len(pairs),
        converged=not reason,
        reason=reason,
        meter=meter,
        samples_s=tuple(pairs),
    )


def measure_samples(
    sample: Callable[[], float],
    elapsed: Callable[[], float],
    half_width: float,
    budget_s: float,
    meter: str,
    seed: int = 0,
) -> SingleLatency:
    """Sample one model until the interval of its median is narrow enough or the budget is spent.

    Args:
        sample: Seconds of one run.
        elapsed: Seconds since the measurement began, warm-up included.
        half_width: Wanted half-width of the interval, relative to the median.
        budget_s: Seconds after which it ends. At least one sample is taken.
        meter: Description for the result.
        seed: Of the bootstrap.

    Raises:
        MeterError: A sample is not a positive, finite number.
    """
    samples: list[float] = []
    check_at, converged = MIN_PAIRS, False
    middle = low = high = float("nan")
    while not converged:
        samples.append(check_sample(sample(), meter))
        spent = elapsed() >= budget_s
        if spent or len(samples) >= check_at:
            middle, low, high = median_interval(samples, seed)
            converged = len(samples) >= MIN_PAIRS and (high - low) / 2 <= half_width * middle
            check_at = len(samples) * 3 // 2
        if spent:
            break
    p90, p99 = np.percentile(samples, [90, 99])
    return SingleLatency(
        ms=middle * 1e3,
        low_ms=low * 1e3,
        high_ms=high * 1e3,
        p90_ms=float(p90) * 1e3,
        p99_ms=float(p99) * 1e3,
        samples=len(samples),
        outliers=outlier_count(samples),
        converged=converged,
        meter=meter,
        samples_s=tuple(samples),
    )


def check_sample(seconds: float, meter: str) -> float:
    """Return a sample that is a time.

    Raises:
        MeterError: It is zero, negative, infinite or no number.
    """
    if not (isfinite(seconds) and seconds > 0):
        raise MeterError(
            f"a latency sample is {seconds!r} s where a positive number is needed ({meter}); measure again"
        )
    return seconds


def _reason(pairs: int, half: float, spec: LatencySpec) -> str:
    ended = f"the budget of {spec.budget_s:g} s ended after {pairs} pairs"
    if pairs < MIN_PAIRS:
        enough = spec.budget_s * MIN_PAIRS / pairs
        return f"{ended}, and an interval needs {MIN_PAIRS}; set latency.budget_s to about {enough:.2g}"
    # The interval narrows with the root of the number of pairs.
    enough = spec.budget_s * (half / spec.half_width) ** 2
    return (
        f"{ended} at ±{half:.1%} where ±{spec.half_width:.1%} is wanted; set latency.budget_s to about "
        f"{enough:.2g}, or quieten the machine"
    )
