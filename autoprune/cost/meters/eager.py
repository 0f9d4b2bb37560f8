"""Eager torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from autoprune.cost.meters.interleaved import InterleavedMeter, Prepared
from autoprune.cost.meters.protocol import ModelInputs


class TorchMeter(InterleavedMeter):
    """Eager torch, in evaluation and inference mode, on the device where the models are."""

    runtime = "torch"

    def prepare(self, model: nn.Module, inputs: ModelInputs) -> Prepared:
        """Return the model as it is."""
        where = device_of(model, inputs)
        on = f", {where}" if where.type != "cpu" else ""
        return Prepared(timed(model, inputs, where), f"torch {torch_version()} eager{on}")


def timed(call: Callable[..., Any], inputs: ModelInputs, device: torch.device) -> Callable[[int], float]:
    """Return what runs ``call`` so many times in a row on the host's clock, synchronised with ``device``."""
    args, kwargs = inputs.args, dict(inputs.kwargs)
    synchronise = torch.cuda.synchronize if device.type == "cuda" else _nothing

    def run(repeats: int) -> float:
        synchronise()
        begin = time.perf_counter_ns()
        for _ in range(repeats):
            call(*args, **kwargs)
        synchronise()
        return (time.perf_counter_ns() - begin) / repeats * 1e-9

    return run


def _nothing() -> None:
    """Stand in for synchronisation: the CPU returns when it is done."""


def device_of(model: nn.Module, inputs: ModelInputs) -> torch.device:
    """Return the device of the model's first tensor, or of its first input."""
    tensors = (*model.parameters(), *model.buffers(), *tree_leaves((inputs.args, dict(inputs.kwargs))))
    return next((t.device for t in tensors if isinstance(t, torch.Tensor)), torch.device("cpu"))


def torch_version() -> str:
    """Return the version without the build ("2.13.0")."""
    return torch.__version__.partition("+")[0]
