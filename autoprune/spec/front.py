"""The front of recorded trials, and how much of the objective space it dominates."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
        if trial.feasible and all(isfinite(trial.values.get(name, nan)) for name in records.study.spec.objectives):
            first.setdefault(trial.config.signature if trial.config else f"trial {trial.number}", trial)
    return tuple(first.values())


@_once
def front(records: RunRecords) -> tuple[TrialRecord, ...]:
    """Return the feasible trials that no other dominates over the study's objectives, by number.

    The dense model is among them unless a constraint refuses it or a trial is at least as good everywhere.
    """
    trials = candidates(records)
    if not trials:
        return ()
    mask = nondominated([_objectives(trial, records.study) for trial in trials])
    return tuple(trial for trial, stays in zip(trials, mask, strict=True) if stays)


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


def _objectives(trial: TrialRecord, study: StudyRecord) -> list[float]:
    return [trial.values[name] for name in study.spec.objectives]


def _volume(trials: Iterable[TrialRecord], study: StudyRecord) -> float:
    points = [normalised(trial, study) for trial in trials]
    return hypervolume(points, np.ones(len(study.spec.objectives)))
