"""Fronts, hypervolumes and knees against brute force and known values."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autoprune.errors import UsageError
from autoprune.pareto import hypervolume, knee, nondominated

# Coarse values make ties and equal rows common.
GRID = st.integers(0, 4).map(lambda v: v / 4)


def points(most: int, objectives: int = 5):
    return st.tuples(st.integers(0, most), st.integers(1, objectives)).flatmap(
        lambda shape: arrays(float, shape, elements=GRID | st.floats(0, 1.25, width=16))
    )


def dominated_by_brute_force(values: np.ndarray) -> list[bool]:
    rows = values.tolist()
    front = []
    for i, a in enumerate(rows):
        beaten = any(all(x <= y for x, y in zip(b, a, strict=True)) and b != a for b in rows)
        front.append(not beaten and a not in rows[:i])
    return front


def inclusion_exclusion(values: np.ndarray, reference: np.ndarray) -> float:
    inside = values[(values < reference).all(axis=1)]
    return sum(
        (-1) ** (size + 1) * float(np.prod(reference - inside[list(chosen)].max(axis=0)))
        for size in range(1, len(inside) + 1)
        for chosen in combinations(range(len(inside)), size)
    )


@given(points(12))
def test_nondominated_is_what_brute_force_finds(values):
    assert nondominated(values).tolist() == dominated_by_brute_force(values)


def test_of_equal_rows_the_first_stays():
    assert nondominated([[1, 2], [1, 2], [0, 3], [0, 3]]).tolist() == [True, False, True, False]


@settings(deadline=None)
@given(points(8))
def test_hypervolume_is_inclusion_exclusion(values):
    reference = np.ones(values.shape[1])
    assert hypervolume(values, reference) == pytest.approx(inclusion_exclusion(values, reference), abs=1e-9)


@settings(deadline=None)
@given(points(20), st.randoms(use_true_random=False))
def test_hypervolume_knows_neither_order_nor_dominated_points(values, random):
    order = list(range(len(values)))
    random.shuffle(order)
    reference = np.full(values.shape[1], 1.1)
    whole = hypervolume(values, reference)
    assert hypervolume(values[order], reference) == pytest.approx(whole, abs=1e-9)
    assert hypervolume(values[nondominated(values)], reference) == pytest.approx(whole, abs=1e-9)


@pytest.mark.parametrize(
    ("values", "reference", "volume"),
    [
        ([[1, 3], [2, 2], [3, 1]], [4, 4], 6.0),
        ([[0, 0, 0]], [2, 3, 4], 24.0),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], [2, 2, 2], 7.0),
        ([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], [2, 2, 2, 2], 15.0),
        ([[3.0], [1.0]], [4.0], 3.0),
        ([[1, 5], [5, 1]], [4, 4], 0.0),  # beyond the reference: clipped out
        ([], [1, 1], 0.0),
    ],
)
def test_known_hypervolumes(values, reference, volume):
    assert hypervolume(values, reference) == pytest.approx(volume)


@pytest.mark.parametrize("m", [2, 3, 4, 5])
def test_hypervolume_of_a_large_front_equals_its_cells(m):
    """Independent count: the dominated cells of an integer grid, without any recursion over objectives."""
    side = {2: 40, 3: 16, 4: 8, 5: 5}[m]
    values = np.random.default_rng(m).integers(0, side, (120, m)).astype(float)
    cells = np.stack(np.meshgrid(*[np.arange(side)] * m, indexing="ij"), axis=-1).reshape(-1, m)
    covered = np.zeros(len(cells), dtype=bool)
    for point in values:
        covered |= (cells >= point).all(axis=1)
    assert hypervolume(values, np.full(m, float(side))) == pytest.approx(float(covered.sum()))


def test_knee_is_the_bend_of_the_front():
    assert knee([[0, 10], [1, 2], [10, 0], [11, 11]]) == 1


@pytest.mark.parametrize(
    ("values", "row"),
    [
        ([[3.0], [1.0], [2.0]], 1),  # one objective: the minimum
        ([[5.0, 1.0], [5.0, 0.0]], 1),  # an objective that is equal on the front adds nothing
        ([[0.0, 1.0], [1.0, 0.0]], 0),  # a tie goes to the first
        ([[7.0, 7.0]], 0),
    ],
)
def test_knee_of_degenerate_fronts(values, row):
    assert knee(values) == row


@given(points(10, 3).filter(len), st.floats(0.1, 100))
def test_knee_knows_no_units(values, factor):
    assert knee(values) == knee(values * 2.0 ** round(np.log2(factor)))


@pytest.mark.parametrize(
    "call",
    [
        lambda: nondominated([1.0, 2.0]),
        lambda: nondominated([[float("nan"), 1.0]]),
        lambda: hypervolume([[1.0, 2.0]], [1.0]),
        lambda: hypervolume([[1.0]], [float("inf")]),
        lambda: hypervolume([[-float("inf")]], [1.0]),
        lambda: knee(np.empty((0, 2))),
        lambda: knee([[float("inf"), 0.0]]),
    ],
)
def test_wrong_use_is_told(call):
    with pytest.raises(UsageError):
        call()
