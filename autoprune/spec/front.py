"""The front of recorded trials, and how much of the objective space it dominates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from math import isfinite, nan
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from autoprune.errors import UsageError
from autoprune.pareto import hypervolume, nondominated
from autoprune.spec.record import RunRecords, StudyRecord, TrialRecord

DENSE = "dense"
WARM = "warm_start"
"""Origin of a trial that repeats a config of an earlier study."""
DROP = "accuracy_drop"


def dense_trial(records: RunRecords) -> TrialRecord | None:
    """Return the complete trial of the dense model, or None while there is none."""
    return next((t for t in _ordered(records) if t.origin == DENSE and t.state == "complete"), None)


Answer = TypeVar("Answer")


def _once(function: Callable[[RunRecords], Answer]) -> Callable[[RunRecords], Answer]:
    """Compute once for the same records: they are frozen, and a report asks for its front some forty times."""

    @wraps(function)
    def remembered(records: RunRecords) -> Answer:
        known: dict[str, Any] = records.computed
        if function.__name__ not in known:
            known[function.__name__] = function(records)
        answer: Answer = known[function.__name__]
        return answer

    return remembered


@_once
def candidates(records: RunRecords) -> tuple[TrialRecord, ...]:
    """Return the feasible trials whose objectives are all finite numbers, by number; of repeated configs the first."""
    first: dict[str, TrialRecord] = {}
    for trial in _ordered(records):
        if _competes(trial, records.study):
            first.setdefault(_what(trial), trial)
    return tuple(first.values())


@_once
def front(records: RunRecords) -> tuple[TrialRecord, ...]:
    """Return the feasible trials that no other dominates over the study's objectives, by number.

    The dense model is among them unless a constraint refuses it or a trial is at least as good everywhere.
    """
    trials = candidates(records)
    if not trials:
        return ()
    return tuple(_best(trials, records.study))


class GrowingFront:
    """The front of a study that grows: a new trial is compared with the front alone, not with all trials again.

    Args:
        study: What holds for the whole study.
        trials: What is settled by now.

    Attributes:
        trials: The front, by number: what :func:`front` gives for the same trials.
    """

    def __init__(self, study: StudyRecord, trials: Iterable[TrialRecord]) -> None:
        self.trials: list[TrialRecord] = []
        self._study = study
        self._seen: set[int] = set()
        self._tried: dict[str, int] = {}
        self._volume = 0.0
        self.take(trials)

    def take(self, trials: Iterable[TrialRecord]) -> None:
        """Take in whatever of the study's trials is new; those that were taken before may be among them."""
        settled = list(trials)
        new = [trial for trial in settled if trial.number not in self._seen]
        self._seen |= {trial.number for trial in new}
        new = sorted((trial for trial in new if _competes(trial, self._study)), key=lambda trial: trial.number)
        if any(self._tried.get(_what(trial), -1) > trial.number for trial in new):
            # What was tried twice came in the wrong order: what the later one had pushed off the front comes back.
            self.trials, self._tried = [], {}
            new = sorted((t for t in settled if _competes(t, self._study)), key=lambda trial: trial.number)
        first = [trial for trial in new if self._tried.setdefault(_what(trial), trial.number) == trial.number]
        if first:
            both = sorted((*self.trials, *first), key=lambda trial: trial.number)
            self.trials = _best(both, self._study)
            self._volume = _volume(self.trials, self._study) if has_reference(self._study) else 0.0

    @property
    def hypervolume(self) -> float | None:
        """As :func:`hypervolume_of`."""
        return self._volume if has_reference(self._study) else None


def normalised(trial: TrialRecord, study: StudyRecord) -> NDArray[np.float64]:
    """Return the trial's objectives as fractions of the hypervolume's reference values.

    A negative accuracy drop counts as 0: noise above the dense score is no gain. Where the reference value is 0 (a
    constraint that allows no drop) the objective only filters: 0 within it, infinity beyond.

    Returns:
        (m,) in the order of the study's objectives; 1 is as bad as the reference.

    Raises:
        UsageError: The trial lacks an objective, or the study its reference value (no dense trial yet).
    """
    out = np.empty(len(study.spec.objectives))
    for i, name in enumerate(study.spec.objectives):
        if name not in trial.values or name not in study.reference:
            owner = f"trial {trial.number}" if name not in trial.values else "the study's reference point"
            raise UsageError(
                f"{owner} has no {name}; only measured trials of a study with a dense trial can be normalised"
            )
        value, reference = max(trial.values[name], 0.0), study.reference[name]
        out[i] = value / reference if reference > 0 else (0.0 if value == 0 else np.inf)
    return out


@_once
def hypervolume_of(records: RunRecords) -> float | None:
    """Return the volume dominated by the front, with the reference point at 1 in every objective.

    Returns:
        A number in [0, 1]; None while the study has no reference point.
    """
    if not has_reference(records.study):
        return None
    return _volume(front(records), records.study)


@_once
def hypervolume_history(records: RunRecords) -> tuple[float, ...]:
    """Return the hypervolume after each trial, in order of trial number; empty without a reference point."""
    if not has_reference(records.study):
        return ()
    counted = {trial.number for trial in candidates(records)}
    history: list[float] = []
    found: list[TrialRecord] = []
    for trial in _ordered(records):
        value = history[-1] if history else 0.0
        if trial.number in counted:
            mask = nondominated([_objectives(t, records.study) for t in (*found, trial)])
            if mask[-1]:
                found = [t for t, stays in zip((*found, trial), mask, strict=True) if stays]
                value = _volume(found, records.study)
        history.append(value)
    return tuple(history)


def has_reference(study: StudyRecord) -> bool:
    """Whether the hypervolume's reference point is known: the dense model was scored and measured."""
    return all(name in study.reference for name in study.spec.objectives)


def _ordered(records: RunRecords) -> list[TrialRecord]:
    return sorted(records.trials, key=lambda trial: trial.number)


def _competes(trial: TrialRecord, study: StudyRecord) -> bool:
    return trial.feasible and all(isfinite(trial.values.get(name, nan)) for name in study.spec.objectives)


def _what(trial: TrialRecord) -> str:
    return trial.config.signature if trial.config else f"trial {trial.number}"


def _best(trials: Sequence[TrialRecord], study: StudyRecord) -> list[TrialRecord]:
    mask = nondominated([_objectives(trial, study) for trial in trials])
    return [trial for trial, stays in zip(trials, mask, strict=True) if stays]


def _objectives(trial: TrialRecord, study: StudyRecord) -> list[float]:
    return [trial.values[name] for name in study.spec.objectives]


def _volume(trials: Iterable[TrialRecord], study: StudyRecord) -> float:
    points = [normalised(trial, study) for trial in trials]
    return hypervolume(points, np.ones(len(study.spec.objectives)))
