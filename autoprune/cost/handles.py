"""Handles for operators that fvcore does not count, or not exactly.

fvcore has none for scaled dot-product attention, for a convolution whose padding is "same", for recurrent networks and
for some products; it reads its count of an einsum from a text with four digits. What is no product stays uncounted, as
softmax and activations are: there is no standard count for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.type().sizes())


def _shapes(values: Any) -> list[tuple[int, ...]]:
    """Return the shapes of a list of tensors in the traced graph."""
    return [_shape(value) for value in values.node().inputs()]


def _is_list(value: Any) -> bool:
    return bool(value.type().kind() == "ListType")


def _attention(inputs: list[Any], outputs: list[Any]) -> int:
    """Count ``heads x queries x keys x (d_k + d_v)``: the products Q K^T and P V.

    A causal mask is not subtracted, as fvcore subtracts no zeros; what a kernel leaves out is the device's affair.
    """
    q, k, v = map(_shape, inputs[:3])
    return prod(q[:-1]) * k[-2] * (q[-1] + v[-1])


def _same_convolution(inputs: list[Any], outputs: list[Any]) -> int:
    """Count ``images x weights x output positions``, as fvcore does for a convolution with padding in numbers."""
    x, w = map(_shape, inputs[:2])
    return x[0] * prod(w) * prod(_shape(outputs[0])[2:])


def _recurrent(inputs: list[Any], outputs: list[Any]) -> int:
    """Count ``positions x elements of all matrices``: each meets each step once, in all layers and directions."""
    weights = _shapes(inputs[3] if _is_list(inputs[3]) else inputs[2])
    return prod(_shape(inputs[0])[:-1]) * sum(prod(weight) for weight in weights if len(weight) == 2)


def _cell(inputs: list[Any], outputs: list[Any]) -> int:
    """Count ``rows x elements of both matrices`` of one step."""
    return prod(_shape(inputs[0])[:-1]) * sum(prod(_shape(weight)) for weight in inputs[2:4])


def _product(first: int) -> Callable[[list[Any], list[Any]], int]:
    """Count ``a @ b`` where ``a`` is the argument number ``first``."""

    def count(inputs: list[Any], outputs: list[Any]) -> int:
        a, b = _shape(inputs[first]), _shape(inputs[first + 1])
        return prod(a) * (b[-1] if len(b) > 1 else 1)

    return count


def _matmul(inputs: list[Any], outputs: list[Any]) -> int:
    """Count ``output elements x terms``: also for vectors, and for batches that are broadcast."""
    return prod(_shape(outputs[0])) * _shape(inputs[0])[-1]


def _einsum(inputs: list[Any], outputs: list[Any]) -> int:
    """Count the product of all index sizes where two operands share a summed index; without one there is no addition.

    More than two operands are left to fvcore: the count depends on the order of contraction.
    """
    letters = str(inputs[0].toIValue()).replace(" ", "")
    shapes = _shapes(inputs[1])
    sides, _, out = letters.partition("->")
    names = sides.split(",")
    if len(names) != 2 or "." in letters or "->" not in letters:
        from fvcore.nn.jit_handles import einsum_flop_jit

        return int(einsum_flop_jit(inputs, outputs))
    sizes = {
        letter: size
        for side, shape in zip(names, shapes, strict=True)
        for letter, size in zip(side, shape, strict=True)
    }
    summed = [letter for letter in names[0] if letter in names[1] and letter not in out]
    return prod(sizes.values()) if summed else 0


HANDLES: Mapping[str, Callable[[list[Any], list[Any]], int]] = {
    "aten::scaled_dot_product_attention": _attention,
    "aten::_convolution_mode": _same_convolution,
    "aten::matmul": _matmul,
    "aten::mv": _matmul,
    "aten::dot": _matmul,
    "aten::baddbmm": _product(1),
    "aten::addmv": _product(1),
    "aten::einsum": _einsum,
    **dict.fromkeys(("aten::lstm", "aten::gru", "aten::rnn_tanh", "aten::rnn_relu"), _recurrent),
    **dict.fromkeys(("aten::lstm_cell", "aten::gru_cell", "aten::rnn_tanh_cell", "aten::rnn_relu_cell"), _cell),
}
"""Operator to its count, for ``FlopCountAnalysis.set_op_handle``."""
