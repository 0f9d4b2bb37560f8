"""Operators that move data: they run on the identities themselves, so their index mapping is right by construction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from autoprune.graph.identity import carrying_axes, fixed, shrink
from autoprune.graph.rules.call import WIDTHS, Call, Stored, operands, rule, unknown
from autoprune.graph.rules.pointwise import aligned


@rule(
    "permute", "transpose", "t", "unsqueeze", "movedim", "swapaxes", "mT", "numpy_T", "adjoint", "matrix_H", "squeeze"
)
def _permute(call: Call) -> Any:
    value = call.args[0]
    if not isinstance(value, Stored):
        return run(call)
    # The axes of a stored tensor keep their names: run the operator on a tensor whose strides say which axis is which.
    marker = torch.empty(value.shape, device="meta").as_strided(value.shape, [10**i for i in range(len(value.shape))])
    moved = call.target(marker, *call.args[1:], **call.kwargs)
    by_stride = {10**i: dim for i, dim in enumerate(value.dims)}
    added = call.operator == "unsqueeze"
    position = call.argument(1, "dim") % moved.dim() if added else None
    dims = tuple(None if axis == position else by_stride.get(stride) for axis, stride in enumerate(moved.stride()))
    return replace(value, shape=tuple(moved.shape), dims=dims)


@rule("cat", "concat", "stack")
def _join(call: Call) -> Any:
    """Put tensors side by side: over another axis than that of the channels (class token, time) channels meet."""
    parts = [call.activation(part) for part in call.args[0]]
    dim = call.argument(1, "dim", 0) % len(call.shape)
    axes = {carrying_axes(part) for part in parts}
    if len(axes) == 1 and len(carrying_axes(parts[0])) == 1 and (call.operator == "stack" or (dim,) not in axes):
        axis = carrying_axes(parts[0])[0]
        first = call.ids.unite_all(parts[0], axis, "side by side")
        for part in parts[1:]:
            call.ids.unite(
                first, call.ids.unite_all(part, axis, "side by side"), "side by side with channels that stay"
            )
        parts = [call.ids.canonical(part) for part in parts]
    return shrink(call.target(parts, dim))


@rule("flip", "repeat", "repeat_interleave", "alias", "tile", "lift_fresh")
def run(call: Call) -> Any:
    """Execute the operator on identities."""

    def plain(value: Any) -> Any:
        if isinstance(value, Stored):
            return call.activation(value)
        if isinstance(value, list | tuple):
            return type(value)(plain(item) for item in value)
        return value

    moved = call.target(*[plain(a) for a in call.args], **{k: plain(v) for k, v in call.kwargs.items()})
    if not isinstance(moved, Tensor):
        return [shrink(part) for part in moved]
    return shrink(moved) if tuple(moved.shape) == call.shape else unknown(call)


@rule("expand", "expand_as", "broadcast_to")
def _expand(call: Call) -> Tensor:
    x = call.activation(call.args[0])
    sizes = call.args[1] if isinstance(call.args[1], list | tuple) else [-1] * len(call.shape)
    offset = len(call.shape) - x.dim()
    if any(sizes[axis + offset] != -1 for axis in carrying_axes(x)):
        call.ids.assume(x, "expand to a size that may stand in the code")
    return aligned(x, call.shape)


@rule("slice", "narrow", "select", "unbind", "roll", "index_select")
def _cut(call: Call) -> Any:
    value = call.args[0]
    dims = call.argument(2, "dims") if call.operator == "roll" else call.argument(1, "dim", 0)
    rank = len(value.shape)
    axes = [d % rank for d in (dims if isinstance(dims, list | tuple) else [dims])] or list(range(rank))
    whole = call.operator == "slice" and tuple(call.shape) == tuple(value.shape)
    if isinstance(value, Stored):
        if call.operator != "slice":
            return run(call)
        return value if whole else _part(call, value, axes[0])
    if not whole:
        call.mix(value, axes, f"{call.operator!r} at positions that stand in the code")
    if call.operator == "index_select":
        return (
            value.narrow(axes[0], 0, 1).expand(call.shape) if axes[0] not in carrying_axes(value) else fixed(call.shape)
        )
    return run(call)


def _part(call: Call, value: Stored, axis: int) -> Stored:
    """Return a stretch of a stored tensor (the first T position embeddings): that axis stays, the others keep names."""
    dim = value.dims[axis]
    if dim is not None:
        call.ids.tie(value.name, dim, fixed((value.shape[axis],)), "a slice of a stored tensor")
    return replace(value, shape=call.shape, dims=tuple(None if a == axis else d for a, d in enumerate(value.dims)))


@rule("index")
def _index(call: Call) -> Tensor:
    """Pick places by computed positions: harmless where the places of an axis are all alike."""
    x, positions = call.activation(call.args[0]), list(call.args[1])
    picked = [axis for axis, where in enumerate(positions) if where is not None]
    for where in operands(positions):
        if isinstance(where, Tensor):
            call.ids.pin(where, "'index' by computed positions")
    if call.mix(x, picked, "'index' at computed positions of channels") or not all(
        isinstance(where, Tensor) for where in positions if where is not None
    ):
        return fixed(call.shape)
    first = [None if where is None else torch.zeros(where.shape, dtype=torch.int64) for where in positions]
    out = torch.ops.aten.index.Tensor(x, first)
    return shrink(out) if tuple(out.shape) == call.shape else _unsure(call, x)


@rule("gather", "masked_select", "index_put", "scatter", "copy", "index_copy", "index_add", "scatter_add")
def _computed(call: Call) -> Tensor:
    for value in operands([*call.args, *call.kwargs.values()]):
        if isinstance(value, Stored):
            call.freeze(value, f"{call.operator!r} by computed positions")
        else:
            call.ids.pin(value, f"{call.operator!r} by computed positions")
    return fixed(call.shape)


def _unsure(call: Call, x: Tensor) -> Tensor:
    call.ids.pin(x, f"{call.operator!r} with positions that the graph does not fix")
    return fixed(call.shape)


@rule("chunk", "tensor_split")
def _chunk(call: Call) -> Any:
    x = call.activation(call.args[0])
    count, axis = call.args[1], call.argument(2, "dim", 0) % x.dim()
    if axis in carrying_axes(x):
        if isinstance(count, int) and x.shape[axis] % count == 0:
            _equal_parts(call, x, axis, count)
        else:
            call.ids.pin(x, f"{call.operator!r} into unequal parts")
    return [call.ids.canonical(part) for part in run(call)]


@rule("split", "split_with_sizes", "unsafe_split")
def _split(call: Call) -> Any:
    """Split at sizes: they stand in the code, unless they are an attribute of the module that can follow."""
    x, sizes = call.activation(call.args[0]), call.args[1]
    axis = call.argument(2, "dim", 0) % x.dim()
    if axis in carrying_axes(x):
        each = set(sizes) if isinstance(sizes, list | tuple) else {sizes}
        size = each.pop()
        names = call.size_names(WIDTHS, size)
        if each or x.shape[axis] % size or not names:
            call.ids.pin(x, f"{call.operator!r} at positions that stand in the code")
        else:
            call.tie_sizes(names, _equal_parts(call, x, axis, x.shape[axis] // size))
            call.ids.assume(x, "a split at a size that is an attribute of the module")
    return [call.ids.canonical(part) for part in run(call)]


def _equal_parts(call: Call, x: Tensor, axis: int, count: int) -> Tensor:
    """Unite equal places of equal parts; return the identities of the first part."""
    parts = x.reshape(*x.shape[:axis], count, -1, *x.shape[axis + 1 :])
    return call.ids.unite_all(parts, axis + 1, "equal places of equal chunks")
