"""The trials of a study as arrays. Finished trials never change, so each is read once however often a sampler asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from autoprune.search.greybox.domain import Codes, Domain, Floats
from autoprune.search.greybox.knowledge import FULL, Reading


@dataclass(frozen=True)
class Told:
    """What a finished trial told.

    Attributes:
        row: Its parameters.
        values: Objectives, minimised; None where it has none.
        readings: Values of the first objective.
        broken: Largest constraint value; at most 0 where it is feasible.
    """

    row: Codes
    values: Floats | None
    readings: tuple[Reading, ...]
    broken: float


@dataclass
class History:
    """Reads trials.

    Attributes:
        told: Trial number to what it told; trials that cannot be read in the domain are absent.
        costs: Bytes of a row to its computed objectives.
        planned: Rows that were chosen together with one that was proposed, for the proposals that follow at once.
        planned_at: Trials told when they were chosen.
    """

    told: dict[int, Told] = field(default_factory=dict)
    costs: dict[bytes, Floats] = field(default_factory=dict)
    planned: list[Codes] = field(default_factory=list)
    planned_at: int = -1
    _skipped: set[int] = field(default_factory=set)
    _fits: dict[object, object] = field(default_factory=dict)
    _domain: Domain | None = None
    _study: object = None

    def read(
        self,
        trials: Sequence[FrozenTrial],
        domain: Domain,
        directions: Sequence[StudyDirection],
        readings: Callable[[FrozenTrial], Sequence[Reading]] | None,
        study: object,
    ) -> NDArray[np.int64]:
        """Read what is new, and return the rows of trials that are still running, shape (r, axes).

        Args:
            trials: All trials of a study.
            domain: Its parameters.
            directions: Of its objectives.
            readings: What a trial tells of the first objective; None: its value.
            study: Identifies the study; another one starts the history anew.
        """
        if domain != self._domain or study != self._study:
            self.told.clear()
            self._skipped.clear()
            self.costs.clear()
            self._fits.clear()
            self.planned.clear()
            self._domain, self._study = domain, study
        signs = np.array([1.0 if d == StudyDirection.MINIMIZE else -1.0 for d in directions])
        pending: list[Codes] = []
        for trial in trials:
            if trial.number in self.told or trial.number in self._skipped:
                continue
            if not trial.state.is_finished():
                row = domain.encode(trial.params) if trial.state == TrialState.RUNNING else None
                if row is not None:
                    pending.append(row)
                continue
            row = domain.encode(trial.params)
            if row is None:
                self._skipped.add(trial.number)
                continue
            values = None
            if trial.state == TrialState.COMPLETE and np.isfinite(trial.values).all():
                values = np.array(trial.values) * signs
            told = (
                readings(trial)
                if readings
                else [Reading(float(v), FULL) for v in (() if values is None else values[:1])]
            )
            broken = max(trial.constraints.values(), default=0.0) if trial.constraints else 0.0
            self.told[trial.number] = Told(row, values, tuple(told), broken)
        return np.array(pending, np.int64).reshape(-1, len(domain.axes))

    def remembered(self, key: object, make: Callable[[], object]) -> object:
        """Return what was made for a key before, else make it."""
        if key not in self._fits:
            self._fits[key] = make()
        return self._fits[key]
