"""Meters: what measures latency, one runtime a file. Dense and candidate run interleaved, and the ratio is trusted."""

from __future__ import annotations

from autoprune.cost.meters.eager import TorchMeter
from autoprune.cost.meters.protocol import RUNTIMES, Meter, MeterFactory, ModelInputs, rebatch
from autoprune.cost.meters.recorded import RecordedMeter
from autoprune.cost.meters.result import PairedLatency, SingleLatency

__all__ = [
    "RUNTIMES",
    "Meter",
    "MeterFactory",
    "ModelInputs",
    "PairedLatency",
    "RecordedMeter",
    "SingleLatency",
    "TorchMeter",
    "rebatch",
]

RUNTIMES.add("torch", TorchMeter)
