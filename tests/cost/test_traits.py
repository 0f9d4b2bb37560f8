"""Sums over a few of many columns against the matrix product they stand for."""

from __future__ import annotations

import numpy as np
import pytest

from autoprune.cost.traits import Sums


@pytest.mark.parametrize(("values", "sums"), [(5, 7), (1, 4), (6, 0), (0, 3), (40, 30)])
def test_sums_equal_the_matrix_product(values: int, sums: int) -> None:
    rng = np.random.default_rng(values)
    matrix = rng.integers(-2, 4, (values, sums)) * (rng.random((values, sums)) < 0.2)
    made = Sums(matrix)
    for rows in (1, 3):
        given = rng.integers(0, 2**40, (rows, values))
        assert np.array_equal(made.of(given), given @ matrix)


def test_any_skips_sums_of_nothing() -> None:
    made = Sums(np.array([[1, 0, 0], [1, 0, 2]]))
    mask = np.array([[True, False], [False, True], [False, False]])
    assert made.any(mask).tolist() == [[True, False, False], [True, False, True], [False, False, False]]
