"""``TrialRecord``: everything that one trial measured, with how it was measured. Reports are made from these alone."""

from __future__ import annotations

import contextlib
import json
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from autoprune.errors import RunDirectoryError
from autoprune.spec.config import PruningConfig
from autoprune.spec.document import Document, parse_document
from autoprune.spec.findings import (
    DamageRecord,
    DeviceValues,
    DroppedChoice,
    Prediction,
    PredictorRecord,
    RungRecord,
    WorkerRecord,
)
from autoprune.spec.objectives import SCORE
from autoprune.spec.profile import DeviceSummary, Payoff, Staircase
from autoprune.spec.study import StudySpec


class LatencyConditions(Document):
    """What was set for a measurement.

    Attributes:
        runtime: Registry key of what executed the model.
        batch: Samples per run.
        threads: CPU threads of the runtime; absent where a command chooses them itself.
        dtype: Floating type that the model computed in.
        affinity: CPU cores that the process was pinned to; absent: all that it may use.
    """

    runtime: str
    batch: int
    threads: int | None = None
    dtype: str
    affinity: tuple[int, ...] | None = None

    def __str__(self) -> str:
        threads = "its own threads" if self.threads is None else f"{self.threads} thread{'s' * (self.threads != 1)}"
        cores = "" if self.affinity is None else f" on core{'s' * (len(self.affinity) != 1)} "
        return f"{threads}{cores}{' '.join(map(str, self.affinity or ()))}, batch {self.batch}, {self.dtype}"


class MeasuredEnergy(Document):
    """Energy of one run as a meter counted it, all that the device drew, idle power included.

    Attributes:
        mj: Of the trial's network.
        dense_mj: Of the dense network in the same measurement, A B B A.
        window_s: Seconds for which the trial's network ran.
        meter: What counted: "RAPL package-0, dram".
    """

    mj: Annotated[float, Field(gt=0)]
    dense_mj: Annotated[float, Field(gt=0)]
    window_s: float
    meter: str


class LatencyRecord(Document):
    """One latency, measured or modelled.

    Attributes:
        ms: Ratio to dense times the study's dense latency: comparable over trials whatever the machine's mood.
        ratio: Median of the paired ratios candidate / dense.
        ratio_low: Lower end of its 95 % bootstrap interval; modelled: the least that the ranges of the device's figures
            allow.
        ratio_high: Upper end of it.
        candidate_ms: Median of the candidate's own samples in this measurement.
        candidate_p90_ms: Their 90th percentile.
        dense_ms: Median of the dense samples of the same measurement.
        pairs: Paired samples; 0 for a modelled latency.
        converged: Whether the interval became as narrow as asked, the machine at full speed.
        meter: What gave the number: "measured: torch 2.13.0, ..." or "modelled: roofline ...".
        candidate_p99_ms: 99th percentile of the candidate's samples.
        outliers: Samples of either side beyond Tukey's fences; they stay in every figure.
        warmup_rounds: Rounds that ran before the first sample.
        steady: Whether the warm-up saw a steady state.
        prepare_s: Seconds of compiling or exporting, which are in no sample.
        reason: Why it did not converge, and what to do; absent where it did.
        conditions: What was set; absent for a modelled latency.
        retries: Calls of a command that failed and were repeated; absent for other runtimes.
        repeated: Samples taken again because another process held the core meanwhile; absent where none was.
        slowed: Pairs that do not count because the machine was slow meanwhile; absent where there are none.
        speed: The machine's speed over its best that was seen, where it was slow throughout: 0.57; absent elsewhere.
        energy: What a meter counted meanwhile, on its way into the record of energy.
    """

    ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    candidate_ms: float
    candidate_p90_ms: float
    dense_ms: float
    pairs: int
    converged: bool
    meter: str
    candidate_p99_ms: float | None = None
    outliers: int | None = None
    warmup_rounds: int | None = None
    steady: bool | None = None
    prepare_s: float | None = None
    reason: str | None = None
    conditions: LatencyConditions | None = None
    retries: int | None = None
    repeated: int | None = None
    slowed: int | None = None
    speed: float | None = None
    energy: MeasuredEnergy | None = None


