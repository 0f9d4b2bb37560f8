"""Passes over calibration data: gradients, and what enters each layer. Streaming; nothing of a batch is kept.

The model is used as it is, in evaluation mode. Hooks are removed and gradients left untouched whatever happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.errors import ConfigError
from autoprune.graph.groups import PRUNABLE_TYPES
from autoprune.pruning.criteria.rule import Evidence

DATA_SAMPLES = 512
"""Samples that a data-driven criterion looks at, taken from the front of ``Task.batches``."""


def batches_of(evidence: Evidence, samples: int = DATA_SAMPLES) -> Iterator[Any]:
    """Yield whole batches until ``samples`` are reached.

    Raises:
        ConfigError: There is no batch.
    """
    seen = 0
    for batch in evidence.batches() if evidence.batches is not None else ():
        yield batch
        seen += batch_size(batch)
        if seen >= samples:
            return
    if not seen:
        raise ConfigError("calibration needs data, and Task.batches gave none; give at least one batch")


def gradients(evidence: Evidence, samples: int = DATA_SAMPLES) -> Iterator[Mapping[str, Tensor]]:
    """Yield for each batch the gradient of the mean loss by each prunable weight; a weight without one is left out."""
    assert evidence.loss is not None
    parameters = dict(evidence.model.named_parameters())
    judged = {name: parameters[name] for name in evidence.weights}
    frozen = [weight for weight in judged.values() if not weight.requires_grad]
    try:
        for weight in frozen:
            weight.requires_grad_(True)
        for batch in batches_of(evidence, samples):
            with torch.enable_grad():
                loss = evidence.loss(evidence.model, batch)
                found = torch.autograd.grad(loss, list(judged.values()), allow_unused=True)
            yield {name: value for name, value in zip(judged, found, strict=True) if value is not None}
    finally:
        for weight in frozen:
            weight.requires_grad_(False)


def watch_inputs(
    evidence: Evidence, visit: Callable[[str, nn.Module, Tensor], None], samples: int = DATA_SAMPLES
) -> None:
    """Run the model on calibration data and show what enters each layer.

    Args:
        evidence: Model and data.
        visit: Called with the name of the weight, a module that holds it and the input, at every call of the module;
            several modules may share one weight.
        samples: Whole batches are run until so many are reached.
    """
    names = {id(evidence.model.get_parameter(name)): name for name in evidence.weights}
    hooks = []
    try:
        for module in evidence.model.modules():
            name = names.get(id(module._parameters.get("weight")))
            # An embedding may share a weight with a layer; it multiplies nothing.
            if name is not None and isinstance(module, PRUNABLE_TYPES):
                hooks.append(module.register_forward_pre_hook(_visitor(name, visit)))
        with torch.no_grad():
            for batch in batches_of(evidence, samples):
                run_batch(evidence.model, batch, max(len(evidence.args), 1), evidence.loss)
    finally:
        for hook in hooks:
            hook.remove()


def _visitor(name: str, visit: Callable[[str, nn.Module, Tensor], None]) -> Callable[[nn.Module, Any], None]:
    def hook(module: nn.Module, args: Any) -> None:
        if args:
            visit(name, module, args[0].detach())

    return hook


def run_batch(
    model: nn.Module, batch: Any, inputs: int, loss: Callable[[nn.Module, Any], Tensor] | None = None
) -> None:
    """Run a model on a batch, through the task's loss where there is one, for it knows what a batch is.

    Args:
        model: The model.
        batch: Whatever ``loss`` takes; without it inputs, or inputs followed by targets.
        inputs: Positional inputs that the model takes.
        loss: ``Task.loss``.
    """
    if loss is not None:
        loss(model, batch)
    elif isinstance(batch, Mapping):
        model(**batch)
    elif isinstance(batch, Sequence):
        model(*batch[:inputs])
    else:
        model(batch)


def batch_size(batch: Any) -> int:
    """Return the samples in a batch: the first dimension of the first tensor found in it, 1 where there is none."""
    if isinstance(batch, Tensor):
        return int(batch.shape[0]) if batch.dim() else 1
    values = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    for value in values:
        if isinstance(value, Tensor | Mapping | list | tuple):
            return batch_size(value)
    return 1
