"""What a finished study offers: three named picks, and the trial that fits given bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.errors import UsageError, unknown_name
from autoprune.pareto import knee
from autoprune.spec.front import DENSE, DROP, candidates, dense_trial, front, has_reference, normalised
from autoprune.spec.objectives import METRICS
from autoprune.spec.record import RunRecords, StudyRecord, TrialRecord


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


def _position(trial: TrialRecord, study: StudyRecord) -> NDArray[np.float64]:
    return (
        normalised(trial, study)
        if has_reference(study)
        else np.array([trial.values[name] for name in study.spec.objectives])
    )


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
