"""The bench: the dense network beside a meter, on the machine where latency is measured."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from autoprune.cost.meters import Meter, ModelInputs
from autoprune.spec.record import LatencyRecord, TrialRecord


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

    def measure(self, model: nn.Module, dense: TrialRecord | None) -> LatencyRecord:
        """Measure a network against the dense one.

        Args:
            model: The network.
            dense: Record of the dense model, whose latency the ratio is times; None where this measures it.

        Raises:
            MeterError: The measurement gave no usable number.
        """
        paired = self.meter.measure_pair(self.dense, model, self.inputs)
        return paired.to_record(
            dense.latency.ms if dense is not None and dense.latency is not None else paired.dense_ms
        )
