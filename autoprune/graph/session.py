"""An ONNX file run by ONNX Runtime on the CPU, and how far its outputs are from those wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autoprune.graph.export import onnx_feed

Runner = Callable[[tuple[Any, ...], Mapping[str, Any]], list[Tensor]]


def run_onnx(data: bytes, threads: int = 1) -> tuple[Runner, str]:
    """Return what runs an ONNX file on the CPU, and its name.

    Args:
        data: The file.
        threads: Of one operator.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors; what it says of its own optimisations is no news
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]

    def run(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
        return [torch.from_numpy(np.asarray(value)) for value in session.run(None, onnx_feed(names, args, kwargs))]

    return run, f"ONNX Runtime {onnxruntime.__version__}"


def relative_difference(found: Tensor, wanted: Tensor) -> float:
    """Return the largest absolute difference over the largest absolute value wanted; inf where one is not finite."""
    gap = float((found.double() - wanted.double()).abs().max())
    return gap / (float(wanted.double().abs().max()) or 1.0) if gap == gap else float("inf")
