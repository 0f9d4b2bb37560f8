"""Blocks of the 2-D weight (out, inner), ``block:RxC``."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from autoprune.graph.groups import Layer
from autoprune.pruning.granularity.shape import Granularity, Size, elements, partition, size_of


def block_granularity(key: str) -> Granularity:
    """Return the granularity of a key ``block:RxC``.

    Blocks tile the weight from its first row and column. Rows and columns left over make no whole block and stay: a
    block-sparse kernel cannot skip them.

    Raises:
        ValueError: Not of the form block:RxC with R, C > 0 and more than one weight.
    """
    rows, columns = _sides(key)

    def units(size: Size) -> Tensor:
        inner = prod(size[1:])
        down, across = size[0] // rows, inner // columns
        labels = torch.full((size[0], inner), -1)
        whole = torch.arange(down * across).reshape(down, across)
        whole = whole.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
        labels[: down * rows, : across * columns] = whole
        return labels.reshape(size)

    def refusal(layer: Layer) -> str:
        size = size_of(layer)
        inner = prod(size[1:])
        if rows <= size[0] and columns <= inner:
            return ""
        return f"{key} is larger than the 2-D weight of layer {layer.name!r}, which is {size[0]}x{inner}"

    return partition(
        key,
        f"a block of {rows} outputs x {columns} inputs (im2col order)",
        units,
        refusal,
        lambda size: ((size[0] // rows) * (elements(size[1:]) // columns), rows * columns),
    )


def _sides(key: str) -> tuple[int, int]:
    family, _, sides = key.partition(":")
    rows, _, columns = sides.partition("x")
    if family == "block" and rows.isdecimal() and columns.isdecimal() and int(rows) * int(columns) > 1:
        return int(rows), int(columns)
    raise ValueError(f"{key!r} is no block; write block:ROWSxCOLUMNS with more than one weight, as block:16x16")
