"""Blocks A B B A until the interval of the ratio is narrow enough.

On a shared machine the milliseconds of one network vary by 17-36 % and the ratio of two separate runs by 11-49 %; the
median of interleaved pair ratios varies by 1-2 % (duet benchmarking, arXiv 2001.05811, and our own measurements).
A machine that gets slower or faster meanwhile favours neither side of a block.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Literal

import numpy as np

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


def measure_blocks(
    sample: Callable[[Side], float], elapsed: Callable[[], float], spec: LatencySpec, meter: str, seed: int = 0
) -> PairedLatency:
    """Run A B B A blocks until the interval of the ratio is narrow enough or the budget is spent.

    Args:
        sample: Seconds of one run of a side.
        elapsed: Seconds since the measurement began, warm-up included.
        spec: ``half_width``, relative to the ratio, and ``budget_s``. At least one block runs.
        meter: Description for the result.
        seed: Of the bootstrap.

    Raises:
        MeterError: A sample is not a positive, finite number.
    """
    pairs: list[tuple[float, float]] = []
    check_at, converged = MIN_PAIRS, False
    ratio = low = high = float("nan")
    while not converged:
        first = sample("dense"), sample("candidate")
        second = sample("candidate"), sample("dense")
        pairs += [first, (second[1], second[0])]
        for seconds in (*first, *second):
            check_sample(seconds, meter)
        spent = elapsed() >= spec.budget_s
        # Checked at growing counts only: to look at the interval costs time, and to stop at the first lucky one biases.
        if spent or len(pairs) >= check_at:
            ratio, low, high = ratio_interval(pairs, seed)
            converged = len(pairs) >= MIN_PAIRS and (high - low) / 2 <= spec.half_width * ratio
            check_at = len(pairs) * 3 // 2
        if spent:
            break
    times = np.asarray(pairs) * 1e3
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
        converged=converged,
        reason="" if converged else _reason(len(pairs), (high - low) / 2 / ratio, spec),
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