class EnergyRecord(Document):
    """Modelled energy of one run, in millijoules, with the two baselines that it must beat.

    Attributes:
        mj: Best estimate of the whole model.
        low_mj: Lower end over the ranges of the device profile.
        high_mj: Upper end over them.
        time_mj: The part that is power x time.
        compute_mj: The part that is arithmetic.
        memory_mj: The part that is memory traffic.
        macs_only_mj: Baseline: dense energy scaled by MACs.
        time_only_mj: Baseline: dense energy scaled by latency.
        dram_bytes: Modelled DRAM traffic.
        basis: How far to trust it ("uncalibrated: ranking only").
        measured: What a meter counted, where one was at hand; ``mj`` is the model's all the same.
    """

    mj: float
    low_mj: float
    high_mj: float
    time_mj: float
    compute_mj: float
    memory_mj: float
    macs_only_mj: float
    time_only_mj: float
    dram_bytes: float
    basis: str
    measured: MeasuredEnergy | None = None


class LayerRecord(Document):
    """What became of one layer.

    Attributes:
        channels: Output channels left; 0 where its residual block was removed.
        dense_channels: Output channels before.
        weight_sparsity: Fraction of the remaining weights that is zero.
        macs: MACs of the layer as executed.
        dram_bytes: Modelled DRAM traffic of the layer; absent where it is not known by layer.
        predicted_ms: Predicted time of the layer; likewise.
    """

    channels: int
    dense_channels: int
    weight_sparsity: float
    macs: int
    dram_bytes: float | None = None
    predicted_ms: float | None = None


class Timings(Document):
    """Wall seconds of the parts of one trial; ``recover_s`` is what recovery takes beside the two before it."""

    propose_s: float = 0.0
    prune_s: float = 0.0
    cost_s: float = 0.0
    compensate_s: float = 0.0
    finetune_s: float = 0.0
    recover_s: float = 0.0
    evaluate_s: float = 0.0
    latency_s: float = 0.0
    record_s: float = 0.0

    @property
    def total_s(self) -> float:
        """Sum of all parts."""
        return float(sum(getattr(self, name) for name in type(self).model_fields))


class TrialRecord(Document):
    """One trial.

    Attributes:
        number: Optuna's trial number.
        state: "complete", "failed", or "pruned" (stopped early; a repeat of a known config among them).
        origin: Who proposed it: "dense", "uniform", the key of an allocation, or the sampler's key.
        config: What was tried; None where the proposal itself failed.
        values: Metric to value; a metric that was not measured is absent.
        score: What ``Task.evaluate`` gave.
        test_score: What ``Task.test`` gave; measured once, for trials of the final front.
        again: Latency measured once more after the search, for trials of the final front; the values are those of the
            first measurement.
        violations: Constraint to the amount beyond its bound; only broken ones.
        layers: Layer name to what became of it.
        uncounted_ops: Operator to the number of calls that fvcore could not count.
        latency: The measurement.
        energy: The model's estimate.
        recovery: What recovery did, with sample and step counts.
        timings: Wall seconds of each part.
        error: Traceback or reason of a trial that is not complete.
        finished_at: UTC, ISO 8601.
        prediction: Latency as it was predicted before it was measured.
        rungs: What it scored on each rung that it climbed, the last one reached last; absent in a study of one rung.
        worker: Where it ran; absent where it ran in the process of the search.
        devices: Further devices of the study to what the trial costs there.
    """

    schema_: Literal["autoprune/trial/1"] = Field("autoprune/trial/1", alias="schema")
    number: int
    state: Literal["complete", "failed", "pruned"]
    origin: str
    config: PruningConfig | None = None
    values: dict[str, float] = Field(default_factory=dict)
    score: float | None = None
    test_score: float | None = None
    again: LatencyRecord | None = None
    violations: dict[str, float] = Field(default_factory=dict)
    layers: dict[str, LayerRecord] = Field(default_factory=dict)
    uncounted_ops: dict[str, int] = Field(default_factory=dict)
    latency: LatencyRecord | None = None
    energy: EnergyRecord | None = None
    recovery: str = "none"
    timings: Timings = Timings()
    error: str | None = None
    finished_at: str = ""
    prediction: Prediction | None = None
    rungs: tuple[RungRecord, ...] | None = None
    worker: WorkerRecord | None = None
    devices: dict[str, DeviceValues] | None = None

    def measured(self, metric: str) -> float | None:
        """Return the value of a metric or the score, whichever ``metric`` names; None where it is not known."""
        return self.score if metric == SCORE else self.values.get(metric)

    @property
    def feasible(self) -> bool:
        """Whether the trial is complete, was measured whole and breaks no constraint."""
        return self.state == "complete" and not self.violations and self.score is not None


