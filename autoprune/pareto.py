"""Fronts, hypervolumes and knees of point sets, all for minimisation; numpy alone."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from math import inf, prod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autoprune.errors import UsageError


def nondominated(values: ArrayLike) -> NDArray[np.bool_]:
    """Mark the rows that no other row dominates.

    Row a dominates row b if it is nowhere larger and somewhere smaller. Of equal rows the first stays.

    Args:
        values: (n, m) objective values, smaller is better; infinities are allowed.

    Returns:
        (n,) mask.

    Raises:
        UsageError: Not two-dimensional, or NaN inside.
    """
    points = _matrix(values)
    n, m = points.shape
    mask = np.zeros(n, dtype=bool)
    if m == 0:
        mask[:1] = True
        return mask
    # In lexicographic order, ties by index, only an earlier row dominates a later one: the first left is on the front.
    left = np.lexsort((np.arange(n), *points.T[::-1]))
    while left.size:
        first = left[0]
        mask[first] = True
        left = left[(points[left] < points[first]).any(axis=1)]
    return mask


def hypervolume(values: ArrayLike, reference: ArrayLike) -> float:
    """Return the volume that the points dominate, up to ``reference``; exact up to rounding.

    Two objectives are swept; three are swept with a staircase that is kept sorted (Fonseca, Paquete and
    López-Ibáñez 2006, doi:10.1109/CEC.2006.1688440), n log n each. More are sliced into exclusive volumes of one
    objective fewer by WFG (While, Bradstreet and Barone 2012, doi:10.1109/TEVC.2010.2077298).

    Args:
        values: (n, m) objective values, smaller is better. A point that is not below the reference in every
            objective counts nothing.
        reference: (m,) the worst corner.

    Returns:
        The volume, in the product of the objectives' units; 0 for no points.

    Raises:
        UsageError: The shapes do not fit, NaN inside, or a volume without end.
    """
    corner = np.asarray(reference, dtype=float)
    if corner.ndim != 1 or corner.size == 0 or not np.isfinite(corner).all():
        raise UsageError(f"a reference point is one finite number for each objective; it is {corner.tolist()}")
    points = _matrix(values) if np.size(values) else np.empty((0, corner.size))
    if points.shape[1] != corner.size:
        raise UsageError(
            f"points of {points.shape[1]} objectives need a reference point of as many numbers; it has {corner.size}"
        )
    inside = points[(points < corner).all(axis=1)]
    if np.isneginf(inside).any():
        raise UsageError("a point of minus infinity dominates an infinite volume; leave it out")
    return _volume(inside, corner)


def knee(values: ArrayLike) -> int:
    """Return the row of the front that is nearest to the ideal point.

    The front is scaled to [0, 1] in every objective, by its own smallest and largest value; the knee is the row with
    the smallest Euclidean distance to the origin, the compromise solution for p = 2 of Yu 1973
    (doi:10.1287/mnsc.19.8.936). Ties go to the first row. With one objective it is the minimum. An objective in which
    the whole front is equal adds nothing. Dominated rows neither count nor scale.

    Args:
        values: (n, m) objective values, n >= 1, smaller is better, finite on the front.

    Raises:
        UsageError: No rows, not two-dimensional, NaN inside, or an infinite value on the front.
    """
    points = _matrix(values)
    if not len(points):
        raise UsageError("a knee needs at least one point; none were given")
    rows = np.flatnonzero(nondominated(points))
    front = points[rows]
    if not np.isfinite(front).all():
        raise UsageError("a knee needs finite values on the front; leave out the points with infinite values")
    low, span = front.min(axis=0), np.ptp(front, axis=0)
    scaled = (front - low) / np.where(span > 0, span, 1.0)
    return int(rows[int(np.argmin((scaled**2).sum(axis=1)))])


def _matrix(values: ArrayLike) -> NDArray[np.float64]:
    points = np.asarray(values, dtype=float)
    if points.ndim != 2:
        raise UsageError(f"points are an array of shape (points, objectives); the shape given is {points.shape}")
    if np.isnan(points).any():
        raise UsageError("a point holds NaN, which cannot be compared; leave out what was not measured")
    return points


def _volume(points: NDArray[np.float64], corner: NDArray[np.float64]) -> float:
    """Volume of (n, m) points that all lie below ``corner``."""
    m = corner.size
    if not len(points):
        return 0.0
    if m == 1:
        return float(corner[0] - points.min())
    if m <= 3:
        padded = np.hstack([points, np.zeros((len(points), 3 - m))])
        return _sweep(padded.tolist(), [*corner.tolist(), *[1.0] * (3 - m)])
    # Past four objectives the limited points below are few after filtering; before, the sweep drops them more cheaply.
    if m > 4:
        points = points[nondominated(points)]
    # Best in the last objective first: what an earlier point takes from a later one reaches over its whole thickness.
    points = points[np.argsort(points[:, -1], kind="stable")]
    flat_corner = corner[:-1]
    total = 0.0
    for i, point in enumerate(points):
        base = point[:-1]
        covered = _volume(np.maximum(points[:i, :-1], base), flat_corner)
        total += (corner[-1] - point[-1]) * max(prod((flat_corner - base).tolist()) - covered, 0.0)
    return float(total)


def _sweep(points: list[list[float]], corner: list[float]) -> float:
    """Volume of 3-D points below ``corner``: slices along the third axis of a staircase in the first two."""
    xs, ys = [-inf, corner[0]], [corner[1], -inf]  # sentinels: the stairs start and end at the corner
    area = volume = last = 0.0
    for x, y, z in sorted(points, key=lambda p: p[2]):
        volume += area * (z - last)
        last = z
        at = bisect_right(xs, x) - 1
        height = ys[at]
        if height <= y:
            continue
        begin = end = bisect_left(xs, x)
        left = x
        while True:
            right = xs[end]
            area += (right - left) * (height - y)
            if ys[end] < y:
                break
            left, height = right, ys[end]
            end += 1
        xs[begin:end], ys[begin:end] = [x], [y]
    return volume + area * (corner[2] - last)
