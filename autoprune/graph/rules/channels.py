"""Operators that make channels: convolutions, linear layers, embeddings."""

from __future__ import annotations

from torch import Tensor

from autoprune.graph.identity import along, carrying_axes
from autoprune.graph.rules.call import Call, Stored, rule, unknown


@rule("conv1d", "conv2d", "conv3d")
def _convolution(call: Call) -> Tensor:
    x, weight, bias = call.activation(call.args[0]), call.args[1], call.argument(2, "bias")
    if not isinstance(weight, Stored):
        return unknown(call)
    groups = call.argument(6, "groups", 1)
    channel = x.dim() - (len(weight.shape) - 2) - 1
    entering = entering_channels(call, x, channel)
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


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _transposed_convolution(call: Call) -> Tensor:
    x, weight, bias = call.activation(call.args[0]), call.args[1], call.argument(2, "bias")
    if not isinstance(weight, Stored) or call.argument(6, "groups", 1) != 1:
        return unknown(call)
    channel = x.dim() - (len(weight.shape) - 2) - 1
    call.consume(weight, 0, entering_channels(call, x, channel))
    leaving = call.produce(weight, 1, call.ids.fresh(weight.shape[1]), bias)
    return along(leaving, channel, call.shape)


@rule("linear")
def _linear(call: Call) -> Tensor:
    x, weight, bias = call.activation(call.args[0]), call.args[1], call.argument(2, "bias")
    if not isinstance(weight, Stored) or len(weight.shape) != 2:
        return unknown(call)
    return dense(call, x, weight, 1, bias)


def dense(call: Call, x: Tensor, weight: Stored, reads: int, bias: Stored | Tensor | None) -> Tensor:
    """Multiply the last axis of ``x`` by a stored matrix whose axis ``reads`` is the input."""
    call.consume(weight, reads, entering_channels(call, x, x.dim() - 1))
    leaving = call.produce(weight, 1 - reads, call.ids.fresh(weight.shape[1 - reads]), bias)
    return along(leaving, len(call.shape) - 1, call.shape)


def entering_channels(call: Call, x: Tensor, axis: int) -> Tensor:
    """Return the one identity for each place of the axis that a layer reads, shape (x.shape[axis],).

    A layer over another axis than that of the channels (token mixing, a convolution along channels) leaves channels
    alone but makes outputs of its own; identities can follow one of the two, and the new ones are those of a layer.
    """
    others = [other for other in carrying_axes(x) if other != axis]
    if call.mix(x, others, f"{call.operator} over another axis than that of the channels"):
        return x.movedim(axis, 0).reshape(x.shape[axis], -1)[:, 0]
    return call.ids.unite_all(x, axis, "one channel at all places")


@rule("embedding")
def _embedding(call: Call) -> Tensor:
    weight = call.args[0]
    if not isinstance(weight, Stored):
        return unknown(call)
    leaving = call.produce(weight, 1, call.ids.fresh(weight.shape[1]), None)
    return along(leaving, len(call.shape) - 1, call.shape)
