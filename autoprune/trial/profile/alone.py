"""Modules taken out of a network and measured alone, on the inputs that they have inside it.

No hook is on while the clock runs, so a module alone costs what it costs in the network, but for what the caches still
hold. Network and module run interleaved, and what is kept is the module's share of the network's time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from autoprune.cost.meters import RUNTIMES, ModelInputs, PairedLatency
from autoprune.cost.workload import Workload
from autoprune.spec.study import LatencySpec


def modules_alone(workload: Workload) -> tuple[str, ...]:
    """Return the modules that can be measured alone, in the order in which they first run.

    A module that runs operators of its own, and none of whose parts does. What a container adds between its parts (a
    residual sum, a functional ReLU) runs nowhere else than in it.
    """
    running = list(dict.fromkeys(op.module for op in workload.ops))
    return tuple(
        name for name in running if name and not any(other.startswith(f"{name}.") for other in running if other != name)
    )


def record_inputs(
    model: nn.Module, inputs: ModelInputs, names: Collection[str]
) -> Mapping[str, tuple[ModelInputs, ...]]:
    """Run the model once in inference mode and return the inputs of each call of each named module, copied."""
    calls: dict[str, list[ModelInputs]] = {name: [] for name in names}

    def keep(name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            copy = lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf  # noqa: E731
            calls[name].append(ModelInputs(tree_map(copy, args), tree_map(copy, dict(kwargs))))

        return hook

    modules = dict(model.named_modules())
    handles = [modules[name].register_forward_pre_hook(keep(name), with_kwargs=True) for name in calls]
    try:
        with torch.inference_mode():
            model(*inputs.args, **inputs.kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return {name: tuple(found) for name, found in calls.items()}


class _Part(nn.Module):
    """Calls a module with one slice of a flat list of tensors; a meter gives both sides of a pair the same inputs."""

    def __init__(self, module: nn.Module, inputs: ModelInputs, start: int) -> None:
        super().__init__()
        self.module = module
        leaves, self._spec = tree_flatten((inputs.args, dict(inputs.kwargs)))
        # What is no tensor stands here already; None marks the place of a tensor.
        self._fixed = [None if isinstance(leaf, Tensor) else (leaf,) for leaf in leaves]
        self._start = start

    def forward(self, *tensors: Tensor) -> Any:
        place = self._start
        leaves: list[Any] = []
        for fixed in self._fixed:
            leaves.append(tensors[place] if fixed is None else fixed[0])
            place += fixed is None
        args, kwargs = tree_unflatten(leaves, self._spec)
        return self.module(*args, **kwargs)


@dataclass(frozen=True)
class AloneMeter:
    """The study's meter, for two modules that take different inputs.

    Attributes:
        spec: The study's ``latency`` section.
        budget_s: Most seconds for one measurement.
    """

    spec: LatencySpec
    budget_s: float = field(default=0.5)

    def measure(
        self, first: nn.Module, first_inputs: ModelInputs, second: nn.Module, second_inputs: ModelInputs
    ) -> PairedLatency | None:
        """Measure the second against the first; None where their inputs do not share a first dimension.

        A meter repeats and cuts the first dimension of every input to the batch, which would change a module whose
        first dimension is something else.

        Raises:
            MeterError: The runtime gave no usable number.
        """
        flat = [_tensors(inputs) for inputs in (first_inputs, second_inputs)]
        sizes = {tensor.shape[0] for tensors in flat for tensor in tensors if tensor.dim()}
        if len(sizes) != 1 or not all(flat):
            return None
        budget = min(self.budget_s, self.spec.budget_s)
        meter = RUNTIMES.get(self.spec.runtime)(self.spec.model_copy(update={"batch": sizes.pop(), "budget_s": budget}))
        parts = (_Part(first, first_inputs, 0), _Part(second, second_inputs, len(flat[0])))
        return meter.measure_pair(*parts, ModelInputs((*flat[0], *flat[1])))


def _tensors(inputs: ModelInputs) -> tuple[Tensor, ...]:
    leaves, _ = tree_flatten((inputs.args, dict(inputs.kwargs)))
    return tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))


def signature(module: nn.Module, inputs: tuple[ModelInputs, ...]) -> str | None:
    """Return text that two modules share when they do the same work; None where that cannot be told from outside.

    Torch's own modules are told by how they print themselves, their parameters' shapes and their inputs.
    """
    if not type(module).__module__.startswith("torch.nn."):
        return None
    shapes = [(name, tuple(p.shape), str(p.dtype)) for name, p in module.named_parameters()]
    given = [
        [(tuple(t.shape), t.stride(), str(t.dtype)) if isinstance(t, Tensor) else repr(t) for t in leaves]
        for leaves in (tree_flatten((call.args, dict(call.kwargs)))[0] for call in inputs)
    ]
    return repr((repr(module), shapes, given))
