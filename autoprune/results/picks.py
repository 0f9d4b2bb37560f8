"""What a finished study offers: three named picks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.pareto import knee
from autoprune.spec.front import DENSE, DROP, dense_trial, front, has_reference, normalised
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
    return Picks(no_loss=no_loss, knee=compromise(trials, study), fastest=fastest)


def compromise(trials: Sequence[TrialRecord], study: StudyRecord) -> TrialRecord | None:
    """Return the best compromise of some trials, as :class:`Picks` says; None where none has finite objectives."""
    finite = [trial for trial in trials if np.isfinite(_position(trial, study)).all()]
    return finite[knee([_balance(trial, study) for trial in finite])] if finite else None


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
