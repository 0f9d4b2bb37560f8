"""Where to look: crossover of good trials, moves around them, shifts along the front, and a few at random."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from autoprune.search.greybox.domain import Codes, Domain, Floats


def candidates(domain: Domain, knobs: NDArray[np.int64], parents: Codes, rng: np.random.Generator, count: int) -> Codes:
    """Return candidates around parents.

    Args:
        domain: The parameters.
        knobs: Of each axis, shape (axes,): the axes of a knob are inherited together.
        parents: Good rows, those next to one another on the front adjacent, shape (k, axes).
        rng: Draws.
        count: About how many.

    Returns:
        Shape (count, axes).
    """
    sizes = domain.sizes
    ordered = np.array([axis.places is not None for axis in domain.axes])
    random = rng.integers(0, sizes, (count // 10, len(sizes)))
    if not len(parents):
        return random
    born = count - len(random)
    first = rng.integers(0, len(parents), born)
    # Neighbours on the front half of the time: their children fill the gap between them.
    near = np.clip(first + rng.integers(-2, 3, born), 0, len(parents) - 1)
    second = np.where(rng.random(born) < 0.5, near, rng.integers(0, len(parents), born))
    share = rng.uniform(0.0, 0.5, born)
    taken = _of_knobs(share, knobs, int(knobs.max()) + 1, rng)
    child = np.where(taken, parents[second], parents[first])
    return np.concatenate([_moved(child, sizes, ordered, knobs, rng), random])


def _moved(
    child: Codes,
    sizes: NDArray[np.int64],
    ordered: NDArray[np.bool_],
    knobs: NDArray[np.int64],
    rng: np.random.Generator,
) -> Codes:
    """Change about 1 to 3 knobs of most children by a step or two; shift a quarter of them as a whole."""
    count, axes = child.shape
    number = int(knobs.max()) + 1
    wanted = rng.choice([0, 1, 2, 3, 5], count, p=[0.1, 0.3, 0.3, 0.2, 0.1])
    moves = _of_knobs(wanted / number, knobs, number, rng)
    steps = rng.choice([-2, -1, 1, 2], (count, axes), p=[0.15, 0.35, 0.35, 0.15])
    jump = rng.random((count, axes)) < 0.1
    anywhere = rng.integers(0, sizes, (count, axes))
    shifted = _of_knobs(np.where(rng.random(count) < 0.25, rng.uniform(0.2, 1, count), 0.0), knobs, number, rng)
    shift = np.where(shifted, rng.choice([-1, 1], count)[:, None], 0)
    numbers = np.where(moves, np.where(jump, anywhere, child + steps), child) + shift
    # A category has no next one: it changes less often, and to any.
    categories = np.where(moves & (rng.random((count, axes)) < 0.3), anywhere, child)
    moved: Codes = np.clip(np.where(ordered, numbers, categories), 0, sizes - 1)
    return moved


def _of_knobs(share: Floats, knobs: NDArray[np.int64], number: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw a share of the knobs of each row, shape (n,); return the axes that they own, shape (n, axes)."""
    drawn: NDArray[np.bool_] = rng.random((len(share), number)) < share[:, None]
    return drawn[:, knobs]


def neighbours(domain: Domain, row: Codes) -> Codes:
    """Return all rows that differ from ``row`` in one axis: two steps either way, or any category; shape (n, axes)."""
    found = []
    for number, axis in enumerate(domain.axes):
        here = int(row[number])
        choices = (
            range(len(axis.choices))
            if axis.places is None
            else (here + step for step in (-2, -1, 1, 2) if 0 <= here + step < len(axis.choices))
        )
        for choice in choices:
            if choice != here:
                other = row.copy()
                other[number] = choice
                found.append(other)
    return np.array(found, np.int64).reshape(-1, len(row))
