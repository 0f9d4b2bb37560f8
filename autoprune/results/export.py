"""``front.json``: the front as one document; ``front-1.schema.json`` beside this describes it to other languages."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import Field

from autoprune.results.picks import Picks, picks
from autoprune.spec.document import Document
from autoprune.spec.front import DENSE, dense_trial, front, hypervolume_of
from autoprune.spec.record import EnergyRecord, LatencyRecord, RunRecords, TrialRecord


class FrontTrial(Document):
    """One trial in ``front.json``.

    Attributes:
        number: Optuna's trial number.
        picks: Names that it bears: "no loss", "knee", "fastest".
        origin: Who proposed it.
        values: Metric to value, in the metric's unit.
        of_dense: Metric to value / dense value; the accuracy drop and metrics that are 0 when dense are absent.
        score: On validation data.
        test_score: On test data; absent where it was not measured.
        violations: Constraint to the amount above its bound; a front trial has none, the dense one may.
        latency: The measurement.
        energy: The model's estimate.
        config: Path of its pruning config, relative to ``front.json``; absent for the dense model.
    """

    number: int
    picks: tuple[str, ...] = ()
    origin: str
    values: dict[str, float]
    of_dense: dict[str, float] = Field(default_factory=dict)
    score: float | None = None
    test_score: float | None = None
    violations: dict[str, float] = Field(default_factory=dict)
    latency: LatencyRecord | None = None
    energy: EnergyRecord | None = None
    config: str | None = None


class PickNumbers(Document):
    """Trial numbers of the picks; one that no trial earns is absent (see :class:`autoprune.results.picks.Picks`)."""

    no_loss: int | None = None
    knee: int | None = None
    fastest: int | None = None


class FrontDocument(Document):
    """``front.json``.

    Attributes:
        task: Task reference of the study.
        device: Device profile.
        device_title: Its human name.
        fingerprint: Of the architecture.
        objectives: Metrics that were minimised together.
        constraints: Metric to its bound as the study states it.
        higher_is_better: Direction of the scores.
        sampler: Registry key.
        seed: Seed of the search.
        trials: How many trials the run holds, failed ones included.
        reference: Objective to the hypervolume's reference value.
        hypervolume: Of the front, in units of the reference box; absent without a reference point.
        dense: The dense model; absent while it has not been measured.
        picks: Three named trials of the front.
        front: Feasible trials that no other dominates, by number; the dense model may be one.
    """

    schema_: Literal["autoprune/front/1"] = Field("autoprune/front/1", alias="schema")
    task: str
    device: str
    device_title: str
    fingerprint: str
    objectives: tuple[str, ...]
    constraints: dict[str, float | str]
    higher_is_better: bool
    sampler: str
    seed: int
    trials: int
    reference: dict[str, float]
    hypervolume: float | None = None
    dense: FrontTrial | None = None
    picks: PickNumbers
    front: tuple[FrontTrial, ...]


def config_path(trial: TrialRecord) -> str:
    """Return the path of a front trial's config in the report, relative to it; "" for the dense model."""
    return "" if trial.config is None or trial.origin == DENSE else f"configs/{trial.number:03d}.yaml"


def front_document(records: RunRecords) -> FrontDocument:
    """Return the front as one document."""
    study, spec, chosen, dense = records.study, records.study.spec, picks(records), dense_trial(records)
    return FrontDocument(
        task=spec.task,
        device=spec.device,
        device_title=study.device_title,
        fingerprint=study.fingerprint,
        objectives=spec.objectives,
        constraints=spec.constraints,
        higher_is_better=study.higher_is_better,
        sampler=spec.search.sampler,
        seed=spec.search.seed,
        trials=len(records.trials),
        reference=study.reference,
        hypervolume=hypervolume_of(records),
        dense=_entry(dense, dense, chosen) if dense else None,
        picks=PickNumbers(
            no_loss=chosen.no_loss.number if chosen.no_loss else None,
            knee=chosen.knee.number if chosen.knee else None,
            fastest=chosen.fastest.number if chosen.fastest else None,
        ),
        front=tuple(_entry(trial, dense, chosen) for trial in front(records)),
    )


def front_json(records: RunRecords) -> str:
    """Return :func:`front_document` as JSON that a person can read too."""
    return json.dumps(front_document(records).to_data(), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _entry(trial: TrialRecord, dense: TrialRecord | None, chosen: Picks) -> FrontTrial:
    base = dense.values if dense else {}
    return FrontTrial(
        number=trial.number,
        picks=chosen.titles(trial),
        origin=trial.origin,
        values=trial.values,
        of_dense={k: v / base[k] for k, v in trial.values.items() if k != "accuracy_drop" and base.get(k)},
        score=trial.score,
        test_score=trial.test_score,
        violations=trial.violations,
        latency=trial.latency,
        energy=trial.energy,
        config=config_path(trial) or None,
    )
