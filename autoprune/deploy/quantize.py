"""int8 after pruning: the int8 ONNX file, with what it costs and gains beside float32 in one record.

How it is made, and why so: :mod:`autoprune.trial.int8`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import onnx
from pydantic import Field
from torch import nn

from autoprune.cost.meters.pace import Pace
from autoprune.cost.meters.pairing import Side
from autoprune.cost.meters.settings import measuring_conditions, sampling
from autoprune.cost.meters.turns import measure_turns
from autoprune.deploy.export import write_bytes
from autoprune.errors import UsageError
from autoprune.graph.session import OnnxModule
from autoprune.spec.config import PruningConfig
from autoprune.spec.document import Document
from autoprune.spec.record import LatencyRecord
from autoprune.spec.study import LatencySpec
from autoprune.trial.int8 import METHODS, SAMPLES, CalibrationMethod, quantized
from autoprune.trial.task import Calibration, positional, score


class QuantizedRecord(Document):
    """An int8 network beside the float32 network that it was made of, both under ONNX Runtime.

    Attributes:
        config: The pruning config, with where it comes from.
        calibration: How the ranges of activations were found ("minmax").
        samples: Samples that they were found on.
        difference: Largest absolute difference of outputs on the example inputs, over their largest absolute value.
        score: Of the int8 network; None where no ``evaluate`` was given.
        float_score: Of the float32 network.
        size_bytes: Of the int8 file, this record in its metadata left out.
        float_size_bytes: Of the float32 file.
        latency: int8 against float32, in pairs; its ``dense_ms`` is the float32 network's.
        runtime: What ran both.
    """

    schema_: Literal["autoprune/quantized/1"] = Field("autoprune/quantized/1", alias="schema")
    config: PruningConfig | None = None
    calibration: CalibrationMethod
    samples: int
    difference: float
    score: float | None = None
    float_score: float | None = None
    size_bytes: int
    float_size_bytes: int
    latency: LatencyRecord
    runtime: str


def quantize(
    model: nn.Module,
    path: Path | str,
    example_inputs: Any,
    batches: Iterable[Any] | Callable[[], Iterable[Any]],
    *,
    config: PruningConfig | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    calibration: CalibrationMethod = "minmax",
    samples: int = SAMPLES,
    latency: LatencySpec | None = None,
) -> QuantizedRecord:
    """Write a network as an int8 ONNX file for any batch size, and measure it against float32 in the same runtime.

    Args:
        model: What :func:`autoprune.apply` or :func:`autoprune.load_pruned` returned; not changed.
        path: The ``.onnx`` file; it appears whole or not at all. The record is in its metadata too.
        example_inputs: One batch as the model takes it.
        batches: Calibration data, from the training set: inputs, or (inputs, targets).
        config: Kept in the record.
        evaluate: ``evaluate(model) -> float``, called with a module that runs the file.
        calibration: How ranges are found: extremes, least entropy lost, or the 99.999th percentile.
        samples: Samples of ``batches`` that are used.
        latency: Threads, half-width and budget of the measurement; batch is that of the example inputs.

    Raises:
        UsageError: Another suffix, an unknown calibration, or no calibration data.
        TraceError: The model cannot be exported.
        ExportError: ONNX Runtime cannot quantise or run it.
    """
    path, spec = Path(path), latency or LatencySpec()
    if path.suffix != ".onnx":
        raise UsageError(f"{path} ends in {path.suffix or 'nothing'!r}; int8 networks are ONNX files, name it .onnx")
    if calibration not in METHODS:
        raise UsageError(f"calibration is {calibration!r}; give one of {', '.join(METHODS)}")
    made = quantized(model, Calibration(example_inputs, batches), calibration, samples, spec.threads)
    sides: dict[Side, OnnxModule] = {"dense": made.float_module, "candidate": made.module}
    scores = {
        side: score(evaluate, module, "evaluate") if evaluate is not None else None for side, module in sides.items()
    }
    args = positional(example_inputs)
    kwargs: Mapping[str, Any] = example_inputs if isinstance(example_inputs, Mapping) else {}
    record = QuantizedRecord(
        config=config,
        calibration=calibration,
        samples=made.samples,
        difference=made.difference,
        score=scores["candidate"],
        float_score=scores["dense"],
        size_bytes=len(made.module.data),
        float_size_bytes=len(made.float_module.data),
        latency=_latency(sides, args, kwargs, spec, made.module.runtime),
        runtime=made.module.runtime,
    )
    write_bytes(path, _with_metadata(made.module.data, record))
    return record


def _latency(
    modules: Mapping[Side, nn.Module], args: tuple[Any, ...], kwargs: Mapping[str, Any], spec: LatencySpec, runtime: str
) -> LatencyRecord:
    def running(side: Side) -> Callable[[int], float]:
        def run(repeats: int) -> float:
            start = time.perf_counter_ns()
            for _ in range(repeats):
                modules[side](*args, **kwargs)
            return (time.perf_counter_ns() - start) / repeats * 1e-9

        return run

    threads = f"{spec.threads} thread{'s' * (spec.threads != 1)}"
    meter = f"measured: {runtime} on the CPU, {threads}, int8 against float32"
    with measuring_conditions(spec, *modules.values()), sampling():
        paired = measure_turns(running("dense"), running("candidate"), spec, meter, pace=Pace())
    return paired.to_record(paired.dense_ms)


def _with_metadata(data: bytes, record: QuantizedRecord) -> bytes:
    proto = onnx.load_from_string(data)
    entry = proto.metadata_props.add()
    entry.key, entry.value = "autoprune.quantized", record.to_json()
    made: bytes = proto.SerializeToString()
    return made
