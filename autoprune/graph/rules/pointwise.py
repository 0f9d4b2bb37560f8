"""Pointwise operators: what meets at a place lives or dies together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from autoprune.graph.identity import FIXED, carrying_axes, compact, fixed, shrink
from autoprune.graph.rules.call import Call, Stored, has_channels, operands, rule


@rule(
    *("abs", "add", "addcmul", "alpha_dropout", "atan2", "bernoulli", "bitwise_and", "bitwise_not", "bitwise_or"),
    *("celu", "clamp", "clamp_max", "clamp_min", "clone", "contiguous", "cos", "detach", "detach_", "div", "dropout"),
    *("elu", "eq", "erf", "exp", "expm1", "feature_dropout", "fill", "floor", "ge", "gelu", "gt", "hardshrink"),
    *("hardsigmoid", "hardswish", "hardtanh", "le", "leaky_relu", "lerp", "lift_fresh_copy", "log", "log1p"),
    *("log_sigmoid", "logical_and", "logical_not", "logical_or", "logit", "lt", "masked_fill", "maximum", "minimum"),
    *("mish", "mul", "nan_to_num", "ne", "neg", "ones_like", "pow", "rand_like", "randn_like", "reciprocal", "relu"),
    *("relu6", "round", "rsqrt", "rsub", "selu", "sigmoid", "sign", "silu", "sin", "softplus", "softshrink"),
    *("softsign", "sqrt", "square", "sub", "tanh", "tanhshrink", "to", "_to_copy", "type_as", "where", "zeros_like"),
    *("full_like", "isnan", "isinf", "floor_divide", "remainder", "fmod", "threshold", "rrelu", "float_power"),
)
def pointwise(call: Call) -> Tensor:
    """Unite all operands position by position."""
    return meet_all(call, operands([*call.args, *call.kwargs.values()]))


@rule("prelu", "_prelu_kernel")
def _prelu(call: Call) -> Tensor:
    x, slope = call.activation(call.args[0]), call.args[1]
    if isinstance(slope, Stored):
        longest = max(range(len(slope.shape)), key=lambda axis: slope.shape[axis])
        if slope.shape[longest] > 1:
            call.along(slope, longest, call.ids.unite_all(x, 1, "prelu input"))
    else:
        call.ids.pin(x, "a prelu whose slopes are computed, not stored")
    return x


def meet_all(call: Call, values: Sequence[Tensor | Stored]) -> Tensor:
    """Unite operands that broadcast to the call's shape; return the identities of the result."""
    if not any(isinstance(value, Tensor) for value in values):
        values = [call.activation(value) for value in values]
    out, sizes = fixed(call.shape), (1,) * len(call.shape)
    for value in values:
        if isinstance(value, Tensor) and has_channels(value):
            there = (1,) * (len(call.shape) - value.dim()) + tuple(value.shape)
            out = _meet(call, (out, sizes), (aligned(value, call.shape), there))
            sizes = tuple(map(max, sizes, there))
    for value in values:
        if isinstance(value, Stored):
            _tie_bare(call, value, out)
        elif not has_channels(value):
            _check_data(call, out, value)
    return shrink(out)


def aligned(value: Tensor, shape: Sequence[int]) -> Tensor:
    """Broadcast identities to ``shape``, right-aligned."""
    return value.reshape((1,) * (len(shape) - value.dim()) + tuple(value.shape)).expand(tuple(shape))


@rule("new_zeros", "new_ones", "new_full", "new_empty", "empty_like", "_assert_tensor_metadata", "_assert_scalar")
@rule("_assert_async", "sym_size", "sym_constrain_range_for_size", "arange", "full", "zeros", "ones", "item")
def _no_data(call: Call) -> Tensor:
    """Read nothing but shape or type of what enters."""
    return fixed(call.shape)


Operand = tuple[Tensor, tuple[int, ...]]
"""Identities in the shape of the result, and the shape before they were broadcast."""


def _meet(call: Call, one: Operand, two: Operand) -> Tensor:
    """Unite two operands position by position and return the identities of the result."""
    out, other = one[0], two[0]
    if not has_channels(out):
        return other
    here, there = set(carrying_axes(out)), set(carrying_axes(other))
    for mine, axes, (single, shape) in ((out, here, two), (other, there, one)):
        # alike along an axis of more than one place is no broadcast: those places are taken from one class
        if axes and not carrying_axes(single) and all(shape[axis] == 1 for axis in axes):
            call.ids.pin(single, f"one channel is broadcast over others in {call.operator!r}")
            return mine
    if here and there and here.isdisjoint(there):
        call.ids.pin(out, f"outer product in {call.operator!r}")
        call.ids.pin(other, f"outer product in {call.operator!r}")
        return fixed(out.shape)
    call.ids.unite(out, other, f"tied by {call.operator!r} to channels that stay")
    slim, filled = compact(out, other), compact(other, out)
    return call.ids.canonical(torch.where(slim != FIXED, slim, filled).expand(out.shape))


def _check_data(call: Call, out: Tensor, operand: Tensor) -> None:
    """Pin channels that meet data which is no channel, unless that data is the same for all of them."""
    axes = carrying_axes(out) or (tuple(range(out.dim())) if has_channels(out) else ())
    offset = out.dim() - operand.dim()
    if any(axis >= offset and operand.shape[axis - offset] > 1 for axis in axes):
        call.ids.pin(out, f"{call.operator!r} with data that is no channel (the network's input, a constant)")


def _tie_bare(call: Call, stored: Stored, out: Tensor) -> None:
    """Tie a bare parameter along the one axis on which channels stand."""
    offset = out.dim() - len(stored.shape)
    carrying = carrying_axes(out)
    varying = [axis for axis in carrying if axis >= offset and stored.shape[axis - offset] > 1]
    if varying and len(carrying) == 1:
        axis = varying[0]
        call.along(stored, axis - offset, call.ids.unite_all(out, axis, "bare parameter"))
    elif varying or (has_channels(out) and not carrying and max(stored.shape, default=1) > 1):
        call.ids.pin(out, f"{call.operator!r} with parameter {stored.name!r} over several axes of channels")
