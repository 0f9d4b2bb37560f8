"""A network as it is shipped, which is what a trial scores: itself, or the int8 file that is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from autoprune.errors import TaskError
from autoprune.graph.export import need_onnx
from autoprune.spec.config import Precision
from autoprune.trial.task import Calibration

_FOR_TIME = 8
"""Calibration samples of a file that is only timed."""


@dataclass(frozen=True)
class Shipped:
    """What is scored and measured.

    Attributes:
        network: The pruned network, or a module that runs its int8 file under ONNX Runtime.
        text: What was done, for the record; empty where nothing was.
    """

    network: nn.Module
    text: str = ""


def shipped(network: nn.Module, precision: Precision, data: Calibration) -> Shipped:
    """Return a pruned and recovered network in the precision that its config asks for.

    Args:
        network: Not changed.
        precision: "fp32" leaves it as it was trained.
        data: Calibrates int8.

    Raises:
        TraceError: The network cannot be exported.
        ExportError: ONNX Runtime cannot quantise it, or the int8 file computes something else.
    """
    if precision == "fp32":
        return Shipped(network)
    from autoprune.trial.int8 import quantized  # onnx and onnxruntime are an extra

    made = quantized(network, data)
    return Shipped(made.module.eval(), f"int8 calibrated on {made.samples} samples")


def timed_as(network: nn.Module, precision: Precision, data: Calibration) -> nn.Module:
    """Return a network that takes the time of the shipped one, whatever it computes: ranges come from few samples.

    Raises:
        TraceError: The network cannot be exported.
        ExportError: ONNX Runtime cannot quantise or run it.
    """
    if precision == "fp32":
        return network
    from autoprune.trial.int8 import quantized

    return quantized(network, data, samples=_FOR_TIME, most_difference=float("inf")).module.eval()


def check_precisions(precisions: Sequence[Precision], data: Calibration) -> None:
    """Check that what a space asks for can be made at all, before any trial.

    Raises:
        UsageError: A package is missing.
        TaskError: There is no calibration data.
    """
    if "int8" in precisions:
        need_onnx()
        if data.batches is None:
            raise TaskError(
                "precision int8 finds the ranges of activations on calibration data, and the task has no batches; give "
                "Task.batches, or take int8 out"
            )
