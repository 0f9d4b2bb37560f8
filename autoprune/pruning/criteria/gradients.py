"""Criteria of the gradient of the loss: what a first-order expansion says a weight is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from autoprune.pruning.criteria.passes import gradients
from autoprune.pruning.criteria.rule import Evidence, Rule

DRAWS = 8
"""Most draws that the squared group form keeps: its memory is so many times the weights, however many batches come."""


def mean_over_batches(evidence: Evidence, term: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
    """Return the mean over batches of ``term(weight, gradient)`` for each prunable weight, float as the weight."""
    weights = evidence.tensors(evidence.weights)
    totals = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    count = 0
    for found in gradients(evidence):
        count += 1
        for name, gradient in found.items():
            totals[name] += term(weights[name], gradient)
    return {name: total / count for name, total in totals.items()}


def _gradient(evidence: Evidence) -> Mapping[str, Tensor]:
    return mean_over_batches(evidence, lambda _, gradient: gradient.abs())


def _taylor(evidence: Evidence) -> Mapping[str, Tensor]:
    return mean_over_batches(evidence, lambda weight, gradient: (weight * gradient).abs())


def _snip(evidence: Evidence) -> Mapping[str, Tensor]:
    whole = mean_over_batches(evidence, lambda weight, gradient: weight * gradient)
    return {name: values.abs() for name, values in whole.items()}


def _taylor_squared(evidence: Evidence) -> Mapping[str, Tensor]:
    """Return signed contributions w * dL/dw, one draw per batch; past ``DRAWS`` batches are averaged into the draws."""
    weights = evidence.tensors(evidence.weights)
    draws: list[dict[str, Tensor]] = []
    counts: list[int] = []
    for number, found in enumerate(gradients(evidence)):
        place = number % DRAWS
        if place == len(draws):
            draws.append({name: torch.zeros_like(weight) for name, weight in weights.items()})
            counts.append(0)
        counts[place] += 1
        for name, gradient in found.items():
            draws[place][name] += weights[name] * gradient
    return {
        name: torch.stack([draw[name] / count for draw, count in zip(draws, counts, strict=True)]) for name in weights
    }


RULES: Mapping[str, Rule] = {
    "gradient": Rule("mean over batches of |dL/dw|", _gradient, needs_data=True, needs_loss=True),
    "taylor": Rule(
        "mean over batches of |w * dL/dw|; Molchanov 2019 (arXiv 1906.10771)",
        _taylor,
        needs_data=True,
        needs_loss=True,
    ),
    "taylor_squared": Rule(
        "mean over batches of (sum over the unit of w * dL/dw)^2; Molchanov 2019 (arXiv 1906.10771)",
        _taylor_squared,
        needs_data=True,
        needs_loss=True,
    ),
    "snip": Rule(
        "|w * dL/dw| of the loss over all samples, also at initialisation; Lee 2019 (arXiv 1810.02340)",
        _snip,
        needs_data=True,
        needs_loss=True,
    ),
}
