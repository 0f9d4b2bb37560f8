"""Criteria of what flows between layers, seen where a layer reads it: after the activation function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autoprune.pruning.columns import column_squares
from autoprune.pruning.criteria.passes import DATA_SAMPLES, watch_inputs
from autoprune.pruning.criteria.rule import Evidence, Rule
from autoprune.pruning.criteria.weights import out_dim_of, spread
from autoprune.pruning.granularity import CHANNEL, HEAD

RANK_SAMPLES = 8
"""Samples for feature-map ranks; they vary little from image to image (Lin et al. 2020, section 3.2)."""


def _wanda(evidence: Evidence) -> Mapping[str, Tensor]:
    """Return |w_ij| * ||x_j||_2, ranked over the layer rather than within each output."""
    squares: dict[str, Tensor] = {}

    def visit(name: str, module: nn.Module, x: Tensor) -> None:
        found = column_squares(module, x).double()
        squares[name] = squares[name] + found if name in squares else found

    watch_inputs(evidence, visit)
    weights = evidence.tensors(evidence.weights)
    return {
        name: (weights[name].abs().reshape(len(square), -1, square.shape[1]) * square.sqrt()[:, None]).reshape(
            weights[name].shape
        )
        for name, square in squares.items()
    }


@dataclass
class _Running:
    total: Tensor
    count: int


def _by_channel(
    measure: Callable[[Tensor], Tensor], samples: int = DATA_SAMPLES
) -> Callable[[Evidence], Mapping[str, Tensor]]:
    """Return a criterion: the mean of a measure over samples, for each channel that a layer reads.

    Args:
        measure: From maps, shape (n, channels, *space), to one number per map, shape (n, channels).
        samples: As in :func:`watch_inputs`.
    """

    def compute(evidence: Evidence) -> Mapping[str, Tensor]:
        running: dict[str, _Running] = {}

        def visit(name: str, module: nn.Module, x: Tensor) -> None:
            values = measure(_maps(module, x)).double()
            known = running.setdefault(name, _Running(torch.zeros_like(values[0]), 0))
            known.total += values.sum(dim=0)
            known.count += len(values)

        watch_inputs(evidence, visit, samples)
        weights = evidence.tensors(evidence.weights)
        found = {}
        for name, known in running.items():
            shape = tuple(weights[name].shape)
            in_dim = 1 - out_dim_of(evidence, name)
            # A grouped convolution reads the channel at the same place of every group through one place of its weight.
            places = (known.total / known.count).reshape(-1, shape[in_dim]).sum(dim=0)
            found[name] = spread(places, shape, in_dim)
        return found

    return compute


def _maps(module: nn.Module, x: Tensor) -> Tensor:
    """Return (n, channels, *space); what enters a linear layer has one place per sample."""
    if isinstance(module, nn.Linear):
        return x.reshape(-1, x.shape[-1], 1)
    kernel = module.kernel_size
    assert isinstance(kernel, tuple)
    return x if x.dim() == len(kernel) + 2 else x[None]


def _mean_absolute(maps: Tensor) -> Tensor:
    return maps.abs().mean(dim=tuple(range(2, maps.dim())))


def _share_not_zero(maps: Tensor) -> Tensor:
    return maps.sign().abs_().mean(dim=tuple(range(2, maps.dim())))  # three times as fast as comparing


def _rank(maps: Tensor) -> Tensor:
    first = maps[:RANK_SAMPLES]
    flat = first.flatten(2)
    # A map of one row or one column has rank 1 unless it is zero.
    square = first.flatten(3) if first.dim() > 3 else flat[..., None]
    if min(square.shape[2:]) == 1:
        return (flat != 0).any(dim=2).double()
    # Eigenvalues of the smaller Gram matrix are half as dear as singular values; float64 keeps their squares apart.
    wide = (square if square.shape[2] <= square.shape[3] else square.transpose(2, 3)).double()
    values: Tensor = torch.linalg.eigvalsh(wide @ wide.transpose(2, 3))
    tolerance = (max(square.shape[2:]) * torch.finfo(torch.float32).eps) ** 2
    return (values > tolerance * values[..., -1:]).double().sum(dim=2)


def _channel_rule(summary: str, compute: Callable[[Evidence], Mapping[str, Tensor]]) -> Rule:
    return Rule(summary, compute, needs_data=True, granularities=(CHANNEL, HEAD), judges=("in",))


RULES: Mapping[str, Rule] = {
    "wanda": Rule("|w| * ||x||_2 of the input it reads; Sun 2023 (arXiv 2306.11695)", _wanda, needs_data=True),
    "activation": _channel_rule(
        "mean |a| of a channel where it is read; Molchanov 2017 (arXiv 1611.06440)", _by_channel(_mean_absolute)
    ),
    "apoz": _channel_rule(
        "share of a != 0 where a channel is read, 1 - APoZ; Hu 2016 (arXiv 1607.03250)", _by_channel(_share_not_zero)
    ),
    "hrank": _channel_rule(
        f"mean rank of a channel's map where it is read, {RANK_SAMPLES} samples; Lin 2020 (arXiv 2002.10179)",
        _by_channel(_rank, RANK_SAMPLES),
    ),
}
