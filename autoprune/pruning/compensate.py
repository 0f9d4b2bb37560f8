"""Compensation: what is left of a layer takes over what was removed, from calibration data and without training.

The layer's output W x is kept as near as possible: over the calibration columns x of the *dense* model, the remaining
weights minimise E |(W - V) x|^2. For channels that is the re-fit of the next layer (ThiNet, Luo et al. 2017,
arXiv 1707.06342; He et al. 2017, arXiv 1707.06168), for weight patterns it is where the updates of optimal brain
surgeon end when the mask is given (Hassibi 1993; OBC, Frantar et al. 2022, arXiv 2208.11580). One solver serves both: a
removed channel is a mask over whole columns. As only the dense model is looked at, one pass over the data serves all
trials.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from autoprune.graph.groups import Layer, ModelGraph
from autoprune.pruning.columns import Moments, is_product
from autoprune.pruning.plan import Plan

Method = Literal["bias", "least_squares"]

DAMPING = 0.01
"""Of the mean diagonal of E x x^T, added to it: as SparseGPT (arXiv 2301.00774). It pulls towards the dense weights,
and the error on the calibration columns stays at most that of the plain mask."""
_STEPS = 200
_TOLERANCE = 1e-4


def compensate(
    model: nn.Module, dense: nn.Module, graph: ModelGraph, plan: Plan, moments: Mapping[str, Moments], method: Method
) -> tuple[str, ...]:
    """Compensate a pruned model in place.

    ``bias`` moves the mean of each output back to where it was; layers without a bias are left to the batch norm behind
    them. ``least_squares`` re-fits the remaining weights, and then the bias. Transposed convolutions, and layers that
    the calibration pass did not see, stay as they are.

    Args:
        model: The pruned model.
        dense: The dense model.
        graph: Its graph.
        plan: What was cut and masked.
        moments: Of each layer's columns in the dense model, by weight name; second ones for ``least_squares``.
        method: What to adjust.

    Returns:
        The layers that were adjusted.
    """
    weights, pruned = dict(dense.named_parameters()), dict(model.named_parameters())
    done = []
    for layer in graph.layers.values():
        module, known = dense.get_submodule(layer.name), moments.get(layer.weight)
        bias = f"{layer.name}.bias" if layer.name else "bias"
        biased = pruned.get(bias)
        support = _support(layer, plan)
        if support is None or known is None or not is_product(module) or layer.weight not in pruned:
            continue
        if method == "bias" and biased is None:
            continue
        weight = weights[layer.weight].detach()
        rows = plan.cuts.get((layer.weight, 0), torch.arange(weight.shape[0])).to(weight.device)
        fitted, shift = _fit(weight, support.to(weight.device), rows, known, method, biased is not None)
        with torch.no_grad():
            if method == "least_squares":
                pruned[layer.weight].copy_(_cut(fitted, layer.weight, plan))
            if biased is not None:
                biased.add_(shift[rows].to(biased.dtype))
        done.append(layer.name)
    return tuple(done)


def _fit(
    weight: Tensor, support: Tensor, rows: Tensor, known: Moments, method: Method, biased: bool
) -> tuple[Tensor, Tensor]:
    """Return the weight, shape as the dense one, and what is added to the bias, shape (out,), both float64."""
    groups, inner = known.total.shape
    target = weight.double().reshape(groups, -1, inner)
    allowed = support.reshape(target.shape)
    fitted = target * allowed
    of_group = rows // target.shape[1]
    if method == "least_squares":
        hessian = known.damped(DAMPING, centred=biased)
        for group in range(groups):
            places = rows[of_group == group] % target.shape[1]
            if len(places):
                fitted[group, places] = masked_least_squares(
                    target[group, places], allowed[group, places], hessian[group]
                )
    shift = ((target - fitted) @ known.mean[:, :, None])[:, :, 0].reshape(-1)
    return fitted.reshape(weight.shape), shift


def masked_least_squares(weight: Tensor, support: Tensor, hessian: Tensor) -> Tensor:
    """Return V with V = 0 outside ``support`` that minimises the sum over rows of (w - v) H (w - v)^T.

    Rows with one common support are solved by one Cholesky factor. Otherwise conjugate gradients run on all rows at
    once, from the masked weight; the error falls with every step, so V is never worse than the mask alone.

    Args:
        weight: Shape (rows, inner), float64.
        support: Where V may differ from zero, bool, same shape.
        hessian: Positive definite, shape (inner, inner), float64.

    Returns:
        Same shape as ``weight``.
    """
    if bool((support == support[:1]).all()):
        kept = torch.nonzero(support[0]).reshape(-1)
        fitted = torch.zeros_like(weight)
        if len(kept):
            factor = torch.linalg.cholesky(hessian[kept][:, kept])
            fitted[:, kept] = torch.cholesky_solve(hessian[kept] @ weight.T, factor).T
        return fitted
    fitted = weight * support
    scale = hessian.diagonal()
    residual = ((weight - fitted) @ hessian) * support
    start = residual.norm(dim=1).clamp_min(torch.finfo(weight.dtype).tiny)
    direction = residual / scale
    slope = (residual * direction).sum(dim=1)
    for _ in range(_STEPS):
        if float((residual.norm(dim=1) / start).max()) <= _TOLERANCE:
            break
        image = (direction @ hessian) * support
        curvature = (direction * image).sum(dim=1)
        step = torch.where(curvature > 0, slope / curvature.clamp_min(torch.finfo(weight.dtype).tiny), 0.0)
        fitted += step[:, None] * direction
        residual -= step[:, None] * image
        scaled = residual / scale
        new_slope = (residual * scaled).sum(dim=1)
        ratio = torch.where(slope > 0, new_slope / slope.clamp_min(torch.finfo(weight.dtype).tiny), 0.0)
        direction = scaled + ratio[:, None] * direction
        slope = new_slope
    return fitted


def _support(layer: Layer, plan: Plan) -> Tensor | None:
    """Return which weights of the dense layer remain among what it reads, bool; None where it lost no input."""
    inputs = plan.cuts.get((layer.weight, 1 - layer.out_dim))
    mask = plan.masks.get(layer.weight)
    if inputs is None and mask is None:
        return None
    support = torch.zeros(layer.shape, dtype=torch.bool)
    left = [
        plan.cuts.get((layer.weight, dim), torch.arange(size)).cpu() if dim < 2 else torch.arange(size)
        for dim, size in enumerate(layer.shape)
    ]
    support[torch.meshgrid(*left, indexing="ij")] = True if mask is None else mask.cpu()
    return support


def _cut(weight: Tensor, name: str, plan: Plan) -> Tensor:
    for dim in range(weight.dim()):
        if (name, dim) in plan.cuts:
            weight = weight.index_select(dim, plan.cuts[name, dim].to(weight.device))
    return weight
