"""int8 by static post-training quantisation: the ONNX file that a trial scores and that production ships.

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
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from autoprune.errors import ConfigError, ExportError, UsageError, one_line
from autoprune.graph.export import onnx_bytes, onnx_feed
from autoprune.graph.session import OnnxModule, relative_difference
from autoprune.graph.trace import evaluation_mode, output_tensors
from autoprune.trial.task import Calibration, positional

try:
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process
except ImportError as error:
    raise UsageError(f"int8 needs ONNX Runtime ({error}); pip install 'autoprune[onnx]'") from error

SAMPLES = 512
"""Calibration samples where nobody says otherwise."""

MAX_DIFFERENCE = 0.25
"""Of int8 from float32 outputs, over the largest output: beyond it the file is no version of the network."""

CalibrationMethod = Literal["minmax", "entropy", "percentile"]
METHODS = {
    "minmax": quantization.CalibrationMethod.MinMax,
    "entropy": quantization.CalibrationMethod.Entropy,
    "percentile": quantization.CalibrationMethod.Percentile,
}


@dataclass(frozen=True)
class Int8Network:
    """An int8 ONNX file beside the float32 one that it was made of.

    Attributes:
        module: Runs the int8 file, for any batch size, and stands for the network wherever one is scored.
        float_module: Runs the float32 file.
        samples: Samples that the ranges of activations were found on.
        difference: Largest absolute difference of int8 from torch's outputs on the example inputs, over their largest
            absolute value.
    """

    module: OnnxModule
    float_module: OnnxModule
    samples: int
    difference: float


def quantized(
    model: nn.Module,
    data: Calibration,
    calibration: CalibrationMethod = "minmax",
    samples: int = SAMPLES,
    threads: int = 1,
    most_difference: float | None = None,
) -> Int8Network:
    """Quantise a network and compare it with what it was.

    Args:
        model: Any network; not changed.
        data: Its example inputs, and the batches that ranges of activations are found on.
        calibration: How they are found: extremes, least entropy lost, or the 99.999th percentile.
        samples: Samples of the batches that are used.
        threads: Of one operator, where the files are run.
        most_difference: Of int8 from float32 outputs, over the largest output; None: :data:`MAX_DIFFERENCE`.

    Raises:
        ConfigError: There is no calibration data.
        TraceError: The model cannot be exported.
        ExportError: ONNX Runtime cannot quantise or run it, or the int8 file computes something else.
    """
    model = copy.deepcopy(model).cpu()
    args = positional(data.example_inputs)
    kwargs: Mapping[str, Any] = data.example_inputs if isinstance(data.example_inputs, Mapping) else {}
    args, kwargs = tree_map(_on_cpu, args), tree_map(_on_cpu, dict(kwargs))
    whole = onnx_bytes(model, args, kwargs, dynamic_batch=True)
    reader = _Reader(whole, data, samples)
    try:
        made = _quantized(whole, reader, calibration)
        with evaluation_mode(model), torch.no_grad():
            output = model(*args, **kwargs)
        module, float_module = (OnnxModule(file, output, threads) for file in (made, whole))
        difference = max(map(relative_difference, output_tensors(module(*args, **kwargs)), output_tensors(output)))
    except ConfigError:
        raise
    except Exception as error:
        raise ExportError(
            f"ONNX Runtime cannot quantise the model ({one_line(error)}); export it in float32"
        ) from error
    limit = MAX_DIFFERENCE if most_difference is None else most_difference
    if not difference <= limit:
        raise ExportError(
            f"the int8 outputs differ by {difference:.0%} of the largest one, and {limit:.0%} is the limit; "
            "calibrate on more samples or with another method, or export in float32"
        )
    return Int8Network(module, float_module, reader.seen, difference)


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
                calibrate_method=METHODS[calibration],
            )
            return made.read_bytes()
    finally:
        root.setLevel(level)


def _on_cpu(leaf: Any) -> Any:
    return leaf.cpu() if isinstance(leaf, Tensor) else leaf
