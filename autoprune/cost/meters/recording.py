"""Meters that record what another measures, and that replay it: studies run again without their device."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.utils._pytree import tree_map

from autoprune.cost.host import machine_title
from autoprune.cost.meters.pairing import summary
from autoprune.cost.meters.protocol import Meter, ModelInputs
from autoprune.cost.meters.recorded import RecordedMeter
from autoprune.cost.meters.result import MIN_PAIRS, PairedLatency, SingleLatency, ratio_interval
from autoprune.errors import MeterError, UsageError
from autoprune.graph.trace import describe, fingerprint
from autoprune.spec.latency import LatencySpec
from autoprune.spec.recording import (
    CONDITIONS,
    RecordedLatency,
    RecordingHeader,
    append_recording,
    check_appendable,
    differing_keys,
    read_recording,
)


class RecordingMeter:
    """A meter that adds each measurement of another to a file.

    Args:
        meter: What measures.
        spec: Its ``latency`` section; ``record`` names the file, which is added to where it exists.

    Raises:
        UsageError: The file is something else, or its measurements were made under other conditions.
    """

    def __init__(self, meter: Meter, spec: LatencySpec) -> None:
        assert spec.record is not None
        self.meter = meter
        self._path = Path(spec.record)
        self._header = RecordingHeader(
            latency=spec.model_copy(update={"record": None}),
            machine=machine_title(),
            versions={name: version(name) for name in ("autoprune", "torch")},
        )
        check_appendable(self._path, self._header)

    def measure_pair(
        self, dense: nn.Module, candidate: nn.Module, inputs: ModelInputs, candidate_inputs: ModelInputs | None = None
    ) -> PairedLatency:
        """Measure and record; see :meth:`autoprune.cost.meters.Meter.measure_pair`."""
        found = self.meter.measure_pair(dense, candidate, inputs, candidate_inputs)
        self._add(
            RecordedLatency(
                networks=pair_key(dense, candidate, inputs, candidate_inputs),
                dense_s=tuple(pair[0] for pair in found.samples_s),
                candidate_s=tuple(pair[1] for pair in found.samples_s),
                meter=found.meter,
                converged=found.converged,
                reason=found.reason or None,
                conditions=found.conditions,
                warmup_rounds=found.warmup_rounds,
                steady=found.steady,
                prepare_s=found.prepare_s,
                slowed=found.slowed or None,
                speed=found.speed,
                energy=found.energy,
            )
        )
        return found

    def measure(self, model: nn.Module, inputs: ModelInputs, budget_s: float = 0.2) -> SingleLatency:
        """Measure and record; see :meth:`autoprune.cost.meters.Meter.measure`."""
        found = self.meter.measure(model, inputs, budget_s)
        self._add(
            RecordedLatency(
                networks=network_key(model, inputs),
                candidate_s=found.samples_s,
                meter=found.meter,
                converged=found.converged,
                warmup_rounds=found.warmup_rounds,
                prepare_s=found.prepare_s,
            )
        )
        return found

    def _add(self, measurement: RecordedLatency) -> None:
        append_recording(self._path, self._header, measurement)


class ReplayMeter:
    """A recording made with latency.record, replayed: no device is needed, and the numbers are those of the day.

    What was measured several times is replayed in the order of the recording, the last one again and again.

    Args:
        spec: Its ``recording`` names the file.
        seed: Of the bootstrap.

    Raises:
        UsageError: There is no such recording, or it was made under other conditions than the study asks for.
    """

    runtime: ClassVar[str] = "recorded"
    any_device: ClassVar[bool] = True

    def __init__(self, spec: LatencySpec, seed: int = 0) -> None:
        if spec.recording is None:
            raise UsageError("runtime recorded needs latency.recording; give the path of a recording")
        self.spec, self._seed = spec, seed
        self._path = Path(spec.recording)
        recording = read_recording(self._path)
        if differing := differing_keys(recording.header.latency, spec, CONDITIONS):
            key = differing[0]
            raise UsageError(
                f"{self._path} was recorded with {key} {getattr(recording.header.latency, key)!r} and the study asks "
                f"for {getattr(spec, key)!r}; set latency.{key} as it was recorded"
            )
        self._recorded = recording.header.latency
        self._entries: dict[tuple[str, bool], list[RecordedLatency]] = {}
        for entry in recording.measurements:
            self._entries.setdefault((entry.networks, entry.dense_s is not None), []).append(entry)
        self._played: Counter[tuple[str, bool]] = Counter()

    def measure_pair(
        self, dense: nn.Module, candidate: nn.Module, inputs: ModelInputs, candidate_inputs: ModelInputs | None = None
    ) -> PairedLatency:
        """Replay the next measurement of this pair of networks.

        Raises:
            MeterError: The recording has none.
        """
        entry = self._next(pair_key(dense, candidate, inputs, candidate_inputs), pair=True)
        assert entry.dense_s is not None
        pairs = tuple(zip(entry.dense_s, entry.candidate_s, strict=True))
        interval = ratio_interval(pairs, self._seed)
        return replace(
            summary(pairs, interval, self._reason(entry, interval), _replayed(entry.meter)),
            slowed=entry.slowed,
            speed=entry.speed,
            conditions=entry.conditions,
            warmup_rounds=entry.warmup_rounds,
            steady=entry.steady,
            prepare_s=entry.prepare_s,
            energy=entry.energy,
        )

    def _reason(self, entry: RecordedLatency, interval: tuple[float, float, float]) -> str:
        """Return why a measurement is not as precise as this study asks; empty where it is."""
        ratio, low, high = interval
        half, pairs = (high - low) / 2 / ratio, len(entry.candidate_s)
        if self.spec.half_width == self._recorded.half_width or entry.speed is not None:
            return "" if entry.converged else entry.reason or "the recording says no more than that; record anew"
        if pairs >= MIN_PAIRS and half <= self.spec.half_width:
            return ""
        return f"the recording ended after {pairs} pairs at ±{half:.1%}; record more"

    def measure(self, model: nn.Module, inputs: ModelInputs, budget_s: float = 0.2) -> SingleLatency:
        """Replay the next measurement of this network alone.

        Raises:
            MeterError: The recording has none.
        """
        entry = self._next(network_key(model, inputs), pair=False)
        samples = tuple((seconds, seconds) for seconds in entry.candidate_s)
        found = RecordedMeter(samples, self.spec, self._seed).measure(model, inputs, budget_s)
        return replace(
            found,
            meter=_replayed(entry.meter),
            warmup_rounds=entry.warmup_rounds or 0,
            prepare_s=entry.prepare_s or 0.0,
        )

    def _next(self, networks: str, pair: bool) -> RecordedLatency:
        found = self._entries.get((networks, pair))
        if not found:
            raise MeterError(
                f"{self._path} holds no measurement of this network{' beside this reference' if pair else ''}; measure "
                "it where the device is, with latency.record, or try only what was recorded"
            )
        place = self._played[networks, pair]
        self._played[networks, pair] += 1
        return found[min(place, len(found) - 1)]


def network_key(model: nn.Module, inputs: ModelInputs) -> str:
    """Return what two networks share that take the same time: architecture, non-zero weights, types, input shapes."""
    weights = [
        [name, str(tensor.dtype), int(tensor.count_nonzero())]
        for name, tensor in model.named_parameters()
        if isinstance(tensor, Tensor)
    ]
    shapes: Any = tree_map(describe, (inputs.args, dict(inputs.kwargs)))
    return _digest({"architecture": fingerprint(model), "weights": weights, "inputs": repr(shapes)})


def pair_key(dense: nn.Module, candidate: nn.Module, inputs: ModelInputs, candidate_inputs: ModelInputs | None) -> str:
    """Return the key of a pair: its order counts."""
    return _digest(
        {"dense": network_key(dense, inputs), "candidate": network_key(candidate, candidate_inputs or inputs)}
    )


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]


def _replayed(meter: str) -> str:
    return meter if meter.endswith(", replayed") else f"{meter}, replayed"
