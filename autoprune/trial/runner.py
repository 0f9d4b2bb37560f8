"""One trial, from a config to its record: prune, cost, check, recover, evaluate, measure.

It has three parts, which may run on three machines: :meth:`TrialRunner.score` needs the data, :class:`~.bench.Bench`
needs the device, :meth:`TrialRunner.record` needs neither.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from autoprune.cost.energy import DenseReference, estimate_from
from autoprune.cost.host import detect
from autoprune.cost.meters import Meter, rebatch
from autoprune.cost.meters.choice import Choice, choose_meter
from autoprune.errors import MeterError
from autoprune.pruning.plan import NOTHING
from autoprune.pruning.proof import proven_groups
from autoprune.pruning.scores import ScoreBook
from autoprune.spec.config import ModelIdentity, PruningConfig
from autoprune.spec.front import DROP
from autoprune.spec.hardware import DeviceProfile, load_device
from autoprune.spec.latency import LatencySpec
from autoprune.spec.objectives import SCORE, Limit
from autoprune.spec.record import EnergyRecord, LatencyRecord, Timings, TrialRecord
from autoprune.spec.space import SpaceSpec
from autoprune.spec.study import StudySpec
from autoprune.trial.batchnorm import recalibrated
from autoprune.trial.bench import Bench
from autoprune.trial.costs import Costs, TrialCosts
from autoprune.trial.groundwork import Groundwork
from autoprune.trial.pruned import pruned_model, recover_pruned
from autoprune.trial.recovery import resolve_recovery
from autoprune.trial.rungs import RungScorer
from autoprune.trial.shipped import check_precisions, shipped
from autoprune.trial.task import Task, check_batches, score, score_dense

_QUICKEST = 0.1
"""Of the time at the peak: Winograd saves multiply-adds, and clocks pass their data sheet; seconds are a thousandth."""
RUNS_INT8 = ("onnxruntime",)
"""Runtimes that measure an int8 file; beside others its latency is modelled."""
MOST_NORM_LOSS = 0.01
"""Share of the dense score that recalibration may cost the dense model before it is worth a sentence."""


@dataclass
class _Clock:
    """Wall seconds by part of the trial."""

    parts: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.parts[part] = self.parts.get(part, 0.0) + time.perf_counter() - started


@dataclass(frozen=True)
class Scored:
    """A trial up to where the device is needed.

    Attributes:
        record: All that is known by now; final where nothing is to be measured.
        costs: What the network costs.
        model: What is to be measured; None where the config was refused before anything was run, or where the study's
            runtime does not run its precision.
    """

    record: TrialRecord
    costs: Costs
    model: nn.Module | None


def runs_int8(spec: LatencySpec) -> bool:
    """Return whether a study's runtime measures an int8 file: a command does that is given one, or a recording."""
    exported = spec.command is not None and spec.command.export == "onnx"
    return spec.runtime in (*RUNS_INT8, "recorded") or exported


