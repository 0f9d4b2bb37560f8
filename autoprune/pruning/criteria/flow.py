"""SynFlow: synaptic flow without data (Tanaka et al. 2020, arXiv 2006.05467)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.errors import ConfigError
from autoprune.pruning.criteria.rule import Evidence, Rule


def _synflow(evidence: Evidence) -> Mapping[str, Tensor]:
    """Return |w * dR/dw| with R the sum of outputs of the network of absolute weights, on an input of ones.

    One pass, on a float64 copy, for R is a product over layers and overflows float32. Batch norm subtracts no mean
    there, so that nothing is negative; integer inputs stay as the example has them. Where an activation function
    saturates, or a softmax ends the network, no flow comes through.
    """
    if not evidence.args and not evidence.kwargs:
        raise ConfigError("criterion 'synflow' needs example inputs, and none are given; give Task.example_inputs")
    network = copy.deepcopy(evidence.model).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
                module.running_mean.zero_()
    parameters = dict(network.named_parameters())
    judged = [parameters[name].requires_grad_(True) for name in evidence.weights]
    with torch.enable_grad():
        flow = _total(network(*_ones(evidence.args), **_ones(evidence.kwargs)))
        found = torch.autograd.grad(flow, judged, allow_unused=True)
    scores = {
        name: torch.zeros_like(weight) if gradient is None else (weight * gradient).detach().abs()
        for name, weight, gradient in zip(evidence.weights, judged, found, strict=True)
    }
    # In a network without saturation the scores of each layer sum to the flow itself.
    if float(max(values.sum() for values in scores.values())) <= 1e-9 * float(flow.detach().abs()):
        raise ConfigError(
            "criterion 'synflow' finds no flow through this network (a softmax or a saturated activation ends it); "
            "choose another criterion"
        )
    return scores


def _ones(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.ones_like(value, dtype=torch.float64) if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return {key: _ones(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_ones(item) for item in value)
    return value


def _total(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.sum() if value.is_floating_point() else torch.zeros((), dtype=torch.float64)
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return sum((_total(item) for item in value), torch.zeros((), dtype=torch.float64))
    return torch.zeros((), dtype=torch.float64)


RULES: Mapping[str, Rule] = {
    "synflow": Rule(
        "|w * dR/dw|, R the output of the network of |w| on ones, no data; Tanaka 2020 (arXiv 2006.05467)", _synflow
    ),
}
