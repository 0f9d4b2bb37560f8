"""Views: which factor of a split dimension may shrink, and what a written size forbids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from autoprune.graph.identity import carrying_axes, shrink
from autoprune.graph.rules.call import HEAD_COUNTS, WIDTHS, Call, Stored, rule
from autoprune.graph.rules.movement import run

SPLIT = "split by a view"
"""Mark of channels that a view has split into factors, such as heads."""


@rule("flatten")
def _flatten(call: Call) -> Tensor:
    return shrink(call.activation(call.args[0]).reshape(call.shape))


@rule("view", "reshape", "unflatten", "_unsafe_view", "view_as", "reshape_as")
def _reshape(call: Call) -> Tensor | Stored:
    value = call.args[0]
    if isinstance(value, Stored):
        renamed = _stored_view(value, call.shape)
        if renamed is not None:
            return renamed
    x = call.activation(value)
    written = _written_shape(call, x)
    for inputs, outputs in blocks(x.shape, call.shape):
        if any(axis in carrying_axes(x) for axis in inputs):
            _one_block(call, x, inputs, outputs, written)
    return call.ids.canonical(x.reshape(call.shape))


def _stored_view(value: Stored, shape: tuple[int, ...]) -> Stored | None:
    """Return the view of a stored tensor that only adds or drops axes of size 1, else None."""
    long = [(size, dim) for size, dim in zip(value.shape, value.dims, strict=True) if size > 1]
    if [size for size, _ in long] != [size for size in shape if size > 1]:
        return None
    dims = iter([dim for _, dim in long])
    return replace(value, shape=shape, dims=tuple(next(dims) if size > 1 else None for size in shape))


def _one_block(call: Call, x: Tensor, inputs: list[int], outputs: list[int], written: list[int]) -> None:
    """Tie one run of axes of a view whose input carries channels."""
    long_inputs = [axis for axis in inputs if x.shape[axis] > 1]
    long_outputs = [axis for axis in outputs if call.shape[axis] > 1]
    if len(long_outputs) == 1:
        _merged(call, x, long_outputs[0], written)
    elif len(long_inputs) == 1:
        _divided(call, x, long_inputs[0], long_outputs, written)
    else:
        call.ids.pin(x, "a view that deals channels out over several axes")


def _merged(call: Call, x: Tensor, axis: int, written: list[int]) -> None:
    if written[axis] != -1:
        call.ids.assume(x, "a view whose size may stand in the code")
    ids = x.reshape(call.shape)
    names = call.size_names(WIDTHS, call.shape[axis])
    if names and carrying_axes(ids) == (axis,):
        call.tie_sizes(names, call.ids.unite_all(ids, axis, "a view"))


def _divided(call: Call, x: Tensor, axis: int, factors: list[int], written: list[int]) -> None:
    """Choose the factor that shrinks and unite its places over the other factors."""
    ids = x.reshape(call.shape)
    carrying = [factor for factor in factors if factor in carrying_axes(shrink(ids))]
    free = [factor for factor in factors if written[factor] == -1]
    counted = _counted(call, factors)
    if len(carrying) == 1:
        # the places of the other factors are alike already (heads merged with the batch, then taken apart again)
        shrinks = carrying[0]
        if free != carrying:
            call.ids.assume(x, "a view whose size may stand in the code")
    elif not free and not counted:
        call.ids.pin(x, "a view that splits channels into numbers that stand in the code")
        return
    else:
        call.found.choices |= bool(free and counted and free != counted)
        first, second = (counted, free) if call.found.prefer == "heads" else (free, counted)
        shrinks = (first or second)[0]
        if shrinks not in free:
            call.ids.assume(x, "a view by a number that is an attribute of the module")
    places = call.ids.unite_all(ids, shrinks, "a view that splits channels")
    call.ids.mark(places, SPLIT)
    call.tie_sizes(call.size_names(HEAD_COUNTS, call.shape[shrinks]) if [shrinks] == counted else [], places)
    widths = call.size_names(WIDTHS, x.shape[axis])
    if widths and carrying_axes(x) == (axis,):
        call.tie_sizes(widths, call.ids.unite_all(x, axis, "a view"))


def _counted(call: Call, factors: list[int]) -> list[int]:
    """Return the factor that the module counts as heads, if any.

    Sizes may coincide: with 3 heads (3 parts, 3 heads, width), with as many heads as a head is wide (heads, width). The
    width comes last, and the heads just before it or with parts between that are never named as heads.
    """
    found = [factor for factor in factors if call.size_names(HEAD_COUNTS, call.shape[factor])]
    if len(found) > 1 and found[-1] == factors[-1]:
        found.pop()
    return found[-1:]


def _written_shape(call: Call, x: Tensor) -> list[int]:
    """Return the shape as the code writes it: -1 where it may adapt, else the number."""
    if call.operator in {"view_as", "reshape_as"}:
        return [-1] * len(call.shape)
    if call.operator == "unflatten":
        dim = call.args[1] % x.dim()
        return [*[-1] * dim, *call.args[2], *[-1] * (x.dim() - dim - 1)]
    return list(call.args[1]) if isinstance(call.args[1], list | tuple) else [-1] * len(call.shape)


def blocks(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Split a reshape into the smallest runs of axes with equal products: [(input axes, output axes), ...]."""
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        inputs: list[int] = []
        outputs: list[int] = []
        left = right = 1
        while left != right or not (inputs or outputs):
            if (left <= right and i < len(before)) or j == len(after):
                inputs.append(i)
                left, i = left * before[i], i + 1
            else:
                outputs.append(j)
                right, j = right * after[j], j + 1
        found.append((inputs, outputs))
    return found


@rule("pixel_shuffle", "channel_shuffle", "pixel_unshuffle")
def _shuffle(call: Call) -> Tensor:
    out = run(call)
    assert isinstance(out, Tensor)
    if call.operator == "pixel_shuffle":
        call.ids.unite_all(out, out.dim() - 3, "pixel shuffle")
        out = call.ids.canonical(out)
    else:
        call.ids.pin(out, f"{call.operator!r} needs its channel count")
    return out