class TrialRunner:
    """Everything that trials of one study share: the traced model, scores, device and meter.

    Args:
        task: The user's task; its model is copied.
        spec: The study.
        groundwork: What another runner of the same study found out, instead of finding it out again.
        metered: Whether latency is measured here; False leaves it to somebody else.

    Attributes:
        profile: The device, with what was detected of this machine.
        meter: What measures latency; None where it is modelled.
        modelled_because: Why it is; empty where there is a meter, and where somebody else measures.
        model: Our copy of the dense model, in evaluation mode.
        graph: Layers, groups, and what is pinned.
        proof: That surgery on this model is exact.
        recovery: With every default filled in.
        costs: What networks cost, before they are built where possible.
        devices: Further devices of the study by name.
        rungs: Scores networks on the cheaper rungs of the study.

    Raises:
        UsageError: The task, its example inputs, the device or the runtime cannot be used.
    """

    def __init__(
        self, task: Task, spec: StudySpec, groundwork: Groundwork | None = None, *, metered: bool = True
    ) -> None:
        self.task = task
        self.spec = spec
        for bound in spec.bounds:
            bound.directed(task.higher_is_better)
        self.profile: DeviceProfile = groundwork.profile if groundwork else detect(load_device(spec.device))
        self.devices = groundwork.devices if groundwork else {n: detect(load_device(n)) for n in spec.devices or ()}
        chosen = choose_meter(spec.latency, self.profile) if metered else Choice(None)
        self.meter: Meter | None = chosen.meter
        self.modelled_because = chosen.modelled_because
        self.model: nn.Module = copy.deepcopy(task.model).eval()
        self.data = task.calibration
        precisions = spec.space.precision if isinstance(spec.space, SpaceSpec) else ()
        self.rungs = RungScorer(task, self.model, spec.search.rungs or ())
        if groundwork is None:
            check_batches(self.data, self.model)
            check_precisions(precisions, self.data)
            self.graph, self.proof = proven_groups(self.model, task.args, task.kwargs, spec.search.seed)
        else:
            groundwork.load_weights(self.model)
            self.graph, self.proof = groundwork.graph, groundwork.proof
        self.recovery = resolve_recovery(spec.recovery, self.model, self.data)
        self.book = ScoreBook(self.data.evidence(self.model, self.graph, spec.search.seed))
        if groundwork is not None:
            self.book.take(groundwork.scores)
        self._inputs = rebatch(task.args, task.kwargs, spec.latency.batch)
        self.costs = TrialCosts(
            self.model,
            self.graph,
            (self._inputs.args, self._inputs.kwargs),
            self.profile,
            spec.latency.runtime,
            spec.search.seed,
            precisions=precisions,
            devices=self.devices,
        )
        self._dense_costs = self.costs.count(self.model, NOTHING)

    @property
    def dense_config(self) -> PruningConfig:
        """The config that prunes nothing. The dense model is scored as it is: no recovery."""
        return PruningConfig(
            model=ModelIdentity(fingerprint=self.graph.fingerprint), seed=self.spec.search.seed, layers={}
        )

    @property
    def groundwork(self) -> Groundwork:
        """What another runner of the same study needs not find out again; scores as far as they are computed."""
        return Groundwork.of(self.model, self.profile, self.graph, self.proof, self.book.computed, self.devices)

    def run_dense(self, number: int) -> TrialRecord:
        """Score, cost and measure the dense model against itself: the reference of every other trial.

        Raises:
            TaskError: ``Task.evaluate`` cannot score it.
        """
        return self._measured(self.score_dense(number), None)

    def run(
        self, config: PruningConfig, number: int, origin: str, dense: TrialRecord, rung: int | None = None
    ) -> TrialRecord:
        """Run one trial, or one rung of it.

        A config that breaks a bound on an exact metric stops before anything is run, and, where its costs follow from
        counts, before anything is built: its record has no score.

        Args:
            config: What to try.
            number: Optuna's trial number.
            origin: Who proposed it.
            dense: Record of the dense model.
            rung: Number of a rung of the study; one past the last of them, or None, is the trial whole. A lower rung
                gives the record of a trial that was stopped there: what is known of its costs, and what it scored.

        Raises:
            Exception: Whatever the user's code or torch raises; the study loop records it.
        """
        return self._measured(self.score(config, number, origin, dense, rung), dense)

    def score_dense(self, number: int) -> Scored:
        """Do of :meth:`run_dense` what needs the data.

        Raises:
            TaskError: ``Task.evaluate`` cannot score it.
        """
        clock = _Clock()
        with clock.time("evaluate_s"):
            value = score_dense(self.task.evaluate, self.model, "evaluate")
        costs = self._dense_costs
        record = TrialRecord(
            number=number,
            state="complete",
            origin="dense",
            config=self.dense_config,
            values=dict(costs.values) | {"accuracy_drop": 0.0},
            score=value,
            layers=dict(costs.layers),
            uncounted_ops=dict(costs.uncounted_ops),
            timings=Timings(**clock.parts),
            devices=costs.device_values(costs),
        )
        return Scored(record, costs, self.model)

    def score(
        self, config: PruningConfig, number: int, origin: str, dense: TrialRecord, rung: int | None = None
    ) -> Scored:
        """Do of :meth:`run` what needs the data."""
        clock = _Clock()
        with clock.time("cost_s"):
            costs = self.costs.of_config(config)
        pruned = None
        if costs is None or not self._violations(costs.values, dense):
            with clock.time("prune_s"):
                pruned = pruned_model(self.model, self.graph, self.book, config)
            if costs is None:
                with clock.time("cost_s"):
                    costs = self.costs.of_built(pruned.model, pruned.plan, config.precision)
        values: dict[str, float] = dict(costs.values)
        violations = self._violations(values, dense)
        shared: dict[str, Any] = {
            "number": number,
            "state": "complete",
            "origin": origin,
            "config": config,
            "layers": dict(costs.layers),
            "uncounted_ops": dict(costs.uncounted_ops),
            "devices": costs.device_values(self._dense_costs),
        }
        if violations or pruned is None:
            refused = TrialRecord(**shared, values=values, violations=violations, timings=Timings(**clock.parts))
            return Scored(refused, costs, None)
        if rung is not None and rung < len(self.rungs):
            reached = self.rungs.reach(rung, pruned, config)
            clock.parts |= reached.seconds
            record = TrialRecord(
                **(shared | {"state": "pruned"}),
                values=values,
                recovery=reached.recovery,
                rungs=(reached.record,),
                timings=Timings(**clock.parts),
            )
            return Scored(record, costs, None)
        recovered = recover_pruned(pruned, config, self.data)
        clock.parts |= recovered.seconds
        with clock.time("recover_s"):
            ready = shipped(pruned.model, config.precision, self.data)
        with clock.time("evaluate_s"):
            value = score(self.task.evaluate, ready.network, "evaluate")
        assert dense.score is not None
        drop = dense.score - value if self.task.higher_is_better else value - dense.score
        record = TrialRecord(
            **shared,
            values=values | {"accuracy_drop": drop},
            score=value,
            recovery=", ".join(filter(None, (recovered.text, ready.text))),
            timings=Timings(**clock.parts),
        )
        measured = self.profile.meters or self.spec.latency.command
        if config.precision == "int8" and measured and not runs_int8(self.spec.latency):
            return Scored(
                self.record(Scored(record, costs, None), self._modelled_ratio(costs, dense), dense), costs, None
            )
        return Scored(record, costs, ready.network)

    def check_unit(self, dense_ms: float) -> None:
        """Check that a command does not print seconds: no device is far quicker than its peak.

        Args:
            dense_ms: What it says of the dense network.

        Raises:
            MeterError: The dense network took less than a tenth of its multiply-adds at the device's highest rate.
        """
        fastest = max(peak.high for peak in self.profile.compute.peak_macs_per_s.values())
        macs = self._dense_costs.macs
        least_ms = 1e3 * macs / fastest
        if self.spec.latency.runtime == "command" and dense_ms < _QUICKEST * least_ms:
            raise MeterError(
                f"the command says that the dense network takes {dense_ms:.3g} ms, and {self.profile.name} "
                f"needs {least_ms:.3g} ms for its {macs:,.0f} multiply-adds at its peak; let the command print "
                "milliseconds, not seconds, or name the right device"
            )

    def modelled(self, costs: Costs) -> LatencyRecord:
        """Return the latency of a network by the device's model."""
        return costs.prediction.to_record(self._dense_costs.prediction)

    def _modelled_ratio(self, costs: Costs, dense: TrialRecord) -> LatencyRecord:
        """Return the modelled ratio to dense, times the latency of the dense model as it was measured."""
        modelled = self.modelled(costs)
        assert dense.latency is not None
        ms = modelled.ratio * dense.latency.ms
        meter = (
            f"{modelled.meter} against float32, times the measured latency of the dense model: runtime "
            f"{self.spec.latency.runtime} does not run int8"
        )
        times = dict.fromkeys(("ms", "candidate_ms", "candidate_p90_ms"), ms)
        return modelled.model_copy(update={**times, "dense_ms": dense.latency.ms, "meter": meter})

    def record(
        self,
        scored: Scored,
        latency: LatencyRecord,
        dense: TrialRecord | None,
        seconds: float = 0.0,
        elsewhere: Mapping[str, LatencyRecord] | None = None,
    ) -> TrialRecord:
        """Return the whole record of a trial that was measured.

        Args:
            scored: The trial.
            latency: Of its network.
            dense: Record of the dense model; None where this is it.
            seconds: Wall time that the measurement took.
            elsewhere: Further devices of the study to what was measured there.

        Raises:
            MeterError: A command measured the dense model in a time that the device cannot reach.
        """
        known, costs = scored.record, scored.costs
        if dense is None and latency.pairs:
            self.check_unit(latency.dense_ms)
        energy = self._energy(costs, latency, dense).model_copy(update={"measured": latency.energy})
        latency = latency.model_copy(update={"energy": None})
        values = known.values | {"latency_ms": latency.ms, "energy_mj": energy.mj}
        return known.model_copy(
            update={
                "values": values,
                "violations": {} if dense is None else self._violations({**values, SCORE: known.score or 0.0}, dense),
                "latency": latency,
                "energy": energy,
                "timings": known.timings.model_copy(update={"latency_s": seconds}),
                "devices": {
                    **(known.devices or {}),
                    **{name: costs.elsewhere[name].measured(there) for name, there in (elsewhere or {}).items()},
                }
                or None,
            }
        )

    def norm_warning(self, dense_score: float) -> str:
        """Say what recalibrating batch norm costs the dense model; empty where that is next to nothing."""
        samples = self.recovery.batchnorm_samples
        if not samples or self.recovery.batchnorm == "shift":
            return ""
        model = self.book.keep(("recalibrated", samples), lambda: recalibrated(self.model, self.data, samples))
        value = score(self.task.evaluate, model, "evaluate")
        lost = dense_score - value if self.task.higher_is_better else value - dense_score
        if lost <= MOST_NORM_LOSS * abs(dense_score):
            return ""
        return (
            f"recalibrating batch norm on {samples} samples costs the dense model itself {lost:.4g} of its score "
            f"{dense_score:.4g}, and so probably every trial; try 'recovery: {{batchnorm: shift}}', or more samples"
        )

    def test_score(self, config: PruningConfig) -> float | None:
        """Rebuild a trial's network from its config and score it on test data; None where the task has no test."""
        if self.task.test is None:
            return None
        if not config.layers and config.precision == "fp32":
            return score_dense(self.task.test, self.model, "test")
        pruned = pruned_model(self.model, self.graph, self.book, config)
        recover_pruned(pruned, config, self.data)
        return score(self.task.test, shipped(pruned.model, config.precision, self.data).network, "test")

    def latency_again(self, config: PruningConfig, dense_ms: float) -> LatencyRecord | None:
        """Rebuild a trial's network from its config and measure its latency; None where nothing measures.

        Its weights are not recovered: how long a network takes does not depend on them.

        Args:
            config: Of the trial.
            dense_ms: The study's latency of the dense model, which the ratio is times.

        Raises:
            MeterError: The measurement gave no usable number.
        """
        if self.meter is None:
            return None
        pruned = pruned_model(self.model, self.graph, self.book, config)
        network = shipped(pruned.model, config.precision, self.data).network
        return Bench(self.model, self._inputs, self.meter).measure(network, dense_ms)

    def limits(self, dense: TrialRecord) -> tuple[Limit, ...]:
        """Return the constraints in their metrics' units.

        Raises:
            SpecError: A percentage of a dense value that is 0, or a score bounded on its good side.
        """
        return tuple(
            bound.limit(
                float((dense.score if bound.metric in (SCORE, DROP) else dense.values[bound.metric]) or 0.0),
                self.task.higher_is_better,
            )
            for bound in self.spec.bounds
        )

    def _violations(self, values: Mapping[str, float], dense: TrialRecord) -> dict[str, float]:
        return {
            limit.metric: limit.excess(values[limit.metric])
            for limit in self.limits(dense)
            if limit.metric in values and limit.excess(values[limit.metric]) > 0
        }

    def _measured(self, scored: Scored, dense: TrialRecord | None) -> TrialRecord:
        if scored.model is None:
            return scored.record
        started = time.perf_counter()
        if self.meter is None:
            latency = self.modelled(scored.costs)
        else:
            latency = Bench(self.model, self._inputs, self.meter).measure(scored.model, dense_ms(dense))
        return self.record(scored, latency, dense, time.perf_counter() - started)

    def _energy(self, costs: Costs, latency: LatencyRecord, dense: TrialRecord | None) -> EnergyRecord:
        reference = None
        if dense is not None and dense.latency is not None and dense.energy is not None:
            reference = DenseReference(dense.values["macs"], dense.latency.ms * 1e-3, dense.energy.mj * 1e-3)
        return estimate_from(
            self.profile, latency.ms * 1e-3, costs.executed, costs.level_bytes, costs.macs, reference
        ).to_record()


def dense_ms(dense: TrialRecord | None) -> float | None:
    """Return the study's latency of the dense model; None where it is not known yet."""
    return None if dense is None or dense.latency is None else dense.latency.ms
