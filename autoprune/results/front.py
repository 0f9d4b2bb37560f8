"""What a finished study offers: its front, three named picks, and the trial that fits given bounds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.errors import UsageError, unknown_name
from autoprune.pareto import hypervolume, knee, nondominated
from autoprune.spec.objectives import METRICS
from autoprune.spec.record import RunRecords, StudyRecord, TrialRecord

DENSE = "dense"
DROP = "accuracy_drop"


@dataclass(frozen=True)
class Picks:
    """Three trials of the front that a reader looks at first; the dense model is none of them.

    Attributes:
        no_loss: Of the trials with ``accuracy_drop <= 0``, the one with the smallest mean of cost / dense cost.
        knee: The best compromise between accuracy and cost: :func:`autoprune.pareto.knee` over the accuracy drop and
            the mean of the costs, each over its reference value. One axis for all costs: MACs, latency and energy go
            together, and three votes against one would make it the fastest trial. Over the objectives as they are
            where no drop is among them, or no reference value is known.
        fastest: The lowest latency; the lowest first cost objective where latency is none.
    """

    no_loss: TrialRecord | None = None
    knee: TrialRecord | None = None
    fastest: TrialRecord | None = None

    def named(self) -> tuple[tuple[str, TrialRecord], ...]:
        """Return (title, trial) of the picks there are; one trial may stand more than once."""
        pairs = (("no loss", self.no_loss), ("knee", self.knee), ("fastest", self.fastest))
        return tuple((title, trial) for title, trial in pairs if trial is not None)

    def titles(self, trial: TrialRecord) -> tuple[str, ...]:
        """Return the titles that ``trial`` bears."""
        return tuple(title for title, pick in self.named() if pick.number == trial.number)

    def trials(self) -> tuple[TrialRecord, ...]:
        """Return the picked trials, each once, in the order no loss, knee, fastest."""
        return tuple({trial.number: trial for _, trial in self.named()}.values())


def dense_trial(records: RunRecords) -> TrialRecord | None:
    """Return the complete trial of the dense model, or None while there is none."""
    return next((t for t in _ordered(records) if t.origin == DENSE and t.state == "complete"), None)


def candidates(records: RunRecords) -> tuple[TrialRecord, ...]:
    """Return the feasible trials that have every objective, by number; of repeated configs the first."""
    first: dict[str, TrialRecord] = {}
    for trial in _ordered(records):
        if trial.feasible and all(name in trial.values for name in records.study.spec.objectives):
            first.setdefault(_identity(trial), trial)
    return tuple(first.values())


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


def hypervolume_of(records: RunRecords) -> float | None:
    """Return the volume dominated by the front, with the reference point at 1 in every objective.

    Returns:
        A number in [0, 1]; None while the study has no reference point.
    """
    if not has_reference(records.study):
        return None
    return _volume(front(records), records.study)


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


def picks(records: RunRecords) -> Picks:
    """Return the three named trials of the front; a pick that no trial earns is None."""
    study = records.study
    trials = [trial for trial in front(records) if trial.origin != DENSE]
    if not trials:
        return Picks()
    costs = [name for name in study.spec.objectives if name != DROP]
    dense = dense_trial(records)
    lossless = [trial for trial in trials if DROP in trial.values and trial.values[DROP] <= 0]
    no_loss = min(lossless, key=lambda t: (_mean_cost(t, dense, costs), t.number), default=None)
    speed = "latency_ms" if "latency_ms" in costs else next(iter(costs), None)
    fastest = min(trials, key=lambda t: (t.values[speed], t.values.get(DROP, 0.0), t.number)) if speed else None
    finite = [trial for trial in trials if np.isfinite(_position(trial, study)).all()]
    middle = finite[knee([_balance(trial, study) for trial in finite])] if finite else None
    return Picks(no_loss=no_loss, knee=middle, fastest=fastest)


def select(records: RunRecords, maxima: Mapping[str, float], minimize: str) -> TrialRecord:
    """Return the feasible pruned trial with the smallest ``minimize`` among those within ``maxima``.

    Args:
        records: A run.
        maxima: Metric to its largest allowed value, in the metric's unit; any metric that trials hold.
        minimize: Metric to minimise; ties go to the smaller accuracy drop, then to the earlier trial.

    Raises:
        UnknownNameError: A metric that autoprune does not know.
        UsageError: A metric that this study did not record, a bound that is NaN, or no trial within the bounds; the
            message then names the closest trial and by how much it misses.
    """
    for name in (*maxima, minimize):
        if name not in METRICS:
            raise unknown_name("metric", name, METRICS)
    for name, bound in maxima.items():
        if bound != bound:
            raise UsageError(f"the bound on {name} is NaN; give a number")
    trials = [trial for trial in candidates(records) if trial.origin != DENSE and trial.config is not None]
    if not trials:
        raise UsageError(
            f"none of the {len(records.trials)} trials of this run is a feasible pruned model; search longer, "
            "or loosen the study's constraints"
        )
    for name in (*maxima, minimize):
        if not any(name in trial.values for trial in trials):
            known = sorted(set().union(*(trial.values for trial in trials)))
            raise UsageError(f"this run did not record {name}; it recorded {', '.join(known)}")
    trials = [trial for trial in trials if all(name in trial.values for name in (*maxima, minimize))]
    if not trials:
        raise UsageError(f"no feasible trial has all of {', '.join((*maxima, minimize))}; bound fewer metrics")
    fitting = [trial for trial in trials if all(trial.values[name] <= bound for name, bound in maxima.items())]
    if fitting:
        return min(fitting, key=lambda t: (t.values[minimize], t.values.get(DROP, 0.0), t.number))
    raise UsageError(_nearest_miss(trials, maxima, records))


def _nearest_miss(trials: list[TrialRecord], maxima: Mapping[str, float], records: RunRecords) -> str:
    wanted = " and ".join(f"{name} <= {bound:.6g}" for name, bound in maxima.items())
    dense = dense_trial(records)

    def scale(name: str) -> float:
        known = records.study.reference.get(name) or (dense.values.get(name) if dense else None)
        return abs(maxima[name]) or abs(known or 1.0)

    def excess(trial: TrialRecord) -> float:
        return max((trial.values[name] - bound) / scale(name) for name, bound in maxima.items())

    closest = min(trials, key=lambda t: (excess(t), t.number))
    misses = []
    for name, bound in maxima.items():
        value = closest.values[name]
        if value > bound:
            share = f" ({(value - bound) / abs(bound):.1%})" if bound else ""
            misses.append(f"its {name} is {value:.6g}, {value - bound:.4g} above its bound{share}")
    return (
        f"no feasible trial has {wanted}; trial {closest.number} comes closest: {' and '.join(misses)}; "
        "raise that bound or search longer"
    )


def _ordered(records: RunRecords) -> list[TrialRecord]:
    return sorted(records.trials, key=lambda trial: trial.number)


def _identity(trial: TrialRecord) -> str:
    """Text that two trials of the same config share; where a config comes from is not what it does."""
    if trial.config is None:
        return f"trial {trial.number}"
    return trial.config.model_copy(update={"provenance": None}).to_json()


def _objectives(trial: TrialRecord, study: StudyRecord) -> list[float]:
    return [trial.values[name] for name in study.spec.objectives]


def _position(trial: TrialRecord, study: StudyRecord) -> NDArray[np.float64]:
    return normalised(trial, study) if has_reference(study) else np.array(_objectives(trial, study))


def _balance(trial: TrialRecord, study: StudyRecord) -> list[float]:
    position = _position(trial, study)
    is_drop = np.array([name == DROP for name in study.spec.objectives])
    if not is_drop.any() or is_drop.all() or not has_reference(study):
        return [float(value) for value in position]
    return [float(position[is_drop][0]), float(position[~is_drop].mean())]


def _mean_cost(trial: TrialRecord, dense: TrialRecord | None, costs: list[str]) -> float:
    if not costs:
        return trial.values.get(DROP, 0.0)
    scales = [(dense.values.get(name) if dense else None) or 1.0 for name in costs]
    return float(np.mean([trial.values[name] / scale for name, scale in zip(costs, scales, strict=True)]))


def _volume(trials: Iterable[TrialRecord], study: StudyRecord) -> float:
    points = [normalised(trial, study) for trial in trials]
    return hypervolume(points, np.ones(len(study.spec.objectives)))
