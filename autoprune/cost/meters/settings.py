"""What is set around a measurement and put back after it: evaluation mode, threads, cores, the garbage collector."""

from __future__ import annotations

import copy
import gc
import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from autoprune.cost.meters.protocol import ModelInputs
from autoprune.errors import UsageError
from autoprune.graph.trace import evaluation_mode
from autoprune.spec.study import LatencySpec

_TASKS = Path("/proc/self/task")


@contextmanager
def measuring_conditions(spec: LatencySpec, *models: nn.Module) -> Iterator[None]:
    """Put models into evaluation mode and set threads and cores as the study asks; all of it is put back."""
    threads = torch.get_num_threads()
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(evaluation_mode(model))
        stack.enter_context(pinned_to(spec.affinity))
        try:
            torch.set_num_threads(spec.threads)
            yield
        finally:
            torch.set_num_threads(threads)


@contextmanager
def sampling() -> Iterator[None]:
    """Keep the garbage collector and autograd out of the samples."""
    collecting = gc.isenabled()
    try:
        gc.disable()  # no collection first: disabled, none can fall into a sample
        with torch.inference_mode():
            yield
    finally:
        if collecting:
            gc.enable()


def check_affinity(affinity: tuple[int, ...] | None) -> None:
    """Check that a process here may run on these cores.

    Raises:
        UsageError: The system cannot pin a process, or a core is not one of this process's.
    """
    if affinity is None:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise UsageError(f"latency.affinity cannot be set on {platform.system()}; leave it out")
    allowed = os.sched_getaffinity(0)
    if strange := sorted(set(affinity) - allowed):
        raise UsageError(
            f"latency.affinity names core {strange[0]} where this process may use {_listed(allowed)}; "
            "name some of those"
        )


@contextmanager
def pinned_to(affinity: tuple[int, ...] | None) -> Iterator[None]:
    """Pin every thread of this process to ``affinity``; threads started meanwhile inherit it. All are released after.

    Linux pins threads, not processes: the workers of a thread pool that exists already have to be moved one by one.

    Raises:
        UsageError: As for :func:`check_affinity`.
    """
    if affinity is None:
        yield
        return
    check_affinity(affinity)
    before = {thread: cores for thread in _threads() if (cores := _cores_of(thread))}
    ours = os.sched_getaffinity(0)
    try:
        for thread in before:
            _pin(thread, set(affinity))
        yield
    finally:
        for thread in _threads():
            _pin(thread, before.get(thread, ours))


def cast_model(model: nn.Module, inputs: ModelInputs, dtype: str | None) -> tuple[nn.Module, ModelInputs]:
    """Return a copy of the model, and inputs, in another floating type; both as they are where none is asked for."""
    if dtype is None:
        return model, inputs
    wanted = getattr(torch, dtype)

    def cast(leaf: Any) -> Any:
        return leaf.to(wanted) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf

    cast_inputs = ModelInputs(tree_map(cast, inputs.args), tree_map(cast, dict(inputs.kwargs)))
    return copy.deepcopy(model).to(wanted), cast_inputs


def on_device(model: nn.Module, inputs: ModelInputs, device: torch.device) -> tuple[nn.Module, ModelInputs]:
    """Return a copy of the model, and inputs, on a device; both as they are where everything is there already."""

    def moved(leaf: Any) -> Any:
        return leaf.to(device) if isinstance(leaf, Tensor) else leaf

    held = (*model.parameters(), *model.buffers())
    model = model if all(t.device == device for t in held) else copy.deepcopy(model).to(device)
    return model, ModelInputs(tree_map(moved, inputs.args), tree_map(moved, dict(inputs.kwargs)))


def dtype_of(model: nn.Module, inputs: ModelInputs) -> str:
    """Return the floating type that the model computes in: that of its first such tensor; "integer" without one."""
    tensors = [t for t in (*model.parameters(), *tree_leaves((inputs.args, inputs.kwargs))) if isinstance(t, Tensor)]
    return next((str(t.dtype).removeprefix("torch.") for t in tensors if t.is_floating_point()), "integer")


def _threads() -> list[int]:
    return [int(entry.name) for entry in _TASKS.iterdir()] if _TASKS.is_dir() else [0]


def _cores_of(thread: int) -> set[int] | None:
    with suppress(OSError):  # it has ended meanwhile
        return os.sched_getaffinity(thread)
    return None


def _pin(thread: int, cores: set[int]) -> None:
    with suppress(OSError):
        os.sched_setaffinity(thread, cores)


def _listed(cores: set[int]) -> str:
    return ", ".join(map(str, sorted(cores)))
