"""The bench: the dense network beside a meter, on the machine where latency is measured."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from autoprune.cost.meters import Meter, ModelInputs
from autoprune.spec.record import LatencyRecord


@dataclass(frozen=True)
class Bench:
    """What measures networks of one study.

    Attributes:
        dense: The dense network, the reference of every pair.
        inputs: How networks are called.
        meter: What measures.
    """

    dense: nn.Module
    inputs: ModelInputs
    meter: Meter

    def measure(self, model: nn.Module, dense_ms: float | None) -> LatencyRecord:
        """Measure a network against the dense one.

        Args:
            model: The network.
            dense_ms: The study's latency of the dense model here, which the ratio is times; None where this measures
                it.

        Raises:
            MeterError: The measurement gave no usable number.
        """
        paired = self.meter.measure_pair(self.dense, model, self.inputs)
        return paired.to_record(paired.dense_ms if dense_ms is None else dense_ms)
