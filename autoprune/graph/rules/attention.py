"""Products of two activations, and the attention built on them; products with stored matrices are layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from autoprune.graph.identity import carrying_axes, fixed, shrink
from autoprune.graph.rules.call import Call, Stored, operands, rule, unknown
from autoprune.graph.rules.channels import dense
from autoprune.graph.rules.pointwise import meet_all

PRODUCT = "a batch of products"
"""Mark of channels that number independent products of activations, as attention heads do."""


@rule("matmul", "bmm", "mm", "mv", "dot")
def _matmul(call: Call) -> Tensor:
    left, right = call.args[:2]
    if len(left.shape) < 2 or len(right.shape) < 2:
        return unknown(call)
    if isinstance(right, Stored) and len(right.shape) == 2:
        return dense(call, call.activation(left), right, 0, None)
    return product(call, call.activation(left), call.activation(right), call.shape)


@rule("addmm", "baddbmm", "addbmm")
def _add_matmul(call: Call) -> Tensor:
    bias, left, right = call.args[:3]
    if call.operator == "addbmm":
        return unknown(call)
    if isinstance(right, Stored) and len(right.shape) == 2:
        return dense(call, call.activation(left), right, 0, bias)
    out = product(call, call.activation(left), call.activation(right), call.shape)
    return meet_all(call, [out, bias])


@rule("scaled_dot_product_attention")
def _attention(call: Call) -> Tensor:
    query, key, value = (call.activation(call.argument(i, name)) for i, name in enumerate(("query", "key", "value")))
    if query.dim() < 3:
        return unknown(call)
    if call.argument(7, "enable_gqa", False):
        shared = query.shape[-3] // key.shape[-3]
        key, value = (shrink(side.repeat_interleave(shared, -3)) for side in (key, value))
    if call.argument(6, "scale") is None:
        last = query.dim() - 1
        for side in (query, key):
            call.mix(side, [last], "the attention scale follows the width of a head")
    rows, columns = query.shape[-2], key.shape[-2]
    scores = product(call, query, key.transpose(-1, -2), (*call.shape[:-2], rows, columns))
    mask = call.argument(3, "attn_mask")
    if mask is not None:
        scores = meet_all(replace(call, shape=tuple(scores.shape)), [scores, mask])
    call.mix(scores, [scores.dim() - 1], "attention over channels")
    return product(call, scores, value, call.shape)


def product(call: Call, left: Tensor, right: Tensor, shape: Sequence[int]) -> Tensor:
    """Carry identities through a batched product of activations, (..., n, k) times (..., k, m).

    What is summed over must go from both sides at once; what numbers the batch, the rows or the columns stays what it
    is in the result.
    """
    left, right = _contract(call, left, right)
    for side in (left, right):
        if any(axis < side.dim() - 2 for axis in carrying_axes(side)):
            call.ids.mark(side, PRODUCT)
    left, right = _outer(call, left.narrow(-1, 0, 1), right.narrow(-2, 0, 1))
    return meet_all(replace(call, shape=tuple(shape)), [left, right])


def _outer(call: Call, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Keep one side's channels where both carry some on different axes: those that number the batch (heads)."""
    rank = max(left.dim(), right.dim())
    axes = [{axis + rank - side.dim() for axis in carrying_axes(side)} for side in (left, right)]
    if not all(axes) or axes[0] & axes[1]:
        return left, right
    if any(axis < rank - 2 for axis in axes[0]):
        call.ids.pin(right, f"{call.operator!r} shares these channels among channels of its other side")
        return left, fixed(right.shape)
    call.ids.pin(left, f"{call.operator!r} shares these channels among channels of its other side")
    return fixed(left.shape), right


def _contract(call: Call, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Tie the two sides of the summed axis; return sides that no longer vary along it."""
    column, row = left.dim() - 1, right.dim() - 2
    on_left, on_right = column in carrying_axes(left), row in carrying_axes(right)
    if not on_left and not on_right:
        return left, right
    if on_left != on_right:
        call.ids.pin(left if on_left else right, f"{call.operator!r} sums over channels that the other side lacks")
        return (fixed(left.shape), right) if on_left else (left, fixed(right.shape))
    if len(carrying_axes(left)) > 1 or len(carrying_axes(right)) > 1:
        call.ids.pin(left, f"{call.operator!r} sums over channels that vary along other axes too")
        call.ids.pin(right, f"{call.operator!r} sums over channels that vary along other axes too")
    else:
        terms = call.ids.unite_all(left, column, "terms of a product")
        call.ids.unite(terms, call.ids.unite_all(right, row, "terms of a product"), "a product with channels that stay")
        call.ids.assume(terms, "a product whose scale may follow the number of its terms")
    return fixed(left.shape), fixed(right.shape)


@rule("einsum")
def _einsum(call: Call) -> Tensor:
    """Lay both operands out as one batched product: shared letters, then rows, then the letter summed over."""
    equation, tensors = str(call.args[0]).replace(" ", ""), operands(call.args[1:])
    inputs, _, out = equation.partition("->")
    letters = inputs.split(",")
    plain = "." not in equation and "->" in equation and len(letters) == len(tensors) == 2
    if not plain or any(len(set(names)) != len(names) for names in (*letters, out)):
        return unknown(call)
    left, right = (call.activation(tensor) for tensor in tensors)
    summed = [letter for letter in letters[0] if letter in letters[1] and letter not in out]
    if len(summed) != 1 or any(letter not in out for letter in (set(letters[0]) | set(letters[1])) - set(summed)):
        return unknown(call)
    sizes = dict(zip("".join(letters), (*left.shape, *right.shape), strict=True))
    batch = [letter for letter in out if letter in letters[0] and letter in letters[1]]
    rows = [letter for letter in out if letter in letters[0] and letter not in batch]
    columns = [letter for letter in out if letter in letters[1] and letter not in batch]
    left = left.permute([letters[0].index(letter) for letter in (*batch, *rows, *summed)])
    right = right.permute([letters[1].index(letter) for letter in (*batch, *columns, *summed)])
    left = left.reshape(*left.shape[: len(batch)], -1, sizes[summed[0]])
    right = right.reshape(*right.shape[: len(batch)], -1, sizes[summed[0]]).transpose(-1, -2)
    flat = product(call, shrink(left), shrink(right), (*left.shape[:-1], right.shape[-1]))
    order = [*batch, *rows, *columns]
    return shrink(flat.reshape([sizes[letter] for letter in order]).permute([order.index(letter) for letter in out]))
