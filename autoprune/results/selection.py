"""Which trial of a finished study to take: within bounds, by one metric, by weights, or the knee."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from autoprune.errors import UsageError, unknown_name
from autoprune.pareto import nondominated
from autoprune.results.picks import compromise
from autoprune.spec.front import DENSE, DROP, candidates, dense_trial
from autoprune.spec.objectives import METRICS, SCORE, Bound, Limit
from autoprune.spec.record import RunRecords, TrialRecord

MOST_MISSES = 3
"""Near misses that are told where nothing fits."""


def select(
    records: RunRecords,
    bounds: Sequence[Bound] = (),
    *,
    minimize: str | None = None,
    weights: Mapping[str, float] | None = None,
) -> TrialRecord:
    """Return the feasible pruned trial that fits the bounds and is best among those that do.

    Args:
        records: A run.
        bounds: On any metric that trials hold, and on the score; a percentage is of the dense model.
        minimize: Metric to minimise; ties go to the smaller accuracy drop, then to the earlier trial.
        weights: Metric to its weight: the smallest weighted sum is best, each metric scaled to [0, 1] over the trials
            that fit and that no other one beats in all of these metrics.
            With neither, the best compromise of what fits, as the report's knee.

    Raises:
        UnknownNameError: A metric that autoprune does not know.
        UsageError: Both ``minimize`` and ``weights``, a metric that this study did not record, weights that choose
            nothing, or no trial within the bounds; the message then names the closest trials and what they miss.
    """
    if minimize is not None and weights is not None:
        raise UsageError("minimize and weights exclude each other; give one of them, or neither for the knee")
    wanted = tuple(weights) if weights is not None else (minimize,) if minimize is not None else ()
    for name in wanted:
        if name not in METRICS:
            raise unknown_name("metric", name, METRICS)
    if weights is not None:
        _check_weights(weights)
    trials = _recorded(records, tuple(dict.fromkeys((*(bound.metric for bound in bounds), *wanted))))
    limits = tuple(_limit(bound, records) for bound in bounds)
    fitting = [trial for trial in trials if all(limit.excess(_value(trial, limit)) <= 0 for limit in limits)]
    if not fitting:
        raise UsageError(_nearest_misses(trials, limits))
    if minimize is not None:
        return min(fitting, key=lambda t: (t.values[minimize], t.values.get(DROP, 0.0), t.number))
    names = tuple(weights) if weights is not None else records.study.spec.objectives
    points = np.array([[trial.values[name] for name in names] for trial in fitting])
    best = nondominated(points)
    front = [trial for trial, stays in zip(fitting, best, strict=True) if stays]
    if weights is None:
        return compromise(front, records.study) or front[0]
    scaled = (points[best] - points[best].min(axis=0)) / np.maximum(np.ptp(points[best], axis=0), 1e-300)
    return front[int(np.argmin(scaled @ np.array([weights[name] for name in names])))]


def _check_weights(weights: Mapping[str, float]) -> None:
    for name, weight in weights.items():
        if not 0 <= weight < float("inf"):
            raise UsageError(f"the weight of {name} is {weight:g}; give a number of at least 0")
    if not any(weights.values()):
        raise UsageError("the weights are all 0 and choose nothing; give one above 0")


def _recorded(records: RunRecords, names: tuple[str, ...]) -> list[TrialRecord]:
    """Return the feasible pruned trials that have all of these metrics."""
    trials = [trial for trial in candidates(records) if trial.origin != DENSE and trial.config is not None]
    if not trials:
        raise UsageError(
            f"none of the {len(records.trials)} trials of this run is a feasible pruned model; search longer, "
            "or loosen the study's constraints"
        )
    for name in names:
        if all(trial.measured(name) is None for trial in trials):
            known = sorted(set(chain.from_iterable(trial.values for trial in trials)))
            raise UsageError(f"this run did not record {name}; it recorded {', '.join(known)}")
    trials = [trial for trial in trials if all(trial.measured(name) is not None for name in names)]
    if not trials:
        raise UsageError(f"no feasible trial has all of {', '.join(names)}; bound fewer metrics")
    return trials


def _limit(bound: Bound, records: RunRecords) -> Limit:
    study, dense = records.study, dense_trial(records)
    base = study.dense_score if bound.metric in (SCORE, DROP) else dense.values.get(bound.metric) if dense else None
    if base is None and bound.relative:
        raise UsageError(f"the dense model's {bound.metric} is not recorded, so {bound} says nothing; give a number")
    return bound.limit(base or 0.0, study.higher_is_better)


def _value(trial: TrialRecord, limit: Limit) -> float:
    value = trial.measured(limit.metric)
    assert value is not None, "trials without a bounded metric were left out"
    return value


def _nearest_misses(trials: list[TrialRecord], limits: tuple[Limit, ...]) -> str:
    def worst(trial: TrialRecord) -> float:
        return max(limit.excess(_value(trial, limit)) / limit.scale for limit in limits)

    closest, *others = sorted(trials, key=lambda t: (worst(t), t.number))[:MOST_MISSES]
    misses = []
    for limit in limits:
        value = _value(closest, limit)
        beyond = limit.excess(value)
        if beyond > 0:
            share = f" ({beyond / abs(limit.value):.1%})" if limit.value else ""
            side = "below" if limit.at_least else "above"
            misses.append(f"its {limit.metric} is {value:.6g}, {beyond:.4g} {side} its bound{share}")
    sign = {True: ">=", False: "<="}
    wanted = " and ".join(f"{limit.metric} {sign[limit.at_least]} {limit.value:.6g}" for limit in limits)
    after = f" (then {' and '.join(str(trial.number) for trial in others)})" if others else ""
    return (
        f"no feasible trial has {wanted}; trial {closest.number}{after} comes closest: {' and '.join(misses)}; "
        "loosen that bound or search longer"
    )
