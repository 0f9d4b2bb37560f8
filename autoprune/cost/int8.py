"""A network after static int8 quantisation, as cost models see it: what is one byte wide, and what stays float32.

Products (convolutions, matrix products) read int8 weights and int8 activations and accumulate in 32 bits; each output
channel has a scale of 32 bits. A table of embeddings is int8 with one scale. Biases and other vectors count as 32 bits.
Between products, what ONNX Runtime's int8 kernels cover stays int8; the rest (softmax, layer norms, recurrent networks)
goes on in float32. Which weights become int8 is compared with the files that ONNX Runtime writes, architecture by
architecture (``tests/trial/test_int8.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

from autoprune.cost.workload import Op, Operand, Workload

SCALE_BYTES = 4
"""Of the float32 scale of one output channel."""

_PRODUCTS = ("conv", "gemm")
_TABLE = "embedding"
_COVERED = frozenset(
    {
        *("add", "mul", "relu", "relu6", "clamp", "clamp_min", "hardtanh", "leaky_relu", "sigmoid"),
        *("hardsigmoid", "hardswish", "batch_norm", "native_batch_norm"),
        *("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "mean"),
        *("cat", "pad", "constant_pad_nd", "clone", "copy", "contiguous", "reshape", "flatten", "_unsafe_view"),
    }
)
"""Operators besides products that run on int8 activations; a batch norm is folded into the convolution before it."""


def int8_scales(workload: Workload) -> Mapping[str, int]:
    """Return the weights that become int8, each with the number of its float32 scales."""
    found: dict[str, int] = {}
    for op in workload.ops:
        if op.weight_name is not None and op.dtype.startswith("float"):
            if op.kind in _PRODUCTS:
                found.setdefault(op.weight_name, op.c_out // scale_groups(op))
            elif op.operator == _TABLE:
                found.setdefault(op.weight_name, 1)
    return found


def scale_groups(op: Op) -> int:
    """Return how many groups share the scales of a product's output channels."""
    return op.groups if op.transposed or op.kind == "gemm" else 1


def int8_workload(workload: Workload) -> Workload:
    """Return the operators of a float network as an int8 runtime executes them: same shapes and MACs, other bytes."""
    covered = [_covered(op) for op in workload.ops]
    wide = set(workload.outputs)
    for op, inside in zip(workload.ops, covered, strict=True):
        if not inside:
            wide |= {*op.reads, *op.writes}
    tensors = tuple(
        each if number in wide else each._replace(itemsize=min(each.itemsize, 1))
        for number, each in enumerate(workload.tensors)
    )
    ops = tuple(_in_int8(op) if inside else op for op, inside in zip(workload.ops, covered, strict=True))
    main = max(ops, key=lambda op: op.macs, default=None)
    return replace(
        workload,
        ops=ops,
        dtype=main.dtype if main else workload.dtype,
        tensors=tensors,
        tensor_bytes=tuple(prod(each.shape) * each.itemsize for each in tensors),
    )


def _covered(op: Op) -> bool:
    return op.dtype.startswith("float") and (op.kind in _PRODUCTS or op.operator in _COVERED or op.operator == _TABLE)


def _in_int8(op: Op) -> Op:
    operands = tuple(each._replace(itemsize=1) if _narrow(op, each) else each for each in op.operands)
    of = {role: sum(prod(e.shape) * e.itemsize for e in operands if e.role == role) for role in _ROLES}
    read = min(of["weight"], of["output"]) if op.operator == _TABLE else of["weight"]  # only the rows looked up
    return replace(
        op,
        operands=operands,
        weight_bytes=read,
        input_bytes=of["input"],
        output_bytes=of["output"],
        dtype="int8",
        itemsize=1,
    )


_ROLES = ("weight", "input", "output")


def _narrow(op: Op, operand: Operand) -> bool:
    if operand.role == "weight":
        return len(operand.shape) > 1 and (op.kind in _PRODUCTS or op.operator == _TABLE)
    return operand.itemsize == op.itemsize
