"""Criteria of the second derivative: what a weight is worth where the gradient is zero."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from autoprune.pruning.columns import POSITIONS, Moments, add_moments
from autoprune.pruning.criteria.gradients import mean_over_batches
from autoprune.pruning.criteria.passes import watch_inputs
from autoprune.pruning.criteria.rule import Evidence, Rule

DAMPING = 0.01
"""Of the mean diagonal, added to it before inverting, as in SparseGPT (Frantar and Alistarh 2023, arXiv 2301.00774)."""

RANKING_POSITIONS = 4
"""Places per sample for scores: a ranking needs fewer than a fit, and the products of columns are most of the cost."""


def _obd(evidence: Evidence) -> Mapping[str, Tensor]:
    """Optimal brain damage, w^2 h / 2 (LeCun 1989), with the squared gradient of a batch in the place of h.

    The mean square of per-sample gradients, the diagonal empirical Fisher, would need a backward pass per sample.
    """
    return mean_over_batches(evidence, lambda weight, gradient: (weight * gradient).square() / 2)


def input_moments(evidence: Evidence, gram: bool = True, positions: int = POSITIONS) -> dict[str, Moments]:
    """Return the moments of what each layer multiplies its weight with, by weight name, from one pass.

    Layers whose ``forward`` is never called are left out.
    """
    found: dict[str, Moments] = {}

    def visit(name: str, module: nn.Module, x: Tensor) -> None:
        found[name] = add_moments(found.get(name), module, x, gram, positions)

    watch_inputs(evidence, visit)
    return found


def _obs(evidence: Evidence) -> Mapping[str, Tensor]:
    """Optimal brain surgeon on the layer's output, w_j^2 / [H^-1]_jj with H = mean of x x^T (Hassibi 1993).

    It is the error that removing the weight leaves when the others of its output are adjusted (OBC, Frantar 2022). Of
    transposed convolutions only the diagonal of H is taken.
    """
    weights = evidence.tensors(evidence.weights)
    found = {}
    for name, moments in input_moments(evidence, positions=RANKING_POSITIONS).items():
        factor = torch.linalg.cholesky(moments.damped(DAMPING))
        identity = torch.eye(factor.shape[1], dtype=factor.dtype, device=factor.device).expand_as(factor)
        # [H^-1]_jj is the squared length of column j of the factor's inverse; H^-1 itself costs twice as much.
        inverse = torch.linalg.solve_triangular(factor, identity, upper=False).square().sum(dim=1)
        weight = weights[name]
        grouped = weight.reshape(inverse.shape[0], -1, inverse.shape[1]).double()
        found[name] = (grouped.square() / inverse[:, None, :]).reshape(weight.shape)
    return found


RULES: Mapping[str, Rule] = {
    "obd": Rule(
        "w^2 * mean over batches of (dL/dw)^2 / 2: gradients of batches, not of samples; LeCun 1989",
        _obd,
        needs_data=True,
        needs_loss=True,
    ),
    "obs": Rule(
        "w^2 / [H^-1]_jj, H = mean of x x^T of the layer's inputs; Hassibi 1993, OBC (arXiv 2208.11580)",
        _obs,
        needs_data=True,
    ),
}
