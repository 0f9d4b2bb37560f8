"""Agreement of two orders; numpy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Return the rank correlation of two sequences (n,); ties share their mean rank (Spearman 1904).

    Returns:
        -1 to 1; NaN where there is no order to compare: fewer than two values, or all of one side equal.
    """
    first, second = ranks(a), ranks(b)
    if len(first) < 2 or not np.ptp(first) or not np.ptp(second):
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def order_margin(a: ArrayLike, b: ArrayLike, kept: float) -> float:
    """Return how far apart two values of ``a`` must lie for ``b`` to order them alike.

    Of the pairs that lie further apart in ``a`` than the margin, at least the fraction ``kept`` is not reversed in
    ``b``; no smaller margin does it.

    Args:
        a: Values (n,).
        b: Values of the same things in another order (n,).
        kept: Between 0 and 1.

    Returns:
        0 where all pairs count; infinity where not even the pairs furthest apart keep their order.
    """
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    high, low = np.nonzero(first[:, None] > first[None, :])
    gaps = first[high] - first[low]
    order = np.argsort(-gaps, kind="stable")
    gaps, reversed_ = gaps[order], (second[high] < second[low])[order]
    # A margin takes all pairs of one gap or none: the last of equal gaps speaks for them.
    last = np.flatnonzero(np.append(gaps[1:] != gaps[:-1], True)) if gaps.size else np.array([], int)
    good = last[np.cumsum(reversed_)[last] <= (1 - kept) * (last + 1)]
    if not good.size:
        return float("inf")
    end = int(good[-1]) + 1
    return float(gaps[end]) if end < gaps.size else 0.0


def ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Return the ranks 1, 2, 3, ... of a sequence (n,), smallest first; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(np.asarray(values, dtype=float), return_inverse=True, return_counts=True)
    shared: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return shared
