"""Elements, zeros and bytes of everything that a model stores, as functions of counts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.cost.blueprint import Blueprint
from autoprune.cost.extents import Ints
from autoprune.cost.int8 import SCALE_BYTES
from autoprune.graph.walk import stored_tensors


class StoredTensors:
    """Parameters and buffers of a model.

    A trained tensor may hold zeros of its own. If they are spread evenly over the places that may be cut (all of a bias
    that was never trained, the row of a padding token), how many stay follows from counts; where they are not, it
    depends on which places go, and ``uneven`` names the tensor.

    Args:
        model: The dense model.
        blueprint: Its sizes.
        scales: Weights that are stored as int8, each with the shape of its scales, as numbers of functions, and how
            many groups share them.

    Attributes:
        names: All of them, in the order of all arrays.
        parameters: Which are parameters, by number.
        own_zeros: Which have zeros of their own, in the order of ``names``.
        uneven: Names of those whose zeros are spread unevenly over places that may be cut.
    """

    def __init__(
        self, model: nn.Module, blueprint: Blueprint, scales: Mapping[str, tuple[tuple[int, ...], int]] | None = None
    ) -> None:
        scales = scales or {}
        tensors = stored_tensors(model)
        self.names = tuple(tensors)
        parameters = {name for name, _ in model.named_parameters()}
        self.parameters = [n for n, name in enumerate(self.names) if name in parameters]
        fixed = blueprint.extents.constant()
        nonzeros = [_nonzeros(tensor) for tensor in tensors.values()]
        self.own_zeros = [
            count < max(tensor.numel(), 1) for count, tensor in zip(nonzeros, tensors.values(), strict=True)
        ]
        self.uneven = tuple(
            name
            for (name, tensor), zeros in zip(tensors.items(), self.own_zeros, strict=True)
            if zeros and not _even(tensor, [dim for dim, axis in enumerate(blueprint.stored[name]) if not fixed[axis]])
        )
        # After the tensors come the scales, which are never zero.
        shapes = [blueprint.stored[name] for name in self.names] + [shape for shape, _ in scales.values()]
        self._products = blueprint.products(shapes)
        self._scales = range(len(self.names), len(shapes))
        self._sharing = np.array([groups for _, groups in scales.values()], np.int64)
        ones = [1] * len(scales)
        self._dense = np.array([*(max(tensor.numel(), 1) for tensor in tensors.values()), *ones], np.int64)
        self._nonzeros = np.array([*nonzeros, *ones], np.int64)
        self._on_disk = _on_disk(model, tensors)
        stored = [self.names[n] for n in self._on_disk]
        self._itemsize = np.array([1 if name in scales else tensors[name].element_size() for name in stored], np.int64)
        self._packable = np.array([tensors[self.names[n]].is_floating_point() for n in self._on_disk], np.bool_)

    def elements(self, sizes: Ints) -> Ints:
        """Return the elements of each tensor and set of scales, shape (n, tensors), from the blueprint's functions."""
        return self._products.elements(sizes)

    def nonzeros(self, elements: Ints) -> Ints:
        """Return how many of them are not zero without any mask, shape (n, tensors)."""
        counts: Ints = elements * self._nonzeros // self._dense
        return counts

    def size_bytes(self, elements: Ints, nonzeros: Ints) -> Ints:
        """Return the bytes of all tensors in their best formats (``cost.storage``), shape (n,)."""
        numel, values = elements[:, self._on_disk], nonzeros[:, self._on_disk]
        dense = numel * self._itemsize
        packed = values * self._itemsize + (numel + 7) // 8
        total: Ints = np.where(self._packable, np.minimum(dense, packed), dense).sum(axis=1)
        total += SCALE_BYTES * (elements[:, self._scales] // self._sharing).sum(axis=1)
        return total


def _nonzeros(tensor: Tensor) -> int:
    return int(torch.count_nonzero(tensor.detach())) if tensor.is_floating_point() else tensor.numel()


def _even(tensor: Tensor, dims: list[int]) -> bool:
    """Say whether all places along ``dims`` hold equally many zeros."""
    others = [dim for dim in range(tensor.dim()) if dim not in dims]
    counts = (tensor.detach() != 0).sum(dim=others) if others else tensor.detach() != 0
    return not dims or torch.unique(counts).numel() == 1


def _on_disk(model: nn.Module, tensors: dict[str, Tensor]) -> list[int]:
    """Return the tensors of a state dict, each storage once, as ``cost.storage.size_bytes`` counts them."""
    number = {id(tensor): n for n, tensor in enumerate(tensors.values())}
    kept: dict[tuple[object, ...], int] = {}
    for value in model.state_dict(keep_vars=True).values():
        if isinstance(value, Tensor) and value.numel() and id(value) in number:
            key = (value.device, value.data_ptr(), value.dtype, tuple(value.shape), value.stride())
            kept.setdefault(key, number[id(value)])
    return list(kept.values())
