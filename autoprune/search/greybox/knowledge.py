"""What a greybox sampler may know of a problem beside its trials; everything here may be left out by an Optuna user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from autoprune.search.greybox.domain import Codes, Domain, Floats

FULL = ""
"""The source of a value that is the objective itself."""


@dataclass(frozen=True)
class Reading:
    """One value of the modelled objective that a trial gives.

    Attributes:
        value: In the objective's own unit.
        source: :data:`FULL`, or the name of something cheaper that goes along with it (a rung, another study); how it
            goes along is learned from configs that have both.
    """

    value: float
    source: str = FULL


@dataclass(frozen=True)
class Earlier:
    """What earlier studies of the same problem saw: data, but not truth.

    Attributes:
        rows: Parameters, shape (n, axes).
        values: The first objective there, scaled, shape (n,).
        deviations: Standard deviation of ``values`` about what the same parameters have here, shape (n,).
    """

    rows: Codes
    values: Floats
    deviations: Floats


class Knowledge(Protocol):
    """A problem of which all objectives but the first are computed.

    Objectives are minimised and scaled: 1 is the reference point of the hypervolume.
    """

    @property
    def domain(self) -> Domain:
        """The parameters."""
        ...

    @property
    def knobs(self) -> NDArray[np.int64]:
        """The knob that each axis belongs to, shape (axes,): a layer's method and its sparsity are one knob."""
        ...

    @property
    def scale(self) -> float:
        """The reference value of the first objective; it is at best 0."""
        ...

    @property
    def ceiling(self) -> float:
        """The most that the first objective can reach, scaled; infinite where nothing bounds it."""
        ...

    @property
    def shift(self) -> float:
        """What is added to the scaled first objective before its logarithm: differences below it are noise."""
        ...

    def canonical(self, codes: Codes) -> Codes:
        """Return for each candidate the one that stands for all that are the same network, shape (n, axes)."""
        ...

    def coordinates(self, codes: Codes) -> tuple[Floats, NDArray[np.int64]]:
        """Return where candidates lie, shape (n, d), each direction from 0 to about 1, and the knob of each, (d,)."""
        ...

    def damage(self, codes: Codes) -> Floats | None:
        """Return an estimate of the first objective's rise (:class:`Link`), shape (n,); None where there is none."""
        ...

    def costs(self, codes: Codes) -> Floats:
        """Return the other objectives, scaled, shape (n, m - 1)."""
        ...

    def allowed(self, codes: Codes) -> NDArray[np.bool_]:
        """Say which candidates break no bound on what is computed, shape (n,)."""
        ...

    def readings(self, trial: FrozenTrial) -> Sequence[Reading]:
        """Return what a finished trial tells of the first objective."""
        ...

    def earlier(self, rows: Codes, values: Floats) -> Earlier | None:
        """Return what earlier studies saw, with the noise that this study shows; None where there were none.

        Args:
            rows: Trials of this study, shape (n, axes).
            values: Their first objective, scaled, shape (n,).
        """
        ...
