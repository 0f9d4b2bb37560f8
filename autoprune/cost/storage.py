"""Bytes of the weights in the best storage format per tensor. What writes files asks here too, so there is one truth.

Removed channels make a smaller shape. Zeros that stay make a bitmask: one bit per element and the non-zero values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from autoprune.cost.int8 import SCALE_BYTES

StorageFormat = Literal["dense", "bitmask"]


def choose_format(numel: int, nonzero: int, itemsize: int) -> StorageFormat:
    """Return the smaller format; dense where they are equal, for it needs no decoding.

    Args:
        numel: Elements.
        nonzero: Elements that are not zero.
        itemsize: Bytes of one element.
    """
    return "bitmask" if _bitmask_bytes(numel, nonzero, itemsize) < numel * itemsize else "dense"


def format_bytes(numel: int, nonzero: int, itemsize: int) -> int:
    """Return the bytes of a tensor in the format that :func:`choose_format` names."""
    return min(numel * itemsize, _bitmask_bytes(numel, nonzero, itemsize))


def format_of(tensor: Tensor) -> StorageFormat:
    """Return the best format of ``tensor``; only floating-point tensors are packed.

    A negative zero is a zero here: it multiplies like one.
    """
    if not tensor.is_floating_point():
        return "dense"
    return choose_format(tensor.numel(), int(torch.count_nonzero(tensor)), tensor.element_size())


def stored_bytes(tensor: Tensor, itemsize: int | None = None) -> int:
    """Return the bytes of ``tensor`` in its best format, each value in ``itemsize`` bytes (left out: its own)."""
    itemsize = itemsize or tensor.element_size()
    if not tensor.is_floating_point():
        return tensor.numel() * itemsize
    return format_bytes(tensor.numel(), int(torch.count_nonzero(tensor)), itemsize)


def size_bytes(model: nn.Module, scales: Mapping[str, int] | None = None) -> int:
    """Return the bytes of all parameters and persistent buffers; a tensor with several names counts once.

    File headers are not counted.

    Args:
        model: What is stored.
        scales: Weights that are stored as int8, with the number of their float32 scales (``cost.int8``).
    """
    scales = scales or {}
    seen: set[tuple[object, ...]] = set()
    total = 0
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor) or tensor.numel() == 0:
            continue  # a module's extra state may be anything
        key = (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if key not in seen:
            seen.add(key)
            total += stored_bytes(tensor, 1 if name in scales else None)
    return total + SCALE_BYTES * sum(scales.values())


def _bitmask_bytes(numel: int, nonzero: int, itemsize: int) -> int:
    return nonzero * itemsize + (numel + 7) // 8
