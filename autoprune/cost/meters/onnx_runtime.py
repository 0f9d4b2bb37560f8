"""ONNX Runtime on the CPU."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune.cost.meters.interleaved import InterleavedMeter, OtherWayError, Prepared
from autoprune.cost.meters.parity import check_parity, torch_outputs
from autoprune.cost.meters.protocol import ModelInputs
from autoprune.cost.meters.settings import dtype_of, on_device
from autoprune.errors import AutopruneError, MeterError, UsageError, one_line
from autoprune.graph.export import need_onnx, onnx_bytes, onnx_feed, traced_onnx_bytes
from autoprune.graph.session import OnnxModule, onnx_session
from autoprune.spec.study import LatencySpec

_CPU = torch.device("cpu")


class OnnxRuntimeMeter(InterleavedMeter):
    """ONNX Runtime on the CPU, of a file that is exported and compared with torch before it is timed."""

    runtime = "onnxruntime"
    ways = ("traced", "torch.export")

    def __init__(self, spec: LatencySpec, seed: int = 0) -> None:
        if spec.dtype == "bfloat16":
            raise UsageError(
                "latency.dtype is bfloat16, which ONNX Runtime does not compute in on a CPU; set float32 or float16, "
                "or runtime: torch"
            )
        super().__init__(spec, seed)

    @classmethod
    def missing(cls) -> str:
        """Return the packages that are missing, and the command that brings them."""
        try:
            need_onnx()
        except UsageError as error:
            return f"runtime 'onnxruntime': {error}"
        return ""

    def prepare(self, model: nn.Module, inputs: ModelInputs) -> Prepared:
        """Export, open a session with the study's threads, and compare its outputs with torch's."""
        import onnxruntime

        model, inputs = on_device(model, inputs, _CPU)
        export = traced_onnx_bytes if self.way == "traced" else onnx_bytes
        name = f"ONNX Runtime {onnxruntime.__version__}"
        try:
            # A module that runs a file stands for a network that was changed after its export: int8.
            data = model.data if isinstance(model, OnnxModule) else export(model, inputs.args, inputs.kwargs)
            session = onnx_session(data, self.spec.threads)
            feed = onnx_feed([item.name for item in session.get_inputs()], inputs.args, inputs.kwargs)
            found = [torch.from_numpy(np.asarray(value)) for value in session.run(None, feed)]
            check_parity(found, torch_outputs(model, inputs), dtype_of(model, inputs), name)
        except Exception as error:
            why = (
                str(error) if isinstance(error, AutopruneError) else f"{name} cannot run the model ({one_line(error)})"
            )
            last = self.way == self.ways[-1]
            raise (MeterError if last else OtherWayError)(why) from error
        return Prepared(_timed(session, feed), name)


def _timed(session: Any, feed: dict[str, Any]) -> Any:
    run_once = session.run

    def run(repeats: int) -> float:
        begin = time.perf_counter_ns()
        for _ in range(repeats):
            run_once(None, feed)
        return (time.perf_counter_ns() - begin) / repeats * 1e-9

    return run
