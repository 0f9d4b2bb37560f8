"""What each operator of torch is to a cost model: its kind, its shape as a convolution, its multiply-adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from torch import Tensor

Kind = Literal["conv", "gemm", "attention", "recurrent", "pointwise", "pool", "move", "other"]


@dataclass(frozen=True)
class Shape:
    """The dimensions of one operator; those of ``autoprune.cost.workload.Op``, where they are told."""

    kind: Kind
    N: int = 1
    c_in: int = 1
    c_out: int = 1
    groups: int = 1
    H: int = 1
    W: int = 1
    E: int = 1
    F: int = 1
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    macs: int = 0
    causal: bool = False
    transposed: bool = False


def kind_of(operator: str, pointwise: bool) -> Kind:
    """Return the kind of an operator without multiply-adds; ``pointwise`` is what torch's own tag says."""
    return KINDS.get(operator, "pointwise" if pointwise else "other")


def _planar(sizes: tuple[int, ...], fill: int = 1) -> tuple[int, int]:
    """Fold 1 to 3 spatial sizes into (height, width)."""
    return (prod(sizes[:-1]), sizes[-1]) if len(sizes) > 1 else (fill, sizes[0])


def _conv(args: Any, kwargs: Any, out: Tensor, groups_at: int = 6, transposed: bool = False) -> Shape:
    x, w = args[0], args[1]
    spatial = w.dim() - 2
    stride = kwargs.get("stride", args[3] if len(args) > 3 else 1)
    stride = tuple(stride) if isinstance(stride, list | tuple) else (stride,)
    stride = stride * spatial if len(stride) == 1 else stride
    (height, width), (rows, columns) = _planar(tuple(x.shape[2 - (x.dim() < w.dim()) :])), _planar(tuple(w.shape[2:]))
    e, f = _planar(tuple(out.shape[-spatial:]))
    images = x.shape[0] if x.dim() == w.dim() else 1  # torch also takes a single image
    positions = height * width if transposed else e * f
    groups = kwargs.get("groups", args[groups_at] if len(args) > groups_at else 1)
    return Shape(
        kind="conv",
        N=images,
        c_in=w.shape[0] if transposed else w.shape[1] * groups,
        c_out=w.shape[1] * groups if transposed else w.shape[0],
        groups=groups,
        H=height,
        W=width,
        E=e,
        F=f,
        kernel=(rows, columns),
        stride=_planar(stride),
        macs=images * w.numel() * positions,
        transposed=transposed,
    )


def _convolution(args: Any, kwargs: Any, out: Tensor) -> Shape:
    return _conv(args, kwargs, out, groups_at=8, transposed=bool(args[6]))


def _conv_transpose(args: Any, kwargs: Any, out: Tensor) -> Shape:
    return _conv(args, kwargs, out, groups_at=6, transposed=True)


def _gemm(rows: int, inner: int, columns: int, groups: int = 1) -> Shape:
    return Shape(
        kind="gemm",
        N=rows,
        c_in=inner * groups,
        c_out=columns * groups,
        groups=groups,
        macs=rows * inner * columns * groups,
    )


