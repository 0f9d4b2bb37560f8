"""int8 after pruning: static post-training quantisation by ONNX Runtime, with what it costs and gains in one record.

Weights have one scale per output channel, activations one per tensor, taken from calibration batches. Weights take
seven of the eight bits: x86 kernels without VNNI add two products in sixteen bits, which saturate (on a small network
outputs were off by half of the largest one; with seven bits by 1 %). The file holds quantise and dequantise nodes that
the runtime fuses into int8 kernels. Why ONNX Runtime and not torchao: ``reports/int8``.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
import torch
from numpy.typing import NDArray
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process
from pydantic import Field
from torch import nn

from autoprune.cost.meters.interleaved import sample_repeats
from autoprune.cost.meters.pairing import Side, measure_blocks
from autoprune.cost.meters.warmup import SHARE, warm_up
from autoprune.deploy.export import Runner, relative_difference, run_onnx, write_bytes
from autoprune.errors import ConfigError, ExportError, UsageError, one_line
from autoprune.graph.export import onnx_bytes, onnx_feed
from autoprune.graph.trace import evaluation_mode, output_tensors
from autoprune.spec.config import PruningConfig
from autoprune.spec.document import Document
from autoprune.spec.record import LatencyRecord
from autoprune.spec.study import LatencySpec
from autoprune.trial.task import Calibration, positional, score

try:
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process
except ImportError as error:
    raise UsageError(f"int8 needs ONNX Runtime ({error}); pip install 'autoprune[onnx]'") from error

MAX_DIFFERENCE = 0.25
"""Of int8 from float32 outputs, over the largest output: beyond it the file is no version of the network."""

CalibrationMethod = Literal["minmax", "entropy", "percentile"]
_METHODS = {
    "minmax": quantization.CalibrationMethod.MinMax,
    "entropy": quantization.CalibrationMethod.Entropy,
    "percentile": quantization.CalibrationMethod.Percentile,
}


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
    samples: int = 512,
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
    if calibration not in _METHODS:
        raise UsageError(f"calibration is {calibration!r}; give one of {', '.join(_METHODS)}")
    model = copy.deepcopy(model).cpu()
    args = positional(example_inputs)
    kwargs: Mapping[str, Any] = example_inputs if isinstance(example_inputs, Mapping) else {}
    data = onnx_bytes(model, args, kwargs, dynamic_batch=True)
    reader = _Reader(data, Calibration(example_inputs, batches), samples)
    try:
        made = _quantized(data, reader, calibration)
        runs = {"dense": run_onnx(data, spec.threads), "candidate": run_onnx(made, spec.threads)}
        with evaluation_mode(model), torch.no_grad():
            wanted = output_tensors(model(*args, **kwargs))
        found = runs["candidate"][0](args, kwargs)
        difference = max(map(relative_difference, found, wanted))
    except ConfigError:
        raise
    except Exception as error:
        raise ExportError(
            f"ONNX Runtime cannot quantise the model ({one_line(error)}); export it in float32"
        ) from error
    if not difference <= MAX_DIFFERENCE:
        raise ExportError(
            f"the int8 outputs differ by {difference:.0%} of the largest one, and {MAX_DIFFERENCE:.0%} is the limit; "
            "calibrate on more samples or with another method, or export in float32"
        )
    scores = {
        side: score(evaluate, OnnxModule(run), "evaluate") if evaluate is not None else None
        for side, (run, _) in runs.items()
    }
    runtime = runs["candidate"][1]
    record = QuantizedRecord(
        config=config,
        calibration=calibration,
        samples=reader.seen,
        difference=difference,
        score=scores["candidate"],
        float_score=scores["dense"],
        size_bytes=len(made),
        float_size_bytes=len(data),
        latency=_latency({side: run for side, (run, _) in runs.items()}, args, kwargs, spec, runtime),  # type: ignore[misc]
        runtime=runtime,
    )
    write_bytes(path, _with_metadata(made, record))
    return record


class OnnxModule(nn.Module):
    """A module that runs an ONNX file, so that whatever scores a network scores the file."""

    def __init__(self, run: Runner) -> None:
        super().__init__()
        self._run = run

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the output tensor, or a tuple of them."""
        outputs = self._run(args, kwargs)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


@dataclass
class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Gives calibration batches to ONNX Runtime: each walk anew, up to so many samples."""

    model: bytes
    data: Calibration
    samples: int
    seen: int = 0

    def __post_init__(self) -> None:
        self._names = [item.name for item in onnx.load_from_string(self.model).graph.input]
        self._feeds = self._walk()

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._feeds, None)

    def _walk(self) -> Iterator[dict[str, NDArray[Any]]]:
        for batch in self.data.walk():
            if self.seen >= self.samples:
                return
            args = () if isinstance(batch, Mapping) else positional(batch)[: self.data.inputs]
            feed = onnx_feed(self._names, args, batch if isinstance(batch, Mapping) else {})
            feed = {name: value[: self.samples - self.seen] for name, value in feed.items()}
            self.seen += len(next(iter(feed.values())))
            yield feed
        if not self.seen:
            raise ConfigError("int8 needs calibration data, and batches gave none; give at least one batch")


def _quantized(data: bytes, reader: _Reader, calibration: CalibrationMethod) -> bytes:
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # ONNX Runtime's tools talk to the root logger
    try:
        with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings(), contextlib.redirect_stdout(None):
            warnings.simplefilter("ignore")
            given, ready, made = (Path(directory) / name for name in ("given.onnx", "ready.onnx", "made.onnx"))
            given.write_bytes(data)
            quant_pre_process(str(given), str(ready), skip_symbolic_shape=True)
            quantization.quantize_static(
                str(ready),
                str(made),
                reader,
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=_METHODS[calibration],
            )
            return made.read_bytes()
    finally:
        root.setLevel(level)


def _latency(
    runs: Mapping[Side, Runner], args: tuple[Any, ...], kwargs: Mapping[str, Any], spec: LatencySpec, runtime: str
) -> LatencyRecord:
    begun = time.perf_counter()

    def elapsed() -> float:
        return time.perf_counter() - begun

    def sample(side: Side, repeats: int) -> float:
        start = time.perf_counter_ns()
        for _ in range(repeats):
            runs[side](args, kwargs)
        return (time.perf_counter_ns() - start) / repeats * 1e-9

    sides: tuple[Side, Side] = ("dense", "candidate")
    warm = warm_up(lambda: tuple(sample(side, 1) for side in sides), elapsed, SHARE * spec.budget_s)
    repeats = dict(zip(sides, map(sample_repeats, warm.seconds), strict=True))
    threads = f"{spec.threads} thread{'s' * (spec.threads != 1)}"
    meter = f"measured: {runtime} on the CPU, {threads}, int8 against float32, A B B A"
    paired = measure_blocks(lambda side: sample(side, repeats[side]), elapsed, spec, meter)
    return paired.to_record(paired.dense_ms)


def _with_metadata(data: bytes, record: QuantizedRecord) -> bytes:
    proto = onnx.load_from_string(data)
    entry = proto.metadata_props.add()
    entry.key, entry.value = "autoprune.quantized", record.to_json()
    made: bytes = proto.SerializeToString()
    return made
