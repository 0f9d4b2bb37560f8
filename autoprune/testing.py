"""Conformance suites: what built-ins pass, and plug-ins should. Call them from your own tests.

Each raises ``AssertionError`` with the rule that was broken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from autoprune.graph.groups import find_groups
from autoprune.pruning.criteria import Criterion, Evidence
from autoprune.pruning.granularity import Granularity, removed_count
from autoprune.pruning.proof import half_of_each, surgery_error


def check_criterion(criterion: Criterion, evidence: Evidence) -> None:
    """Check that a criterion scores every entry, the same twice, changing nothing.

    Scores are finite and not negative; signed contributions, with a leading dimension of draws, are finite.
    """
    before = {name: value.clone() for name, value in evidence.model.state_dict().items()}
    scores = criterion.scores(evidence)
    assert scores, "a criterion scores at least one tensor"
    parameters = dict(evidence.model.named_parameters())
    for name, values in scores.items():
        assert name in parameters, f"{name!r} is no parameter of the model"
        signed = values.dim() == parameters[name].dim() + 1
        shape = values.shape[1:] if signed else values.shape
        assert shape == parameters[name].shape, f"scores of {name!r} have the shape of the tensor"
        assert bool(torch.isfinite(values).all()), f"scores of {name!r} are finite"
        assert signed or bool((values >= 0).all()), f"scores of {name!r} are not negative"
    again = criterion.scores(evidence)
    assert all(torch.equal(scores[name], again[name]) for name in scores), "the same evidence gives the same scores"
    assert criterion.summary, "a criterion has a summary"
    for name, value in evidence.model.state_dict().items():
        assert torch.equal(value, before[name]), f"the criterion changed {name!r}"
    assert all(parameter.grad is None for parameter in parameters.values()), "the criterion left gradients behind"


def check_granularity(shape: Granularity, rows: int = 32, inner: int = 64, sparsity: float = 0.5) -> None:
    """Check a weight pattern: right shape, never more than asked removed, deterministic under ties."""
    if shape.mask is None:
        assert shape.removed, "a granularity without a mask removes units"
        return
    scores = torch.rand(rows, inner, generator=torch.Generator().manual_seed(0))
    kept = shape.mask(scores, sparsity)
    assert kept.dtype == torch.bool, "a mask is boolean"
    assert kept.shape == scores.shape, "a mask has the shape of the scores"
    assert int((~kept).sum()) <= removed_count(scores.numel(), sparsity), "no more goes than was asked"
    ties = torch.ones(rows, inner)
    assert torch.equal(shape.mask(ties, sparsity), shape.mask(ties.clone(), sparsity)), "ties break by index"


def surgery_difference(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None, seed: int = 0
) -> float:
    """Remove a random half of every group and return the relative difference to the masked dense model.

    The model should be in float64; exact surgery stays below 1e-9.
    """
    graph = find_groups(model, args, kwargs)
    gone = half_of_each(graph, seed)
    assert gone, "the model has no group of channels that may go"
    return surgery_error(model, graph, gone, args, kwargs)