def _linear(args: Any, kwargs: Any, out: Tensor) -> Shape:
    x, w = args[0], args[1]
    columns = w.shape[0] if w.dim() == 2 else 1
    return _gemm(x.numel() // max(x.shape[-1], 1), x.shape[-1], columns)


def _product(first: int) -> Callable[[Any, Any, Tensor], Shape]:
    """Describe ``a @ b`` where ``a`` is the argument number ``first``."""

    def describe(args: Any, kwargs: Any, out: Tensor) -> Shape:
        a, b = args[first], args[first + 1]
        groups = a.shape[0] if a.dim() == 3 else 1
        rows = a.shape[-2] if a.dim() > 1 else 1
        return _gemm(rows, a.shape[-1], b.shape[-1] if b.dim() > 1 else 1, groups)

    return describe


def _attention(causal_at: int) -> Callable[[Any, Any, Tensor], Shape]:
    """Describe attention whose argument number ``causal_at`` says that no query sees a later key."""

    def describe(args: Any, kwargs: Any, out: Tensor) -> Shape:
        q, k, v = args[:3]
        groups, queries, keys = prod(q.shape[:-2]), q.shape[-2], k.shape[-2]
        return Shape(
            kind="attention",
            N=queries,
            E=keys,
            c_in=q.shape[-1] * groups,
            c_out=v.shape[-1] * groups,
            groups=groups,
            macs=groups * queries * keys * (q.shape[-1] + v.shape[-1]),
            causal=bool(kwargs.get("is_causal", args[causal_at] if len(args) > causal_at else False)),
        )

    return describe


def _recurrent(args: Any, kwargs: Any, out: Tensor) -> Shape:
    """Describe an LSTM, GRU or plain recurrent network: each matrix meets each step once, in all layers and directions.

    ``N`` is the batch, ``E`` the steps. Matrices as torch stores them: input-hidden, hidden-hidden, projection.
    """
    x = args[0]
    packed = isinstance(args[3], list | tuple)  # (data, batch sizes, state, weights, ...)
    weights = args[3] if packed else args[2]
    rows = x.numel() // max(x.shape[-1], 1)
    steps = args[1].numel() if packed else x.shape[1 if x.dim() == 3 and args[-1] else 0]
    return Shape(
        kind="recurrent",
        N=max(rows // max(steps, 1), 1),
        E=steps,
        c_in=x.shape[-1],
        c_out=out.shape[-1],
        macs=rows * sum(weight.numel() for weight in weights if weight.dim() == 2),
    )


def _norm(scale_at: int, name: str = "weight") -> Callable[[Any, Any], tuple[int, int]]:
    def count(args: Any, kwargs: Any) -> tuple[int, int]:
        return (5 if kwargs.get(name, args[scale_at] if len(args) > scale_at else None) is not None else 4), 0

    return count


def _batch_norm(args: Any, kwargs: Any) -> tuple[int, int]:
    if args[5]:  # statistics of the batch
        return _norm(1)(args, kwargs)
    return (2 if args[1] is not None else 1), 0


COUNTED: Mapping[str, Callable[[Any, Any], tuple[int, int]]] = {
    "batch_norm": _batch_norm,
    "group_norm": _norm(2),
    "layer_norm": _norm(2),
    "instance_norm": _norm(1),
    "adaptive_avg_pool2d": lambda args, kwargs: (1, 0),
    "upsample_nearest2d": lambda args, kwargs: (0, 1),
    "upsample_bilinear2d": lambda args, kwargs: (0, 4),
    "grid_sampler": lambda args, kwargs: (0, 4),
}
"""What fvcore counts per element of (input, output) for operators that are no products (``fvcore.nn.jit_handles``)."""

SHAPES: Mapping[str, Callable[[Any, Any, Tensor], Shape]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _conv),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _conv_transpose),
    "convolution": _convolution,
    "_convolution": _convolution,
    "linear": _linear,
    "mm": _product(0),
    "bmm": _product(0),
    "mv": _product(0),
    "dot": _product(0),
    "addmm": _product(1),
    "baddbmm": _product(1),
    "addmv": _product(1),
    "lstm": _recurrent,
    "gru": _recurrent,
    "rnn_tanh": _recurrent,
    "rnn_relu": _recurrent,
    "scaled_dot_product_attention": _attention(5),
    "_scaled_dot_product_flash_attention_for_cpu": _attention(4),
    "_scaled_dot_product_flash_attention": _attention(4),
    "_scaled_dot_product_efficient_attention": _attention(6),
}

# Normalisations read and write once like pointwise operators do; torch tags the true pointwise operators itself.
KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"), "pointwise"),
    **dict.fromkeys(("native_batch_norm", "native_layer_norm", "native_group_norm"), "pointwise"),
    **dict.fromkeys(
        ("softmax", "log_softmax", "_softmax", "_log_softmax", "dropout", "normalize", "gelu"), "pointwise"
    ),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"), "pool"),
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"), "pool"),
    **dict.fromkeys(("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"), "pool"),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "max", "argmax", "var", "std"), "pool"),
    **dict.fromkeys(("cat", "stack", "pad", "constant_pad_nd", "clone", "copy", "contiguous", "reshape"), "move"),
    **dict.fromkeys(("_to_copy", "to", "index", "index_select", "gather", "embedding", "flatten", "roll"), "move"),
    **dict.fromkeys(("repeat", "upsample_nearest2d", "upsample_bilinear2d", "pixel_shuffle", "_unsafe_view"), "move"),
    **dict.fromkeys(("grid_sampler", "grid_sampler_2d"), "move"),
}

# Allocations and constants: no work of the device.
FREE = frozenset(
    {"empty", "empty_like", "empty_strided", "new_empty", "arange", "detach", "scalar_tensor", "lift_fresh"}
)
