"""What a layer multiplies its weight with: the columns X of Y = W X, in the order of the 2-D weight (im2col)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

POSITIONS = 16
"""Places per sample that second moments look at: neighbouring windows of an image say almost the same."""

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def is_product(module: nn.Module) -> bool:
    """Whether the layer is Y = W X with columns: linear, and convolutions that are not transposed."""
    return isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)


def columns(module: nn.Module, x: Tensor, most: int | None = None) -> Tensor:
    """Return what the weight is multiplied with.

    A transposed convolution multiplies every tap with every place of its input channel: it has one group per input
    channel with one row, which is enough for what each weight meets, and no product of weight and columns.

    Args:
        module: A layer.
        x: What enters it: (n, ..., in) for linear, (n, in, *space) or (in, *space) for convolutions.
        most: Take so many columns only, drawn by a fixed seed; None for all.

    Returns:
        Shape (groups, inner, columns): with the weight as (groups, out / groups, inner), weight @ columns is the output
        without bias where :func:`is_product` holds.
    """
    if isinstance(module, nn.Linear):
        rows = x.reshape(-1, x.shape[-1])
        return rows[_drawn(len(rows), most, x.device)].T[None]
    x = _batched(module, x)
    if not isinstance(module, _CONVOLUTIONS):
        places = x.transpose(0, 1).flatten(1)[:, None, :]
        return places[:, :, _drawn(places.shape[2], most, x.device)]
    windows = _windows(module, x)
    shape = (windows.shape[0], *windows.shape[2 : 2 + len(module.kernel_size)])
    sample, *space = torch.unravel_index(_drawn(prod(shape), most, x.device), shape)
    chosen: tuple[Any, ...] = (sample, slice(None), *space)
    taken = windows[chosen]  # (columns, in, *kernel)
    return taken.reshape(len(taken), module.groups, -1).permute(1, 2, 0)


def column_squares(module: nn.Module, x: Tensor) -> Tensor:
    """Return the sum of squares over all columns, shape (groups, inner), without unfolding more than one sample."""
    if isinstance(module, nn.Linear):
        return x.reshape(-1, x.shape[-1]).square().sum(dim=0)[None]
    samples = _batched(module, x)
    squares = torch.zeros_like(samples[:1])
    for sample in samples:  # quicker than a sum over the batch, and no second copy of it
        squares[0].addcmul_(sample, sample)
    if not isinstance(module, _CONVOLUTIONS):
        return squares[0].flatten(1).sum(dim=1, keepdim=True)
    windows = _windows(module, squares)
    return windows.sum(dim=tuple(range(2, x_dims(module)))).reshape(module.groups, -1)


def x_dims(module: nn.Module) -> int:
    """Return the dimensions of a batched input of a convolution."""
    kernel = module.kernel_size
    assert isinstance(kernel, Sequence)
    return len(kernel) + 2


def _batched(module: nn.Module, x: Tensor) -> Tensor:
    return x if x.dim() == x_dims(module) else x[None]


@dataclass
class Moments:
    """First and second moments of a layer's columns, accumulated in float64.

    Attributes:
        count: Columns seen.
        total: Their sum, shape (groups, inner).
        gram: Sum of x x^T, shape (groups, inner, inner); None where only means are wanted.
    """

    count: int
    total: Tensor
    gram: Tensor | None

    @property
    def mean(self) -> Tensor:
        """Mean column, shape (groups, inner)."""
        return self.total / self.count

    def damped(self, damping: float, centred: bool = False) -> Tensor:
        """Return the mean of x x^T, or their covariance, with ``damping`` times its mean diagonal added.

        So it is positive definite.
        """
        assert self.gram is not None
        gram = self.gram / self.count
        if centred:
            gram = gram - self.mean[:, :, None] * self.mean[:, None, :]
        diagonal = gram.diagonal(dim1=1, dim2=2)
        # A layer that only ever saw zeros: any damping will do.
        level = torch.where(diagonal.mean(dim=1) > 0, diagonal.mean(dim=1), 1.0)
        return gram + damping * level[:, None, None] * torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)


def add_moments(
    known: Moments | None, module: nn.Module, x: Tensor, gram: bool = True, positions: int = POSITIONS
) -> Moments:
    """Return moments with the columns of one more input, at most ``positions`` per sample, counted in.

    Memory: inner^2 float64 per layer for the second moments, whatever the amount of data.
    """
    taken = columns(module, x, positions * max(int(x.shape[0]), 1))
    total = taken.sum(dim=2, dtype=torch.float64)
    product = (taken @ taken.transpose(1, 2)).double() if gram else None
    if known is None:
        return Moments(taken.shape[2], total, product)
    both = known.gram + product if known.gram is not None and product is not None else None
    return Moments(known.count + taken.shape[2], known.total + total, both)


def _windows(module: nn.Module, x: Tensor) -> Tensor:
    """Return a view (n, in, *places, *kernel) of the padded input."""
    assert isinstance(module, _CONVOLUTIONS)
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = F.pad(x, module._reversed_padding_repeated_twice, mode=mode)
    for place, (size, stride, dilation) in enumerate(
        zip(module.kernel_size, module.stride, module.dilation, strict=True)
    ):
        padded = padded.unfold(2 + place, (size - 1) * dilation + 1, stride)[..., ::dilation]
    return padded


def _drawn(count: int, most: int | None, device: torch.device) -> Tensor:
    return torch.arange(count, device=device) if most is None or most >= count else _drawn_once(count, most).to(device)


@lru_cache(maxsize=256)
def _drawn_once(count: int, most: int) -> Tensor:
    """Draw so many of ``count`` places, ascending: the same at each call, so layers and batches of a size share it."""
    generator = torch.Generator().manual_seed(count)
    return torch.randperm(count, generator=generator)[:most].sort().values
