"""One exported graph per model: ATen operators in execution order, with the names of the tensors they read.

``torch.export`` (non-strict) keeps ``conv2d``, ``linear``, ``batch_norm`` and their like whole, and runs the user's own
Python once under fake tensors, so nothing is computed and nothing in the model changes.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from autoprune.errors import TraceError
from autoprune.graph.rules.call import HEAD_COUNTS


@dataclass(frozen=True)
class Trace:
    """What an export gives.

    Attributes:
        nodes: FX nodes in execution order.
        tensors: Placeholder name to the qualified name of the parameter or buffer behind it.
        constants: Name to tensor, for those that are neither: the export lifted them out of the code.
    """

    nodes: tuple[torch.fx.Node, ...]
    tensors: Mapping[str, str]
    constants: Mapping[str, Any] = field(default_factory=dict)


class TensorsOut(nn.Module):
    """A model around the user's, that returns only tensors: an export refuses what else there is (a cache of keys)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> list[torch.Tensor]:
        """Return the tensors of the model's output, in order."""
        return output_tensors(self.inner(*args, **kwargs))


def inner_name(name: str) -> str:
    """Return the name in the user's model of a module or tensor of the model around it."""
    return name.removeprefix("inner").removeprefix(".")


def operator_name(target: Any) -> str:
    """Return an operator's name without namespace, overload and the underscore of in-place variants ("conv2d")."""
    schema = getattr(target, "_schema", None)
    name = schema.name.partition("::")[2] if schema is not None else getattr(target, "__name__", str(target))
    return str(name).removesuffix("_")


def output_tensors(value: Any) -> list[torch.Tensor]:
    """Return all tensors of a model's output, in order; what is neither tensor nor container is left out."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in output_tensors(item)]
    return []


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode, and each back into its own mode afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def check_inputs(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Run the model once on the example inputs and return its output.

    Raises:
        TraceError: The model raises on them.
    """
    try:
        with evaluation_mode(model), torch.no_grad():
            return model(*args, **kwargs)
    except Exception as error:
        shown = ", ".join(describe(value) for value in (*args, *kwargs.values())) or "nothing"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TraceError(
            f"the model cannot run on the task's example inputs ({shown}): {reason}; give inputs that it takes"
        ) from error


def describe(value: Any) -> str:
    """Return a short text for a value in a message: dtype and shape of a tensor, the type of anything else."""
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return type(value).__name__


def trace(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Trace:
    """Export the model.

    Raises:
        TraceError: The model cannot be exported; the sentence says what stopped it.
    """
    try:
        with warnings.catch_warnings(), evaluation_mode(model):
            warnings.simplefilter("ignore")
            exported = torch.export.export(TensorsOut(model), args, dict(kwargs), strict=False)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TraceError(
            f"torch.export cannot follow the model ({reason}); channels stay, weight patterns remain possible"
        ) from error
    for node in exported.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor) and not all(type(size) is int for size in value.shape):
            raise TraceError(
                f"the shapes of the model depend on its data ({node.target}); "
                "channels stay, weight patterns remain possible"
            )
    signature = exported.graph_signature
    named = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    tensors = {placeholder: inner_name(name) for placeholder, name in named.items()}
    constants = {inner_name(name): value for name, value in exported.constants.items()}
    return Trace(tuple(exported.graph.nodes), tensors, constants)


def fingerprint(model: nn.Module) -> str:
    """Return a hash of the architecture: module classes, tensor shapes and head counts by name, no weights.

    A retrained checkpoint has the same fingerprint, another width, depth or layer type has another.
    """
    facts: dict[str, list[list[Any]]] = {
        "modules": [[name, type(module).__qualname__] for name, module in model.named_modules()],
        "tensors": [
            [name, list(tensor.shape)]
            for name, tensor in model.state_dict(keep_vars=True).items()
            if isinstance(tensor, torch.Tensor)  # a module's extra state may be anything
        ],
    }
    heads = [
        [f"{name}.{key}", vars(module)[key]]
        for name, module in model.named_modules()
        for key in sorted(HEAD_COUNTS & vars(module).keys())
        if type(vars(module)[key]) is int
    ]
    if heads:  # no shape tells them
        facts["heads"] = heads
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
