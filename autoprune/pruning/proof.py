"""The proof of surgery: the smaller model computes what the dense one computes with the consumers' weights zero.

Run on the user's own model before a search and before an export. A group that fails is pinned, so an operator that the
graph misread costs a chance to prune, never a wrong network.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.errors import TraceError
from autoprune.graph.groups import ModelGraph, find_groups
from autoprune.graph.trace import evaluation_mode, output_tensors
from autoprune.pruning.plan import cuts_of
from autoprune.pruning.surgery import cut

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Largest relative difference of outputs, by the precision that the model runs in."""


@dataclass(frozen=True)
class Proof:
    """What a check of surgery showed.

    Attributes:
        relative_error: Largest absolute difference of outputs over their largest absolute value.
        dtype: Precision of the run.
        refused: Group name to why its channels stay after all.
    """

    relative_error: float
    dtype: torch.dtype
    refused: Mapping[str, str]

    def __str__(self) -> str:
        exact = f"surgery checked on this model: relative error {self.relative_error:.1e} ({str(self.dtype)[6:]})"
        groups = "1 group" if len(self.refused) == 1 else f"{len(self.refused)} groups"
        return f"{exact}; {groups} refused" if self.refused else exact


def proven_groups(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None, seed: int = 0
) -> tuple[ModelGraph, Proof]:
    """Find the coupled channels of a model and check on the model itself that they can go.

    Args:
        model: The dense model; not changed.
        args: Positional example inputs.
        kwargs: Keyword example inputs.
        seed: Chooses the units that are removed for the check (half of each group).

    Returns:
        The graph without refused groups, and the proof for those that remain.

    Raises:
        TraceError: The model cannot run on the example inputs.
    """
    kwargs = kwargs or {}
    graph = find_groups(model, args, kwargs)
    exact = _in_double(model, args, kwargs)
    gone = half_of_each(graph, seed)
    error = surgery_error(exact.model, graph, gone, exact.args, exact.kwargs)
    if error <= TOLERANCE[exact.dtype]:
        return graph, Proof(error, exact.dtype, {})
    refused: dict[str, str] = {}
    worst = 0.0
    for name, units in gone.items():
        alone = surgery_error(exact.model, graph, {name: units}, exact.args, exact.kwargs)
        if alone <= TOLERANCE[exact.dtype]:
            worst = max(worst, alone)
        else:
            assumption = graph.groups[name].assumption or "an operator that depends on the number of channels"
            refused[name] = f"its removal changes the network ({assumption})"
    kept = {name: units for name, units in gone.items() if name not in refused}
    together = surgery_error(exact.model, graph, kept, exact.args, exact.kwargs)
    if together > TOLERANCE[exact.dtype]:
        refused = dict.fromkeys(gone, "channels of several groups cannot go together")
        together = 0.0
    return graph.without(refused), Proof(max(worst, together), exact.dtype, refused)


def surgery_error(
    model: nn.Module,
    graph: ModelGraph,
    gone: Mapping[str, Tensor],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
) -> float:
    """Return the relative difference between the smaller model and the masked dense one; inf where one fails.

    Args:
        model: The dense model, on the precision in which to compare.
        graph: Its graph.
        gone: Group name to the units that go, shape (count,).
        args: Positional inputs.
        kwargs: Keyword inputs.
    """
    kwargs = kwargs or {}
    try:
        small = _run(cut(model, cuts_of(graph, gone)), args, kwargs)
    except (RuntimeError, ValueError, IndexError, AssertionError, TypeError):
        return float("inf")
    large = _run(consumers_zeroed(model, graph, gone), args, kwargs)
    if len(small) != len(large) or any(a.shape != b.shape for a, b in zip(small, large, strict=True)):
        return float("inf")
    worst = 0.0
    for a, b in zip(small, large, strict=True):
        if a.is_floating_point() and a.numel():
            scale = float(b.abs().max()) or 1.0
            difference = float((a - b).abs().max()) / scale
            worst = max(worst, difference) if difference == difference else float("inf")
    return worst


def consumers_zeroed(model: nn.Module, graph: ModelGraph, gone: Mapping[str, Tensor]) -> nn.Module:
    """Return a full-sized copy of the model in which nothing reads the channels that are gone."""
    masked = copy.deepcopy(model)
    parameters = dict(masked.named_parameters())
    with torch.no_grad():
        for name, units in gone.items():
            group = graph.groups[name]
            reading = [slices for slices in group.slices if slices.read]
            # Terms of a product of activations (query times key) are read by no weight: the product is made zero.
            for slices in reading or group.slices:
                if slices.read or slices.tensor in parameters:
                    weight = parameters[slices.tensor]
                    weight.index_fill_(slices.dim, slices.index[units].reshape(-1).to(weight.device), 0.0)
    return masked


def half_of_each(graph: ModelGraph, seed: int) -> dict[str, Tensor]:
    """Return a random half of the units of every group that has at least two: group name to units, ascending."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randperm(group.units, generator=generator)[: group.units // 2].sort().values
        for name, group in graph.groups.items()
        if group.units > 1
    }


@dataclass(frozen=True)
class _Exact:
    model: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    dtype: torch.dtype


def _in_double(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Exact:
    """Return model and inputs in float64, or as they are where the model insists on its own precision."""

    def double(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.double() if value.is_floating_point() else value
        if isinstance(value, Mapping):
            return {key: double(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(double(item) for item in value)
        return value

    exact = copy.deepcopy(model).double()
    try:
        _run(exact, double(args), double(kwargs))
    except (RuntimeError, TypeError, TraceError):
        return _Exact(model, args, kwargs, torch.float32)
    return _Exact(exact, double(args), double(kwargs), torch.float64)


def _run(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    with evaluation_mode(model), torch.no_grad():
        return output_tensors(model(*args, **kwargs))
