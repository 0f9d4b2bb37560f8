"""Parameters as whole numbers: every parameter has a list of choices, a candidate is a row of places in these lists."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

Codes = NDArray[np.int64]
Floats = NDArray[np.float64]

LEVELS = 65
"""Values that are tried of a parameter without a step, or with more values than this."""


@dataclass(frozen=True)
class Axis:
    """One parameter.

    Attributes:
        name: Its name in trials.
        choices: In order.
        places: Of each choice on a scale from 0 to 1, shape (choices,); None for categories, which have no order.
    """

    name: str
    choices: tuple[Any, ...]
    places: Floats | None = field(compare=False)  # follows from the choices

    def place(self, value: Any) -> int:
        """Return the number of the nearest choice.

        Raises:
            ValueError: There is no such category.
        """
        if self.places is None:
            return self.choices.index(value)
        return self._nearest(float(value))

    def _nearest(self, value: float) -> int:
        right = int(np.searchsorted(self._values, value))
        if right == 0:
            return 0
        if right == len(self._values) or value - self._values[right - 1] <= self._values[right] - value:
            return right - 1
        return right

    @cached_property
    def _values(self) -> Floats:
        return np.array(self.choices, float)


@dataclass(frozen=True)
class Domain:
    """All parameters of a search.

    Attributes:
        axes: In the order of the columns of codes.
    """

    axes: tuple[Axis, ...]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Choices of each axis, shape (axes,)."""
        return np.array([len(axis.choices) for axis in self.axes], np.int64)

    def encode(self, params: Mapping[str, Any]) -> Codes | None:
        """Return the row of a full set of parameters, shape (axes,); None where one is missing or no choice."""
        try:
            return np.array([axis.place(params[axis.name]) for axis in self.axes], np.int64)
        except (KeyError, ValueError):
            return None

    def decode(self, row: Codes) -> dict[str, Any]:
        """Return the parameters of a row."""
        return {axis.name: axis.choices[int(place)] for axis, place in zip(self.axes, row, strict=True)}

    def coordinates(self, codes: Codes) -> tuple[Floats, NDArray[np.int64]]:
        """Return where candidates lie, for a model that knows nothing else, and the axis of each coordinate.

        A number is one coordinate from 0 to 1; a category is one for each choice, so that two different choices are at
        distance 1.

        Args:
            codes: Shape (n, axes).

        Returns:
            Shapes (n, coordinates) and (coordinates,).
        """
        columns: list[Floats] = []
        owner: list[int] = []
        for number, axis in enumerate(self.axes):
            place = codes[:, number]
            if axis.places is not None:
                columns.append(axis.places[place][:, None])
            else:
                columns.append(np.eye(len(axis.choices))[place] * math.sqrt(0.5))
            owner += [number] * columns[-1].shape[1]
        return np.concatenate(columns, axis=1), np.array(owner, np.int64)


def domain_of(distributions: Mapping[str, BaseDistribution]) -> Domain:
    """Return the domain of Optuna's distributions. Parameters with one choice are left out.

    A number without a step, or with more than :data:`LEVELS` values, is tried at that many values, evenly spaced (on a
    logarithmic scale where the distribution is).
    """
    axes = [_axis(name, distributions[name]) for name in sorted(distributions) if not distributions[name].single()]
    return Domain(tuple(axes))


def grid_axis(name: str, choices: Sequence[Any]) -> Axis:
    """Return the axis of a list of numbers in ascending order, or of categories."""
    if any(isinstance(choice, bool) or not isinstance(choice, int | float) for choice in choices):
        return Axis(name, tuple(choices), None)
    values = np.array(choices, float)
    return Axis(name, tuple(choices), (values - values[0]) / (values[-1] - values[0]))


def _axis(name: str, distribution: BaseDistribution) -> Axis:
    if isinstance(distribution, CategoricalDistribution):
        return Axis(name, distribution.choices, None)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    whole = isinstance(distribution, IntDistribution)
    if distribution.log:
        values: NDArray[np.floating] = np.geomspace(low, high, LEVELS)
    elif step is None or (high - low) / step + 1 > LEVELS:
        values = np.linspace(low, high, LEVELS)
        if step is not None:
            values = low + np.rint((values - low) / step) * step
    else:
        values = low + np.arange(round((high - low) / step) + 1) * step
    values = np.unique(np.clip(np.rint(values) if whole else values.round(10), low, high))
    scale = np.log(values) if distribution.log else values
    choices = tuple(int(value) if whole else float(value) for value in values)
    return Axis(name, choices, (scale - scale[0]) / (scale[-1] - scale[0]))
