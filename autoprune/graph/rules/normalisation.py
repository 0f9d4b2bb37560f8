"""Norms and reductions: a batch norm goes with its channels; what is computed over channels makes them stay."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from autoprune.graph.identity import along, fixed, shrink
from autoprune.graph.rules.call import Call, Stored, rule, unknown
from autoprune.graph.rules.channels import entering_channels
from autoprune.graph.rules.pointwise import pointwise


@rule("batch_norm", "instance_norm")
def _batch_norm(call: Call) -> Tensor:
    channels = entering_channels(call, call.activation(call.args[0]), 1)
    for operand in call.args[1:5]:
        if isinstance(operand, Stored):
            call.along(operand, 0, channels)
        elif isinstance(operand, Tensor):
            call.ids.pin(channels, "a batch norm whose numbers are computed, not stored")
    if isinstance(call.args[1], Stored):
        call.found.norm_scales.add(call.args[1].name)
    return along(channels, 1, call.shape)


@rule("layer_norm", "rms_norm")
def _layer_norm(call: Call) -> Tensor:
    x = call.activation(call.args[0])
    mixed = range(x.dim() - len(call.args[1]), x.dim())
    call.mix(x, mixed, f"{call.operator} mixes the channels it normalises")
    return x


@rule("group_norm", "native_group_norm")
def _group_norm(call: Call) -> Tensor:
    x = call.activation(call.args[0])
    call.mix(x, range(1, x.dim()), "group_norm mixes the channels it normalises")
    return x


@rule("softmax", "log_softmax", "_softmax", "_log_softmax", "cumsum", "cumprod", "logcumsumexp", "_safe_softmax")
def _along_axis(call: Call) -> Tensor:
    x = call.activation(call.args[0])
    call.mix(x, [call.argument(1, "dim") % max(x.dim(), 1)], f"{call.operator} over channels")
    return x


@rule("sort", "topk", "cummax", "cummin")
def _ranked(call: Call) -> list[Tensor]:
    position = {"topk": 2}.get(call.operator, 1)
    x, dim = call.activation(call.args[0]), call.argument(position, "dim", -1)
    if call.mix(x, [dim % x.dim()], f"{call.operator} over channels"):
        return [fixed(call.shape), fixed(call.shape)]
    out = x.narrow(dim, 0, 1).expand(call.shape)
    return [out, out]


@rule("mean", "sum", "amax", "amin", "argmax", "argmin", "var", "std", "prod", "norm", "logsumexp", "any", "all")
@rule("linalg_vector_norm")
def _reduce(call: Call) -> Any:
    x = call.activation(call.args[0])
    position = {"norm": 2, "linalg_vector_norm": 2}.get(call.operator, 1)
    dims: Any = call.argument(position, "dim")
    if isinstance(dims, int) and not isinstance(dims, bool):
        dims = [dims]
    if not isinstance(dims, list | tuple) or not dims or not all(type(d) is int for d in dims):
        dims = list(range(x.dim()))
    over = sorted({d % x.dim() for d in dims})
    if call.mix(x, over, f"{call.operator} over channels"):
        return fixed(call.shape)
    for axis in over:
        x = x.narrow(axis, 0, 1)
    if len(call.shape) != x.dim():
        x = x.reshape([size for axis, size in enumerate(x.shape) if axis not in over])
    return shrink(x) if tuple(x.shape) == tuple(call.shape) else unknown(call)


@rule("max", "min")
def _extreme(call: Call) -> Any:
    """Take the largest: of two tensors it is pointwise, along an axis a reduction that also says where."""
    if len(call.args) > 1 and isinstance(call.args[1], int):
        out = _reduce(call)
        return [out, out]
    return pointwise(call) if len(call.args) > 1 else _reduce(call)