class GroupRecord(Document):
    """Channels that are tied, as the graph found them.

    Attributes:
        layers: Layers that lose an output channel with each unit.
        units: Units that may go.
    """

    layers: tuple[str, ...]
    units: int


class StudyRecord(Document):
    """What holds for a whole study.

    Attributes:
        spec: The resolved study.
        device_title: Human name of the device.
        fingerprint: Of the architecture.
        dense_score: Score of the dense model on validation data.
        higher_is_better: Direction of the score.
        groups: Group name to its channels.
        pinned: Reason to the layers whose channels stay for that reason.
        reference: Objective to the hypervolume's reference value; fixed by the dense model before the search.
        versions: Package to version.
        machine: Processor and system.
        notes: Sentences that a reader must know (a surgery check, a model instead of a meter).
        stopped: Why the search ended before its trials were done; absent where it did not.
        dense: Time, bytes and energy of the dense model, layer by layer.
        payoffs: Patterns that were tried on the device; those that do not pay are refused as speed-ups.
        staircases: Time of a layer over its width.
        damage: What single choices cost in score.
        dropped: Choices of the space that the search leaves out, with reasons.
        predictor: What predicted latency, and how well.
        devices: Further devices to their titles.
    """

    schema_: Literal["autoprune/study-record/1"] = Field("autoprune/study-record/1", alias="schema")
    spec: StudySpec
    device_title: str
    fingerprint: str
    dense_score: float
    higher_is_better: bool
    groups: dict[str, GroupRecord] = Field(default_factory=dict)
    pinned: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    reference: dict[str, float] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    machine: str = ""
    notes: tuple[str, ...] = ()
    stopped: str | None = None
    dense: DeviceSummary | None = None
    payoffs: tuple[Payoff, ...] | None = None
    staircases: tuple[Staircase, ...] | None = None
    damage: tuple[DamageRecord, ...] | None = None
    dropped: tuple[DroppedChoice, ...] | None = None
    predictor: PredictorRecord | None = None
    devices: dict[str, str] | None = None


class RunRecords(Document):
    """A study and its trials: all that a report needs."""

    study: StudyRecord
    trials: tuple[TrialRecord, ...]

    @cached_property
    def computed(self) -> dict[str, Any]:
        """What follows from these records alone, kept by those who computed it (``spec.front``); a copy has none."""
        return {}


def write_records(records: RunRecords, path: Path) -> None:
    """Write one JSON document a line: the study, then its trials. The file appears whole or not at all."""
    lines = [records.study.to_json(), *(trial.to_json() for trial in records.trials)]
    write_whole(path, "\n".join(lines) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write ``text`` so that a reader sees the old file or the new one, never a part."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def read_records(path: Path) -> RunRecords:
    """Read what :func:`write_records` wrote.

    Raises:
        RunDirectoryError: The file is missing or damaged.
    """
    try:
        lines: list[Any] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
        if not lines:
            raise ValueError("it is empty")
        study, *trials = lines
    except FileNotFoundError:
        raise RunDirectoryError(
            f"{path.parent} holds no {path.name}; give the directory of a run of 'autoprune search'"
        ) from None
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{path} is damaged ({error}); run 'autoprune report' where study.db is") from error
    return RunRecords(
        study=parse_document(StudyRecord, study, str(path)),
        trials=tuple(
            parse_document(TrialRecord, trial, f"{path}, line {i}") for i, trial in enumerate(trials, start=2)
        ),
    )
