"""Expected gain in hypervolume of candidates of which one objective is uncertain, or a few.

The gain of a point y is the volume that it dominates and the front does not. Written as an integral over the corners u
below the reference, the expectation over a Gaussian y is a product of probabilities, and over the first objective it
has a closed form. Where all other objectives are known numbers, those probabilities are 0 or 1: with two objectives the
integral over the second is a sum over the stairs of the front, and the result is exact; with more it is a sum over
fixed Sobol points. (The integral of Emmerich et al. 2011, doi:10.1109/CEC.2011.5949880, with its cells merged.)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from autoprune.search.greybox.domain import Floats

CORNERS = 2048
"""Sobol points over the other objectives, where there are more than one."""

UNCERTAIN_CORNERS = 512
"""As many of them where the other objectives are uncertain: each costs a normal distribution for each candidate."""

BLOCK = 256
"""Points that are compared with the corners at a time: most corners are reached by the first ones."""


@dataclass(frozen=True)
class Front:
    """What was reached so far, scaled so that the reference point is 1 everywhere.

    Attributes:
        first: Values of the modelled objective, shape (n,).
        others: Values of the other objectives, shape (n, m - 1).
    """

    first: Floats
    others: Floats


@dataclass(frozen=True)
class Stairs:
    """The front as a function of the other objectives: the best first objective that is reached within them.

    Attributes:
        levels: Ascending values of the first objective, shape (k,); the last is 1, the reference.
        corners: Upper corners of cells of the other objectives, shape (q, m - 1).
        level: Number of the level that holds in each cell, shape (q,).
        stairs: Whether the cells are the stairs of two objectives, in ascending order.
    """

    levels: Floats
    corners: Floats
    level: NDArray[np.int64]
    stairs: bool


def stairs_of(front: Front) -> Stairs:
    """Return the stairs of a front."""
    inside = (front.first < 1) & (front.others < 1).all(axis=1)
    first, others = np.maximum(front.first[inside], 0.0), front.others[inside]
    dimensions = front.others.shape[1]
    order = np.argsort(first, kind="stable")
    first, others = first[order], others[order]
    if dimensions == 0:
        corners = np.zeros((1, 0))
    elif dimensions == 1:
        edges = np.unique(np.append(others[:, 0], [0.0, 1.0]))
        corners = edges[:, None]  # the cell from this edge to the next
    else:
        corners = _sobol(dimensions)
    levels, number = np.unique(np.append(first, 1.0), return_inverse=True)
    # A long front has many more levels than hold anywhere.
    held, level = np.unique(np.append(number[_reached(others, corners)], len(levels) - 1), return_inverse=True)
    return Stairs(levels[held], corners, level[:-1], dimensions == 1)


def _reached(others: Floats, corners: Floats) -> NDArray[np.int64]:
    """Return for each corner the first point that lies within it, or their number where none does; shape (q,)."""
    found = np.full(len(corners), len(others))
    left = np.arange(len(corners))
    for start in range(0, len(others), BLOCK):
        inside = np.ones((len(left), len(others[start : start + BLOCK])), np.bool_)
        for column in range(others.shape[1]):
            inside &= others[None, start : start + BLOCK, column] <= corners[left, column, None]
        hit = inside.any(axis=1)
        found[left[hit]] = start + inside[hit].argmax(axis=1)
        left = left[~hit]
    return found


def expected_gain(stairs: Stairs, below: Floats, others: Floats) -> Floats:
    """Return the expected gain in volume of candidates whose other objectives are known.

    Args:
        stairs: The front.
        below: Expected E[(level - y)+] of each candidate's first objective for each level, shape (n, k).
        others: The other objectives, shape (n, m - 1).

    Returns:
        Shape (n,), in the volume of the box from 0 to 1.
    """
    one = np.zeros((len(stairs.corners), len(stairs.levels)), np.float32)
    one[np.arange(len(stairs.corners)), stairs.level] = 1.0
    if stairs.stairs:
        edges = stairs.corners[:, 0]
        upper = np.append(edges[1:], 1.0)
        width = np.maximum(upper[None] - np.maximum(edges[None], np.maximum(others, 0.0)), 0.0)
        cells: Floats = width @ one
    else:
        inside = np.ones((len(others), len(stairs.corners)), np.bool_)
        for column in range(others.shape[1]):
            inside &= others[:, column, None] <= stairs.corners[None, :, column]
        cells = np.asarray(inside.astype(np.float32) @ one, np.float64) / len(stairs.corners)
    gain: Floats = (cells * below).sum(axis=1)
    return gain


def expected_gain_of_uncertain(stairs: Stairs, below: Floats, mean: Floats, deviation: Floats) -> Floats:
    """As :func:`expected_gain`, where the other objectives are Gaussian and independent.

    Args:
        stairs: The front.
        below: As there.
        mean: Of the other objectives, shape (n, m - 1).
        deviation: Standard deviations, 0 where a value is known, shape (n, m - 1).
    """
    if stairs.stairs:
        edges = stairs.corners[:, 0]
        middle, width = (edges + np.append(edges[1:], 1.0)) / 2, np.diff(np.append(edges, 1.0))
        corners, weights = middle[:, None], width
    else:
        count = min(len(stairs.corners), UNCERTAIN_CORNERS)  # the first points of a Sobol sequence are even, too
        corners, weights = stairs.corners[:count], np.full(count, 1 / count)
    inside = np.ones((len(mean), len(corners)))
    for column in range(mean.shape[1]):
        spread = np.maximum(deviation[:, column, None], 1e-9)
        inside *= ndtr((corners[None, :, column] - mean[:, column, None]) / spread)
    gain: Floats = (inside * weights * below[:, stairs.level[: len(corners)]]).sum(axis=1)
    return gain


@lru_cache(maxsize=8)
def _sobol(dimensions: int) -> Floats:
    from scipy.stats import qmc  # scipy.stats takes a second to import, and few searches have so many objectives

    points: Floats = qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng(0)).random(CORNERS)
    return points
