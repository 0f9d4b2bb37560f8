"""Single weights, and rows and columns of the 2-D weight."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from autoprune.pruning.granularity.shape import (
    Granularity,
    Size,
    always_fits,
    elements,
    kept_of,
    lowest,
    partition,
    removed_count,
)


def _each(size: Size) -> Tensor:
    return torch.arange(prod(size)).reshape(size)


def _rows(size: Size) -> Tensor:
    return torch.arange(size[0]).reshape(-1, *[1] * (len(size) - 1)).expand(size)


def _columns(size: Size) -> Tensor:
    return torch.arange(prod(size[1:])).reshape(1, *size[1:]).expand(size)


def _weight_mask(scores: Tensor, sparsity: float) -> Tensor:
    flat = scores.reshape(-1)
    keep = torch.ones_like(flat, dtype=torch.bool)
    keep[lowest(flat, removed_count(flat.numel(), sparsity))] = False
    return keep.reshape(scores.shape)


WEIGHT = Granularity(
    "weight", "one weight", False, _weight_mask, always_fits, _each, kept_of(lambda size: (elements(size), 1))
)
ROW = partition(
    "row",
    "a row of the 2-D weight (out, inner): all weights of one output",
    _rows,
    always_fits,
    lambda size: (size[0], elements(size[1:])),
)
COLUMN = partition(
    "column",
    "a column of the 2-D weight: one input place in im2col order",
    _columns,
    always_fits,
    lambda size: (elements(size[1:]), size[0]),
)
