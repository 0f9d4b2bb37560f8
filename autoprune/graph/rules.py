"""How each ATen operator carries, ties or pins channel identities.

A rule takes the call and returns the identities of its output. Whatever merely moves data runs on the identities
themselves. An operator without a rule pins everything that enters it: the worst case is a channel that could have gone
and stays, never a wrong network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from autoprune.graph.identity import (
    FIXED,
    Identities,
    along,
    carrying_axes,
    compact,
    fixed,
    shrink,
)


@dataclass(frozen=True)
class Stored:
    """A parameter or buffer as an operand: its axes are tied by name.

    Attributes:
        name: Qualified name.
        shape: Its shape.
    """

    name: str
    shape: tuple[int, ...]


@dataclass
class Call:
    """One operator call with identities in the place of activations.

    Attributes:
        ids: The union-find.
        operator: Operator name without overload and without the underscore of in-place variants ("conv2d").
        target: The callable behind it.
        args: Positional arguments; activations are identity tensors, parameters and buffers :class:`Stored`.
        kwargs: Keyword arguments, likewise.
        shape: Shape of the (first) output.
        norm_scales: Names of batch-norm scales met on the way; rules add to it.
        producers: Axes (tensor, dim) that make channels; rules add to it.
        consumers: Axes (tensor, dim) that read channels; rules add to it.
    """

    ids: Identities
    operator: str
    target: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    shape: tuple[int, ...]
    norm_scales: set[str] = field(default_factory=set)
    producers: dict[tuple[str, int], None] = field(default_factory=dict)
    consumers: dict[tuple[str, int], None] = field(default_factory=dict)

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument given by position or by name."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    def consume(self, weight: Stored, dim: int, ids: Tensor) -> None:
        """Tie the input axis of a weight to the channels that it reads."""
        self.ids.tie(weight.name, dim, ids, "shared weights")
        self.consumers.setdefault((weight.name, dim))

    def produce(self, weight: Stored, dim: int, ids: Tensor, bias: Any) -> Tensor:
        """Tie the output axis of a weight and its bias to ``ids``; return the identities of that axis."""
        out = self.ids.tie(weight.name, dim, ids, "shared weights")
        self.producers.setdefault((weight.name, dim))
        if isinstance(bias, Stored):
            self.ids.tie(bias.name, 0, out, "shared bias")
        elif isinstance(bias, Tensor):
            self.ids.pin(out, "a bias that is computed, not stored")
        return out


Rule = Callable[[Call], Any]
RULES: dict[str, Rule] = {}


def _rule(*operators: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        for operator in operators:
            RULES[operator] = rule
        return rule

    return register


def apply_rule(call: Call) -> Any:
    """Return the identities of a call's output, by its operator's rule or by the rule for unknown operators."""
    return RULES.get(call.operator, _unknown)(call)


def _unknown(call: Call) -> Tensor:
    reason = f"operator {call.operator!r} has no rule"
    for value in _operands([*call.args, *call.kwargs.values()]):
        if isinstance(value, Stored):
            _freeze(call.ids, value, reason)
        else:
            call.ids.pin(value, reason)
    return fixed(call.shape)


def _operands(values: Sequence[Any]) -> list[Tensor | Stored]:
    found: list[Tensor | Stored] = []
    for value in values:
        if isinstance(value, Tensor | Stored):
            found.append(value)
        elif isinstance(value, list | tuple):
            found.extend(_operands(value))
    return found


def _freeze(ids: Identities, stored: Stored, reason: str) -> None:
    for dim, size in enumerate(stored.shape):
        ids.tie(stored.name, dim, fixed((size,)), reason)


def _activation(call: Call, value: Any, reason: str) -> Tensor:
    """Return an operand as identities; a stored tensor where an activation is expected cannot shrink."""
    if isinstance(value, Stored):
        _freeze(call.ids, value, reason)
        return fixed(value.shape)
    assert isinstance(value, Tensor)
    return value


# ---------------------------------------------------------------- operators that make channels


@_rule("conv1d", "conv2d", "conv3d")
def _convolution(call: Call) -> Tensor:
    x, weight, bias = (
        _activation(call, call.args[0], "a stored tensor as input"),
        call.args[1],
        call.argument(2, "bias"),
    )
    if not isinstance(weight, Stored):
        return _unknown(call)
    groups = call.argument(6, "groups", 1)
    channel = x.dim() - (len(weight.shape) - 2) - 1
    entering = call.ids.unite_all(x, channel, "convolution input")
    outputs, inner = weight.shape[:2]
    if groups == 1:
        call.consume(weight, 1, entering)
        leaving = call.produce(weight, 0, call.ids.fresh(outputs), bias)
    elif inner == 1:  # depthwise, with outputs // groups filters a channel: what enters leaves
        leaving = call.produce(weight, 0, entering.repeat_interleave(outputs // groups), bias)
    else:  # every group loses the same local channels, so that all groups stay alike
        local = call.ids.unite_all(entering.reshape(groups, inner), 1, "groups of a convolution")
        call.consume(weight, 1, local)
        leaving = call.produce(weight, 0, call.ids.fresh(outputs // groups).repeat(groups), bias)
    return along(leaving, channel, call.shape)


@_rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _transposed_convolution(call: Call) -> Tensor:
    x, weight, bias = (
        _activation(call, call.args[0], "a stored tensor as input"),
        call.args[1],
        call.argument(2, "bias"),
    )
    groups = call.argument(6, "groups", 1)
    if not isinstance(weight, Stored) or groups != 1:
        return _unknown(call)
    channel = x.dim() - (len(weight.shape) - 2) - 1
    call.consume(weight, 0, call.ids.unite_all(x, channel, "convolution input"))
    leaving = call.produce(weight, 1, call.ids.fresh(weight.shape[1]), bias)
    return along(leaving, channel, call.shape)


@_rule("linear")
def _linear(call: Call) -> Tensor:
    x, weight, bias = (
        _activation(call, call.args[0], "a stored tensor as input"),
        call.args[1],
        call.argument(2, "bias"),
    )
    if not isinstance(weight, Stored):
        return _unknown(call)
    call.consume(weight, 1, call.ids.unite_all(x, x.dim() - 1, "linear input"))
    leaving = call.produce(weight, 0, call.ids.fresh(weight.shape[0]), bias)
    return along(leaving, len(call.shape) - 1, call.shape)


@_rule("embedding")
def _embedding(call: Call) -> Tensor:
    weight = call.args[0]
    if not isinstance(weight, Stored):
        return _unknown(call)
    leaving = call.produce(weight, 1, call.ids.fresh(weight.shape[1]), None)
    return along(leaving, len(call.shape) - 1, call.shape)


# ---------------------------------------------------------------- normalisation and reduction


@_rule("batch_norm", "instance_norm")
def _batch_norm(call: Call) -> Tensor:
    x = _activation(call, call.args[0], "a stored tensor as input")
    channels = call.ids.unite_all(x, 1, "batch norm input")
    for stored in call.args[1:5]:
        if isinstance(stored, Stored):
            call.ids.tie(stored.name, 0, channels, "shared batch norm")
    if isinstance(call.args[1], Stored):
        call.norm_scales.add(call.args[1].name)
    return along(channels, 1, call.shape)


@_rule("layer_norm", "rms_norm")
def _layer_norm(call: Call) -> Tensor:
    x = _activation(call, call.args[0], "a stored tensor as input")
    mixed = range(x.dim() - len(call.args[1]), x.dim())
    _mix(call, x, mixed, f"{call.operator} mixes the channels it normalises")
    return x


@_rule("softmax", "log_softmax")
def _softmax(call: Call) -> Tensor:
    x = _activation(call, call.args[0], "a stored tensor as input")
    _mix(call, x, [call.args[1] % x.dim()], f"{call.operator} over channels")
    return x


@_rule("mean", "sum", "amax", "amin", "argmax", "argmin", "var", "std", "prod", "norm", "logsumexp", "any", "all")
def _reduce(call: Call) -> Tensor:
    x = _activation(call, call.args[0], "a stored tensor as input")
    dims = call.argument(1, "dim")
    if isinstance(dims, int):
        dims = [dims]
    over = sorted({d % x.dim() for d in dims}) if isinstance(dims, list | tuple) and dims else list(range(x.dim()))
    _mix(call, x, over, f"{call.operator} over channels")
    for axis in over:
        x = x.narrow(axis, 0, 1)
    if len(call.shape) != x.dim():
        x = x.reshape([size for axis, size in enumerate(x.shape) if axis not in over])
    return shrink(x)


def _mix(call: Call, x: Tensor, axes: Sequence[int], reason: str) -> None:
    if any(axis in carrying_axes(x) for axis in axes):
        call.ids.pin(x, reason)


# ---------------------------------------------------------------- pointwise


@_rule(
    *("abs", "add", "addcmul", "atan2", "bernoulli", "bitwise_and", "bitwise_not", "bitwise_or", "celu", "clamp"),
    *(
        "clamp_max",
        "clamp_min",
        "clone",
        "contiguous",
        "cos",
        "detach",
        "detach_",
        "div",
        "dropout",
        "elu",
        "eq",
        "erf",
    ),
    *("exp", "expm1", "feature_dropout", "fill", "floor", "ge", "gelu", "gt", "hardsigmoid", "hardswish", "hardtanh"),
    *("le", "leaky_relu", "lerp", "log", "log1p", "log_sigmoid", "logical_and", "logical_not", "logical_or", "lt"),
    *("masked_fill", "maximum", "minimum", "mish", "mul", "ne", "neg", "pow", "prelu_kernel", "reciprocal", "relu"),
    *("relu6", "round", "rsqrt", "rsub", "selu", "sigmoid", "sign", "silu", "sin", "softplus", "sqrt", "square", "sub"),
    *("tanh", "to", "_to_copy", "type_as", "where", "zeros_like", "ones_like", "alpha_dropout", "lift_fresh_copy"),
    *("hardshrink", "softshrink", "tanhshrink", "softsign", "logit", "nan_to_num", "rand_like", "randn_like"),
)
def _pointwise(call: Call) -> Tensor:
    operands = _operands([*call.args, *call.kwargs.values()])
    out = fixed(call.shape)
    data = []
    for operand in operands:
        if isinstance(operand, Tensor):
            if bool((compact(operand) != FIXED).any()):
                out = _meet(call, out, _aligned(operand, call.shape))
            else:
                data.append(operand)
    for operand in data:
        _check_data(call, out, operand)
    for operand in operands:
        if isinstance(operand, Stored):
            _tie_bare(call, operand, out)
    return shrink(out)


@_rule("prelu", "_prelu_kernel")
def _prelu(call: Call) -> Tensor:
    x, slope = _activation(call, call.args[0], "a stored tensor as input"), call.args[1]
    if isinstance(slope, Stored) and math.prod(slope.shape) > 1:
        dim = max(range(len(slope.shape)), key=lambda d: slope.shape[d])
        call.ids.tie(slope.name, dim, call.ids.unite_all(x, 1, "prelu input"), "shared slope")
    return x


def _aligned(operand: Tensor, shape: Sequence[int]) -> Tensor:
    return operand.reshape((1,) * (len(shape) - operand.dim()) + tuple(operand.shape)).expand(tuple(shape))


def _meet(call: Call, out: Tensor, other: Tensor) -> Tensor:
    """Unite two operands of the same shape position by position and return the identities of the result."""
    if not bool((compact(out) != FIXED).any()):
        return other
    varies_here, varies_there = set(carrying_axes(out)), set(carrying_axes(other))
    if varies_here and not varies_there:
        call.ids.pin(other, f"one channel is broadcast over others in {call.operator!r}")
        return out
    if varies_there and not varies_here:
        call.ids.pin(out, f"one channel is broadcast over others in {call.operator!r}")
        return other
    if varies_here and varies_here.isdisjoint(varies_there):
        call.ids.pin(out, f"outer product in {call.operator!r}")
        call.ids.pin(other, f"outer product in {call.operator!r}")
        return fixed(out.shape)
    call.ids.unite(out, other, f"tied by {call.operator!r} to channels that stay")
    return torch.where(out != FIXED, out, other) if bool((out == FIXED).any()) else out


def _check_data(call: Call, out: Tensor, operand: Tensor) -> None:
    """Pin channels that meet data which is no channel, unless that data is the same for all of them."""
    axes = carrying_axes(out) or tuple(range(out.dim()))
    offset = out.dim() - operand.dim()
    if operand.numel() > 1 and any(axis >= offset and operand.shape[axis - offset] > 1 for axis in axes):
        call.ids.pin(out, f"{call.operator!r} with data that is no channel (the network's input, a constant)")


def _tie_bare(call: Call, stored: Stored, out: Tensor) -> None:
    """Tie a bare parameter in a pointwise operator along the one axis on which channels stand."""
    offset = out.dim() - len(stored.shape)
    varying = [axis for axis in carrying_axes(out) if axis >= offset and stored.shape[axis - offset] > 1]
    if not varying:
        return
    if len(carrying_axes(out)) == 1:
        axis = varying[0]
        call.ids.tie(stored.name, axis - offset, call.ids.unite_all(out, axis, "bare parameter"), "shared parameter")
    else:
        call.ids.pin(out, f"{call.operator!r} with parameter {stored.name!r} over several axes of channels")


# ---------------------------------------------------------------- space: what leaves a channel is the channel


@_rule(
    *("avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d", "max_pool2d", "max_pool3d"),
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool2d", "lp_pool2d"),
    *("upsample_nearest1d", "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_linear1d"),
    *("max_pool2d_with_indices",),
)
def _spatial(call: Call) -> Tensor:
    x = _activation(call, call.args[0], "a stored tensor as input")
    same = x.dim() == len(call.shape)
    resized = [axis for axis in range(x.dim()) if same and x.shape[axis] != call.shape[axis]]
    window = range(2, x.dim()) if same and x.dim() > 2 else range(x.dim())
    if any(axis in carrying_axes(x) for axis in {*resized, *window}):
        call.ids.pin(x, f"{call.operator!r} over an axis of channels")
        return fixed(call.shape)
    return compact(x).expand(call.shape)


@_rule("pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d")
def _pad(call: Call) -> Tensor:
    x = _activation(call, call.args[0], "a stored tensor as input")
    widths = list(call.args[1])
    for i in range(len(widths) // 2):
        axis, before, after = x.dim() - 1 - i, widths[2 * i], widths[2 * i + 1]
        if axis not in carrying_axes(x):
            # zeros around a channel belong to that channel: they go with it
            slim = x.narrow(axis, 0, 1)
            x = slim.expand([size + before + after if a == axis else size for a, size in enumerate(x.shape)])
            continue
        if before < 0 or after < 0 or (len(call.args) > 2 and call.args[2] != "constant"):
            call.ids.pin(x, "padding that crops or mirrors channels")
        # the width stands in the code: these places cannot go, those beside them can
        left, right = call.ids.fresh(max(before, 0)), call.ids.fresh(max(after, 0))
        call.ids.pin(torch.cat([left, right]), "tied to a padding of channels whose width stands in the code")
        sides = [
            along(side, axis, [side.numel() if a == axis else n for a, n in enumerate(x.shape)])
            for side in (left, right)
        ]
        x = torch.cat([sides[0], x, sides[1]], dim=axis)
    return shrink(x if x.shape == call.shape else fixed(call.shape))


# ---------------------------------------------------------------- data that moves: run on the identities


@_rule(
    *("permute", "transpose", "t", "flip", "unsqueeze", "repeat", "repeat_interleave", "stack", "cat", "alias"),
    *("movedim", "swapaxes", "mT", "concat", "tile", "numpy_T", "adjoint", "lift_fresh"),
)
def _move(call: Call) -> Any:
    return _run(call)


@_rule("squeeze")
def _squeeze(call: Call) -> Tensor:
    x = _activation(call, call.args[0], "a stored tensor as input")
    return x.reshape(call.shape) if 1 not in call.shape else _run(call)


def _run(call: Call) -> Any:
    def plain(value: Any) -> Any:
        if isinstance(value, Stored):
            return _activation(call, value, f"{call.operator!r} of a stored tensor")
        if isinstance(value, list | tuple):
            return type(value)(plain(item) for item in value)
        return value

    moved = call.target(*[plain(a) for a in call.args], **{k: plain(v) for k, v in call.kwargs.items()})
    return shrink(moved) if isinstance(moved, Tensor) else [shrink(part) for part in moved]


@_rule("expand", "expand_as", "broadcast_to")
def _expand(call: Call) -> Tensor:
    x = _activation(call, call.args[0], "expand of a stored tensor")
    if carrying_axes(x):
        call.ids.assume(x, "expand to a size that may stand in the code")
    return _aligned(x, call.shape)


@_rule("slice", "narrow", "select", "unbind", "split", "split_with_sizes", "index", "index_select", "roll", "gather")
def _cut(call: Call) -> Any:
    x = _activation(call, call.args[0], f"{call.operator!r} of a stored tensor")
    if call.operator in {"index", "index_select", "gather"}:
        axes: list[int] = list(range(x.dim()))
    elif call.operator in {"split", "split_with_sizes"}:
        axes = [call.argument(2, "dim", 0) % x.dim()]
    elif call.operator == "roll":
        axes = [d % x.dim() for d in call.argument(2, "dims", [])] or list(range(x.dim()))
    else:
        axes = [call.argument(1, "dim", 0) % x.dim()]
    whole = call.operator == "slice" and tuple(call.shape) == tuple(x.shape)
    if not whole and any(axis in carrying_axes(x) for axis in axes):
        call.ids.pin(x, f"{call.operator!r} at positions that stand in the code")
    if call.operator in {"index", "gather"}:
        for other in _operands(call.args[1:]):
            if isinstance(other, Tensor):
                call.ids.pin(other, f"{call.operator!r} by computed positions")
        return fixed(call.shape)
    return _run(call)


@_rule("chunk", "tensor_split")
def _chunk(call: Call) -> Any:
    x = _activation(call, call.args[0], "chunk of a stored tensor")
    count, axis = call.args[1], call.argument(2, "dim", 0) % x.dim()
    if axis in carrying_axes(x):
        if isinstance(count, int) and x.shape[axis] % count == 0:
            parts = x.reshape(*x.shape[:axis], count, -1, *x.shape[axis + 1 :])
            flat = call.ids.unite_all(parts.movedim(axis, -1), axis, "equal places of equal chunks")
            assert flat.numel() == x.shape[axis] // count
        else:
            call.ids.pin(x, f"{call.operator!r} into unequal parts")
    return _run(call)


@_rule("pixel_shuffle", "channel_shuffle", "pixel_unshuffle")
def _shuffle(call: Call) -> Tensor:
    out = _run(call)
    if call.operator == "pixel_shuffle":
        call.ids.unite_all(out, out.dim() - 3, "pixel shuffle")
    else:
        call.ids.pin(out, f"{call.operator!r} needs its channel count")
    assert isinstance(out, Tensor)
    return out


@_rule("flatten")
def _flatten(call: Call) -> Tensor:
    x = _activation(call, call.args[0], "flatten of a stored tensor")
    return shrink(x.reshape(call.shape))


@_rule("view", "reshape", "unflatten", "_unsafe_view", "view_as", "reshape_as")
def _reshape(call: Call) -> Tensor:
    x = _activation(call, call.args[0], "view of a stored tensor")
    written = _written_shape(call, x)
    carrying = carrying_axes(x)
    for inputs, outputs in _blocks(x.shape, call.shape):
        if not any(axis in carrying for axis in inputs):
            continue
        long_outputs = [axis for axis in outputs if call.shape[axis] > 1]
        long_inputs = [axis for axis in inputs if x.shape[axis] > 1]
        free = [axis for axis in outputs if written[axis] == -1]
        if len(long_outputs) == 1:
            if free != long_outputs:
                call.ids.assume(x, "a view whose size may stand in the code")
        elif len(long_inputs) == 1 and len(free) == 1:
            split = x.movedim(long_inputs[0], -1)
            split = split.reshape(*split.shape[:-1], *[call.shape[axis] for axis in long_outputs])
            call.ids.unite_all(
                split, split.dim() - len(long_outputs) + long_outputs.index(free[0]), "a view that splits channels"
            )
        else:
            call.ids.pin(x, "a view that splits channels into numbers that stand in the code")
    return shrink(x.reshape(call.shape))


def _written_shape(call: Call, x: Tensor) -> list[int]:
    """Return the shape as the code writes it: -1 where it may adapt, else the number."""
    if call.operator in {"view_as", "reshape_as"}:
        return [-1] * len(call.shape)
    if call.operator == "unflatten":
        dim = call.args[1] % x.dim()
        sizes = list(call.args[2])
        return [*[-1] * dim, *sizes, *[-1] * (x.dim() - dim - 1)]
    return list(call.args[1]) if isinstance(call.args[1], list | tuple) else [-1] * len(call.shape)


def _blocks(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Split a reshape into the smallest runs of axes with equal products: [(input axes, output axes), ...]."""
    blocks: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        inputs, outputs = [], []
        left = right = 1
        if i < len(before):
            inputs.append(i)
            left, i = before[i], i + 1
        if j < len(after):
            outputs.append(j)
            right, j = after[j], j + 1
        while left != right or (not inputs and i < len(before)) or (not outputs and j < len(after)):
            if (left < right and i < len(before)) or (not inputs and i < len(before)):
                inputs.append(i)
                left, i = left * before[i], i + 1
            elif j < len(after):
                outputs.append(j)
                right, j = right * after[j], j + 1
            else:
                break
        blocks.append((inputs, outputs))
    return blocks
