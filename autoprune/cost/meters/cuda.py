"""NVIDIA GPUs: CUDA events around graph replays, or around plain launches where a model cannot be captured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from autoprune.cost.meters.eager import torch_version
from autoprune.cost.meters.interleaved import InterleavedMeter, OtherWayError, Prepared
from autoprune.cost.meters.parity import check_parity, torch_outputs
from autoprune.cost.meters.protocol import ModelInputs
from autoprune.cost.meters.settings import dtype_of, on_device
from autoprune.errors import MeterError, UsageError, one_line
from autoprune.graph.trace import output_tensors
from autoprune.spec.study import LatencySpec

_NO_ROOM = "the GPU has no room for both networks of a pair; set a smaller latency.batch"
_WARM = 3  # before a capture: libraries choose their kernels and workspaces, which cannot happen inside one


class CudaMeter(InterleavedMeter):
    """Torch on an NVIDIA GPU, timed by CUDA events; whole networks as CUDA graphs where they can be captured."""

    runtime = "cuda"
    ways = ("CUDA graph", "launched operator by operator")

    def __init__(self, spec: LatencySpec, seed: int = 0) -> None:
        if spec.affinity is not None:
            raise UsageError("latency.affinity names CPU cores, and runtime cuda measures on the GPU; leave it out")
        super().__init__(spec, seed)

    @classmethod
    def missing(cls) -> str:
        """Return that no GPU is there."""
        if torch.cuda.is_available():
            return ""
        build = "built without CUDA" if torch.version.cuda is None else f"built for CUDA {torch.version.cuda}"
        return (
            f"runtime 'cuda' needs an NVIDIA GPU and torch {torch_version()}, {build}, sees none; run this where the "
            "GPU is, with a CUDA build of torch (pip install torch), or set another runtime"
        )

    def prepare(self, model: nn.Module, inputs: ModelInputs) -> Prepared:
        """Copy model and inputs to the GPU, capture a graph if this way is still open, and compare its outputs."""
        device = torch.device("cuda", torch.cuda.current_device())
        try:
            model, inputs = on_device(model, inputs, device)
            wanted = torch_outputs(model, inputs)
        except torch.cuda.OutOfMemoryError as error:
            raise MeterError(_NO_ROOM) from error
        except Exception as error:  # a model raises what it likes
            raise MeterError(
                f"the model does not run on the GPU ({one_line(error)}); a tensor that is neither a parameter nor a "
                "buffer stays on the CPU"
            ) from error
        args, kwargs = inputs.args, dict(inputs.kwargs)
        once: Callable[[], Any]
        if self.way == self.ways[0]:
            once, found = _captured(model, args, kwargs)
            check_parity(found, wanted, dtype_of(model, inputs), "the CUDA graph")
        else:

            def once() -> Any:
                return model(*args, **kwargs)

        name = f"torch {torch_version()} on {torch.cuda.get_device_name(device)}, {self.way}, CUDA events"
        return Prepared(_timed(once), name)


def _captured(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Callable[[], Any], list[torch.Tensor]]:
    """Return what replays a model, and what its first replay computes.

    Raises:
        OtherWayError: It cannot be captured: it synchronises, or its launches depend on its data.
    """
    graph, before = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call] # torch's
        side.wait_stream(torch.cuda.current_stream())
        with torch.inference_mode(), torch.cuda.stream(side):
            for _ in range(_WARM):
                model(*args, **kwargs)
        torch.cuda.current_stream().wait_stream(side)
        # Replayed in inference mode too: tensors that a capture makes in it may not be written outside.
        with torch.inference_mode():
            with torch.cuda.graph(graph):
                outputs = model(*args, **kwargs)
            graph.replay()
            torch.cuda.synchronize()
    except Exception as error:
        torch.cuda.set_stream(before)  # a capture that fails leaves its own stream behind
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise MeterError(_NO_ROOM) from error
        raise OtherWayError(f"CUDA cannot capture the model ({one_line(error)})") from error

    # A graph knows addresses alone: weights and inputs that nobody holds go back to the allocator, and at the next
    # capture to the driver.
    def once(held: Any = (model, args, kwargs, outputs)) -> None:
        graph.replay()

    return once, [tensor.clone() for tensor in output_tensors(outputs)]


def _timed(once: Callable[[], Any]) -> Callable[[int], float]:
    def run(repeats: int) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call] # torch's
        torch.cuda.synchronize()
        start.record()
        for _ in range(repeats):
            once()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) * 1e-3 / repeats  # in ms, with a resolution of about half a microsecond

    return run
