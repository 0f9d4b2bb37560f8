"""Meters: what measures latency, one runtime a file. Dense and candidate run interleaved, and the ratio is trusted."""

from __future__ import annotations

from autoprune.cost.meters.command import CommandMeter
from autoprune.cost.meters.compiled import CompiledMeter
from autoprune.cost.meters.cuda import CudaMeter
from autoprune.cost.meters.eager import TorchMeter
from autoprune.cost.meters.onnx_runtime import OnnxRuntimeMeter
from autoprune.cost.meters.protocol import RUNTIMES, Meter, MeterFactory, ModelInputs, rebatch
from autoprune.cost.meters.recorded import RecordedMeter
from autoprune.cost.meters.recording import RecordingMeter, ReplayMeter
from autoprune.cost.meters.result import PairedLatency, SingleLatency

__all__ = [
    "RUNTIMES",
    "CommandMeter",
    "CompiledMeter",
    "CudaMeter",
    "Meter",
    "MeterFactory",
    "ModelInputs",
    "OnnxRuntimeMeter",
    "PairedLatency",
    "RecordedMeter",
    "RecordingMeter",
    "ReplayMeter",
    "SingleLatency",
    "TorchMeter",
    "rebatch",
]

RUNTIMES.add("torch", TorchMeter)
RUNTIMES.add("torch_compile", CompiledMeter)
RUNTIMES.add("onnxruntime", OnnxRuntimeMeter)
RUNTIMES.add("cuda", CudaMeter)
RUNTIMES.add("command", CommandMeter)
RUNTIMES.add("recorded", ReplayMeter)
