"""Criteria that look at the weights alone."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from autoprune.pruning.criteria.rule import Evidence, Rule
from autoprune.pruning.granularity import CHANNEL, HEAD

LP = 0.5
"""The exponent of ``magnitude_lp``: below 1, so that many small weights count more than one large weight."""


def _by_weight(formula: Callable[[Tensor], Tensor]) -> Callable[[Evidence], Mapping[str, Tensor]]:
    return lambda evidence: {name: formula(weight) for name, weight in evidence.tensors(evidence.weights).items()}


def lamp_scores(weight: Tensor) -> Tensor:
    """Return the LAMP score w^2 / sum of all v^2 with v^2 >= w^2 in the tensor (Lee et al. 2021, arXiv 2010.07611).

    Ties take the order of their index, as in a sort. Ranked over the whole network it is magnitude pruning whose error
    is counted relative to what survives in the layer.

    Args:
        weight: Any shape.

    Returns:
        Same shape, float64, in [0, 1].
    """
    squares = weight.reshape(-1).double().square()
    order = torch.argsort(squares, stable=True)
    ascending = squares[order]
    survivors = ascending.flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(squares)
    scores[order] = ascending / survivors.clamp_min(torch.finfo(torch.float64).tiny)
    return scores.reshape(weight.shape)


def geometric_median_distances(weight: Tensor, out_dim: int = 0) -> Tensor:
    """Return for each filter the sum of its Euclidean distances to all filters of the layer, shape (out,).

    The filter nearest to the geometric median is the one that the others replace best (FPGM, He et al. 2019,
    arXiv 1811.00250).
    """
    filters = weight.movedim(out_dim, 0).flatten(1)
    return torch.cdist(filters, filters, compute_mode="donot_use_mm_for_euclid_dist").sum(dim=1)


def _fpgm(evidence: Evidence) -> Mapping[str, Tensor]:
    found = {}
    for name, weight in evidence.tensors(evidence.weights).items():
        out_dim = out_dim_of(evidence, name)
        distances = geometric_median_distances(weight, out_dim)
        found[name] = spread(distances, tuple(weight.shape), out_dim)
    return found


def _random(evidence: Evidence) -> Mapping[str, Tensor]:
    found = {}
    for name, weight in evidence.tensors(evidence.weights).items():
        generator = torch.Generator().manual_seed(zlib.crc32(f"{evidence.seed}/{name}".encode()))
        found[name] = torch.rand(weight.shape, generator=generator).to(weight.device)
    return found


def _norm_scales(evidence: Evidence) -> Mapping[str, Tensor]:
    return {name: scale.abs() for name, scale in evidence.tensors(evidence.norm_scales).items()}


def out_dim_of(evidence: Evidence, weight: str) -> int:
    """Return the dimension of a prunable weight that holds output channels."""
    module = evidence.model.get_submodule(weight.rpartition(".")[0])
    return 1 if getattr(module, "transposed", False) else 0


def spread(values: Tensor, shape: tuple[int, ...], dim: int) -> Tensor:
    """Return a tensor of ``shape`` whose sums along all dimensions but ``dim`` are ``values``."""
    view = [1] * len(shape)
    view[dim] = -1
    rest = torch.Size(shape).numel() // shape[dim]
    return (values.double() / rest).reshape(view).expand(shape)


RULES: Mapping[str, Rule] = {
    "magnitude_l1": Rule("|w|; Han 2015, filters: Li 2017 (arXiv 1608.08710)", _by_weight(torch.abs)),
    "magnitude_l2": Rule("w^2, the squared L2 norm of a unit; He 2018 (arXiv 1808.06866)", _by_weight(torch.square)),
    "magnitude_lp": Rule(f"|w|^p with p = {LP}, the Lp norm of a unit to the p", _by_weight(lambda w: w.abs() ** LP)),
    "lamp": Rule("w^2 / sum of v^2 >= w^2 in the layer; Lee 2021 (arXiv 2010.07611)", _by_weight(lamp_scores)),
    "batchnorm_scale": Rule(
        "|gamma| of the batch norm behind a channel; Liu 2017 (arXiv 1708.06519)",
        _norm_scales,
        granularities=(CHANNEL,),
        judges=("along",),
    ),
    "fpgm": Rule(
        "sum of distances to the layer's other filters; He 2019 (arXiv 1811.00250)",
        _fpgm,
        granularities=(CHANNEL, HEAD),
        judges=("out",),
    ),
    "random": Rule("uniform noise from the seed: the baseline", _random),
}
