"""What a rule gets and where it writes: one operator call, and the findings of the walk that it belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from autoprune.graph.identity import FIXED, Identities, along, carrying_axes, compact, fixed

SIZE = -1
"""The "dimension" of an integer attribute of a module (``n_head``), tied like the axis of a tensor."""

HEAD_COUNTS = frozenset(
    {"num_heads", "n_heads", "n_head", "num_attention_heads", "nhead", "heads", "h", "attention_heads"}
    | {"num_key_value_heads", "num_kv_heads", "n_kv_heads", "n_kv_head", "kv_heads"}
)
"""Names under which modules keep how many heads they have."""

WIDTHS = frozenset({"split_size", "all_head_size", "inner_dim", "attention_dim"})
"""Names under which modules keep the summed width of their heads, where that may differ from the trunk's width."""


@dataclass(frozen=True)
class Stored:
    """A parameter or buffer as an operand: its axes are tied by name.

    Attributes:
        name: Qualified name.
        shape: Its shape as the operator sees it.
        dims: For each of these axes, which dimension of the tensor it is; None for an axis that a view added or froze.
        learned: Whether it is a parameter; a buffer is data.
    """

    name: str
    shape: tuple[int, ...]
    dims: tuple[int | None, ...]
    learned: bool

    @classmethod
    def whole(cls, name: str, shape: Sequence[int], learned: bool = True) -> Stored:
        """Return a tensor as it is stored."""
        return cls(name, tuple(shape), tuple(range(len(shape))), learned)


@dataclass
class Findings:
    """What one walk over the graph has found so far.

    Attributes:
        prefer: Which factor of a view shrinks where both may: the one written as -1, or the number of heads.
        ids: The union-find.
        norm_scales: Names of batch-norm scales.
        producers: Axes (tensor, dim) that make channels.
        consumers: Axes (tensor, dim) that read channels.
        choices: Whether some view had both factors, so that the other preference finds other groups.
    """

    prefer: Literal["free", "heads"] = "free"
    ids: Identities = field(default_factory=Identities)
    norm_scales: set[str] = field(default_factory=set)
    producers: dict[tuple[str, int], None] = field(default_factory=dict)
    consumers: dict[tuple[str, int], None] = field(default_factory=dict)
    choices: bool = False


@dataclass
class Call:
    """One operator call with identities in the place of activations.

    Attributes:
        found: Where ties are written.
        operator: Operator name without overload and without the underscore of in-place variants ("conv2d").
        target: The callable behind it.
        args: Positional arguments; activations are identity tensors, parameters and buffers :class:`Stored`.
        kwargs: Keyword arguments, likewise.
        shape: Shape of the (first) output.
        module: Qualified name of the module in whose forward the operator is called.
        sizes: Integer attributes of that module.
    """

    found: Findings
    operator: str
    target: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    shape: tuple[int, ...]
    module: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def ids(self) -> Identities:
        """The union-find of the walk."""
        return self.found.ids

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument given by position or by name."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    def activation(self, value: Any) -> Tensor:
        """Return an operand as identities.

        A learned vector where an activation is expected (a class token, a query) gets identities of its own. A tensor
        with several axes cannot shrink, because nothing says which of them is the channel; nor can a buffer, which is
        data.
        """
        if isinstance(value, Tensor):
            return value
        assert isinstance(value, Stored)
        long = [axis for axis, size in enumerate(value.shape) if size > 1]
        dim = value.dims[long[0]] if len(long) == 1 and value.learned else None
        if dim is None:
            self.freeze(value, "a stored tensor as an activation")
            return fixed(value.shape)
        ids = self.ids.tie(value.name, dim, self.ids.fresh(value.shape[long[0]]), "shared parameter")
        return along(ids, long[0], value.shape)

    def consume(self, weight: Stored, axis: int, ids: Tensor) -> None:
        """Tie the input axis of a weight to the channels that it reads."""
        dim = self._dim(weight, axis, ids)
        if dim is not None:
            self.ids.tie(weight.name, dim, ids, "shared weights with channels that stay")
            self.found.consumers.setdefault((weight.name, dim))

    def produce(self, weight: Stored, axis: int, ids: Tensor, bias: Any) -> Tensor:
        """Tie the output axis of a weight and its bias to ``ids``; return the identities of that axis."""
        dim = self._dim(weight, axis, ids)
        if dim is not None:
            ids = self.ids.tie(weight.name, dim, ids, "shared weights with channels that stay")
            self.found.producers.setdefault((weight.name, dim))
        if isinstance(bias, Stored):
            self.along(bias, len(bias.shape) - 1, ids)
        elif isinstance(bias, Tensor):
            self.ids.pin(ids, "a bias that is computed, not stored")
        return ids

    def along(self, stored: Stored, axis: int, ids: Tensor) -> None:
        """Tie an axis of a tensor that goes with channels (bias, batch norm, a bare parameter)."""
        if stored.shape[axis] != ids.numel():
            return
        dim = self._dim(stored, axis, ids)
        if dim is not None:
            self.ids.tie(stored.name, dim, ids, "a shared parameter with channels that stay")

    def freeze(self, stored: Stored, reason: str) -> None:
        """Say that no axis of a stored tensor may shrink."""
        for axis, dim in enumerate(stored.dims):
            if dim is not None:
                self.ids.tie(stored.name, dim, fixed((stored.shape[axis],)), reason)

    def mix(self, x: Tensor, axes: Sequence[int], reason: str) -> bool:
        """Pin channels where one of them changes the others; return whether that is so."""
        mixed = any(axis in carrying_axes(x) for axis in axes)
        if mixed:
            self.ids.pin(x, reason)
        return mixed

    def size_names(self, names: frozenset[str], value: int) -> list[str]:
        """Return the module's attributes among ``names`` that hold ``value``."""
        return sorted(name for name, held in self.sizes.items() if name in names and held == value)

    def tie_sizes(self, names: Sequence[str], ids: Tensor) -> None:
        """Say that integer attributes of the module count ``ids``: they go down with them."""
        for name in names:
            self.ids.tie(f"{self.module}.{name}" if self.module else name, SIZE, ids, "a number in the code")

    def _dim(self, stored: Stored, axis: int, ids: Tensor) -> int | None:
        dim = stored.dims[axis]
        if dim is None:
            self.ids.pin(ids, f"a view of the stored tensor {stored.name!r}")
        return dim


Rule = Callable[[Call], Any]
RULES: dict[str, Rule] = {}


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register a rule for operators."""

    def register(function: Rule) -> Rule:
        for operator in operators:
            RULES[operator] = function
        return function

    return register


def unknown(call: Call) -> Tensor:
    """Pin everything that enters: the worst case is a channel that could have gone and stays."""
    reason = f"operator {call.operator!r} has no rule"
    for value in operands([*call.args, *call.kwargs.values()]):
        if isinstance(value, Stored):
            call.freeze(value, reason)
        else:
            call.ids.pin(value, reason)
    return fixed(call.shape)


def operands(values: Sequence[Any]) -> list[Tensor | Stored]:
    """Return every tensor among arguments, also in lists."""
    found: list[Tensor | Stored] = []
    for value in values:
        if isinstance(value, Tensor | Stored):
            found.append(value)
        elif isinstance(value, list | tuple):
            found.extend(operands(value))
    return found


def has_channels(ids: Tensor) -> bool:
    """Say whether any channel stands in ``ids``."""
    return bool((compact(ids) != FIXED).any())
