"""Pooling, interpolation, padding: what leaves a channel is the channel."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from autoprune.graph.identity import along, carrying_axes, compact, fixed, shrink
from autoprune.graph.rules.call import Call, rule

SPATIAL_AXES = re.compile(r"(\d)d")
"""How many of the last axes an operator works on, in its name."""


@rule(
    *("avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d", "max_pool2d", "max_pool3d"),
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool2d", "lp_pool2d"),
    *("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_bilinear2d", "upsample_bicubic2d"),
    *("upsample_linear1d", "upsample_trilinear3d", "_upsample_bilinear2d_aa", "max_pool2d_with_indices"),
)
def _spatial(call: Call) -> Tensor:
    x = call.activation(call.args[0])
    window = int(SPATIAL_AXES.findall(call.operator)[0])
    if call.mix(x, range(x.dim() - window, x.dim()), f"{call.operator!r} over an axis of channels"):
        return fixed(call.shape)
    return compact(x).expand(call.shape)


@rule("pad", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d")
def _pad(call: Call) -> Tensor:
    x = call.activation(call.args[0])
    widths = list(call.args[1])
    for i in range(len(widths) // 2):
        axis, before, after = x.dim() - 1 - i, widths[2 * i], widths[2 * i + 1]
        if before == after == 0:
            continue
        if axis not in carrying_axes(x):
            # zeros around a channel belong to that channel: they go with it
            slim = x.narrow(axis, 0, 1)
            x = slim.expand([size + before + after if a == axis else size for a, size in enumerate(x.shape)])
            continue
        if before < 0 or after < 0 or call.argument(2, "mode", "constant") != "constant":
            call.ids.pin(x, "padding that crops or mirrors channels")
            return fixed(call.shape)
        x = _widened(call, x, axis, before, after)
    return shrink(x)


def _widened(call: Call, x: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Put places that stay on both sides: the width stands in the code, so they cannot go; those beside them can."""
    left, right = call.ids.fresh(before), call.ids.fresh(after)
    call.ids.pin(torch.cat([left, right]), "tied to a padding of channels whose width stands in the code")
    sides = [
        along(side, axis, [side.numel() if a == axis else n for a, n in enumerate(x.shape)]) for side in (left, right)
    ]
    return torch.cat([sides[0], x, sides[1]], dim=axis)
