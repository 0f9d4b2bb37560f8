"""What a study finds out beside its trials' values: damage, what does not pay, predictions, rungs, workers, devices.

The search writes these into its records, and reports say *why* and *how far to trust it* from them alone.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from autoprune.spec.document import Document

Finite = Annotated[float, Field(allow_inf_nan=False)]


class DamageRecord(Document):
    """What one choice for one group or layer costs in score when everything else stays dense.

    Attributes:
        name: Address in a config.
        granularity: Registry key.
        criterion: Registry key.
        sparsity: Fraction of units that goes.
        drop: Estimated accuracy drop, in the score's unit; below 0 where the score rose.
        macs: Multiply-adds of the network with this choice alone.
    """

    name: str
    granularity: str
    criterion: str
    sparsity: Annotated[float, Field(ge=0, lt=1)]
    drop: Finite
    macs: Annotated[float, Field(ge=0)]


class DroppedChoice(Document):
    """A choice that the space offers and the search leaves out.

    Attributes:
        name: Address in a config.
        granularity: Registry key.
        criterion: Registry key; None where the granularity goes with all its criteria.
        reason: A sentence with the numbers.
    """

    name: str
    granularity: str
    criterion: str | None = None
    reason: str


class Prediction(Document):
    """Latency as it was predicted before it was measured.

    Attributes:
        ms: Predicted.
        low_ms: Lower end of the 95 % interval.
        high_ms: Upper end of it.
        source: What predicted it, and from how many measurements.
    """

    ms: Annotated[float, Field(gt=0)]
    low_ms: Annotated[float, Field(gt=0)]
    high_ms: Annotated[float, Field(gt=0)]
    source: str


class RungRecord(Document):
    """One rung that a trial climbed.

    Attributes:
        name: As the study calls it.
        score: What it scored there.
        drop: Accuracy drop there, against the dense model on the same rung.
        seconds: Wall time of recovery and scoring there.
    """

    name: str
    score: Finite
    drop: Finite
    seconds: Annotated[float, Field(ge=0)]


class WorkerRecord(Document):
    """Where a trial ran, and what happened to it there.

    Attributes:
        host: Name of the machine.
        pid: Process.
        threads: CPU threads that it computed with.
        attempts: How often it was started; more than 1 after a process, a node or a meter was lost.
        events: What went wrong on the way, one sentence each.
        samples_per_s: Samples evaluated per second; None where the task does not tell how many there are.
    """

    host: str
    pid: int
    threads: int
    attempts: int = 1
    events: tuple[str, ...] = ()
    samples_per_s: float | None = None


class DeviceValues(Document):
    """A trial on a further device.

    Attributes:
        latency_ms: Measured there, or modelled.
        ratio: To dense there.
        ratio_low: Lower end of its 95 % interval; modelled: the least over the ranges of the device's figures.
        ratio_high: Upper end.
        energy_mj: Modelled.
        measured: Whether the latency was measured there.
        meter: What measured it; absent where it is modelled.
    """

    latency_ms: Annotated[float, Field(gt=0)]
    ratio: Annotated[float, Field(gt=0)]
    ratio_low: Annotated[float, Field(gt=0)]
    ratio_high: Annotated[float, Field(gt=0)]
    energy_mj: Annotated[float, Field(ge=0)]
    measured: bool
    meter: str | None = None


class PredictorRecord(Document):
    """The latency predictor of a study.

    Attributes:
        basis: What it was learned from, in a sentence.
        measurements: How many.
        mean_error: Mean absolute relative error, leave one out.
        within_10: Fraction of left-out measurements within 10 %.
        spearman: Rank correlation of left-out predictions and measurements.
    """

    basis: str
    measurements: int
    mean_error: Finite
    within_10: Finite
    spearman: Finite
