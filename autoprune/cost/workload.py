"""The operators that a model really executes, with shapes and bytes: what traffic, energy and latency models read.

The model runs once under a dispatch mode. That sees functional calls as well as modules, and tensors by their storage:
a view costs nothing, an in-place operator reads and writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autoprune.cost.operators import COUNTED, FREE, KINDS, SHAPES, Kind, Shape, kind_of


class Operand(NamedTuple):
    """One tensor that an operator reads or writes, as the operator sees it (a view has the view's shape)."""

    role: Literal["weight", "input", "output"]
    shape: tuple[int, ...]
    itemsize: int


@dataclass(frozen=True)
class Op:
    """One executed operator.

    A GEMM is a convolution of 1x1 images: ``N`` rows, ``c_in`` inputs, ``c_out`` outputs, batched products as groups.
    A 1-d convolution has height 1; a 3-d one has its depth folded into the height. For attention ``groups`` counts
    (batch, head) pairs, ``N`` queries and ``E`` keys, and ``c_in`` and ``c_out`` are the widths of keys and values.

    Attributes:
        kind: What it is to a cost model.
        name: Qualified module name where a parameter tells it, else the operator.
        operator: Operator without its namespace ("conv2d", "relu").
        N: Images, or rows.
        c_in: Input channels of all groups.
        c_out: Output channels of all groups.
        groups: Groups.
        H: Input height.
        W: Input width.
        E: Output height.
        F: Output width.
        kernel: (R, S).
        stride: Along height and width.
        macs: Multiply-adds, zeros included; 0 for what is no product. Equals fvcore's for convolutions and products.
        weight_bytes: Bytes of the parameters and buffers it reads.
        input_bytes: Bytes of the other tensors it reads.
        output_bytes: Bytes it writes.
        dtype: Of the result ("float32").
        itemsize: Bytes of one element of the result.
        weight_name: Qualified name of the first parameter it reads.
        weight_density: Share of that parameter that is not zero.
        pattern: Granularity of its zeros, where the caller told; "weight" where zeros were found.
        input_density: Share of non-zero inputs; only a chip that compresses activations reads it. Never assumed.
        output_density: The same of the outputs.
        transposed: Whether it is a transposed convolution.
        reads: Indices into :attr:`Workload.tensor_bytes` of the activations it reads.
        writes: Indices of the activations it writes.
        module: Qualified name of the innermost module in whose forward it runs; a shared module's first name.
        operands: What it reads, in the order of its arguments, then what it writes.
        per_input: What fvcore counts for each element of the first operand (norms, poolings), beside ``macs``.
        per_output: What fvcore counts for each element of the result (interpolations), beside ``macs``.
        causal: Whether no query of an attention sees a later key; ``macs`` counts the masked scores all the same.
    """

    kind: Kind
    name: str
    operator: str = ""
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
    weight_bytes: int = 0
    input_bytes: int = 0
    output_bytes: int = 0
    dtype: str = "float32"
    itemsize: int = 4
    weight_name: str | None = None
    weight_density: float = 1.0
    pattern: str | None = None
    input_density: float = 1.0
    output_density: float = 1.0
    transposed: bool = False
    reads: tuple[int, ...] = ()
    writes: tuple[int, ...] = ()
    module: str = ""
    operands: tuple[Operand, ...] = ()
    per_input: int = 0
    per_output: int = 0
    causal: bool = False


@dataclass(frozen=True)
class Workload:
    """One run of a model.

    Attributes:
        ops: In execution order.
        batch: Size of dimension 0 of the first input tensor.
        dtype: Of the result that holds most MACs.
        tensor_bytes: Bytes of each activation; the indices stand in ``Op.reads`` and ``Op.writes``.
        outputs: Indices of the activations that the model returns.
        tensors: Each activation as it was first seen, which is where ``tensor_bytes`` comes from.
    """

    ops: tuple[Op, ...]
    batch: int
    dtype: str
    tensor_bytes: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    tensors: tuple[Operand, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-adds of all convolutions, products and attentions."""
        return sum(op.macs for op in self.ops)


def workload_of(
    model: nn.Module,
    example_inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    patterns: Mapping[str, tuple[str, float]] | None = None,
) -> Workload:
    """Run ``model`` once in eval mode and record its operators.

    Args:
        model: Left as it is, training flags included.
        example_inputs: Positional arguments.
        kwargs: Keyword arguments.
        patterns: Parameter name to (granularity, density) of its zeros. A parameter that is not named has its zeros
            counted, which tells the density but not the pattern.

    Returns:
        Operators in execution order. What is not known stands as kind "other" with its bytes and no MACs.
    """
    kwargs = kwargs or {}
    recorder = _Recorder(model, patterns or {})
    inputs = [leaf for leaf in tree_leaves((example_inputs, dict(kwargs))) if isinstance(leaf, Tensor)]
    with _inference(model), recorder.modules(), recorder:
        result = model(*example_inputs, **kwargs)
    outputs = tuple(recorder.index(leaf) for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
    ops = tuple(recorder.ops)
    main = max(ops, key=lambda op: op.macs, default=None)
    return Workload(
        ops=ops,
        batch=inputs[0].shape[0] if inputs and inputs[0].dim() else 1,
        dtype=main.dtype if main else "float32",
        tensor_bytes=tuple(recorder.tensor_bytes),
        outputs=outputs,
        tensors=tuple(recorder.tensors),
    )


@contextmanager
def _inference(model: nn.Module) -> Iterator[None]:
    flags = [(module, module.training) for module in model.modules()]
    # The fused encoder layer hides its products from a dispatch mode, and computes the same.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        model.eval()
        with torch.inference_mode():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, training in flags:
            module.training = training


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch leaves the hook for subclasses untyped
    def __init__(self, model: nn.Module, patterns: Mapping[str, tuple[str, float]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # as above
        self.ops: list[Op] = []
        self.tensors: list[Operand] = []
        self._names = {id(module): name for name, module in model.named_modules()}
        self._running: list[str] = []
        self._patterns = patterns
        self._index: dict[int, int] = {}  # storage address -> activation now in it
        self._weights: dict[int, str] = {}  # storage address -> first name
        # (storage, offset) -> name, for parameters that share a storage
        self._by_address: dict[tuple[int, int], str] = {}
        self._sparsity: dict[str, tuple[str | None, float]] = {}
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.numel():
                self._weights.setdefault(_storage(tensor), name)
                self._by_address.setdefault((_storage(tensor), int(tensor.storage_offset())), name)

    @property
    def tensor_bytes(self) -> list[int]:
        """Bytes of each activation."""
        return [prod(each.shape) * each.itemsize for each in self.tensors]

    @contextmanager
    def modules(self) -> Iterator[None]:
        """Follow which module runs; the hooks are torch's global ones, so the model is left alone."""

        def enter(module: nn.Module, *_: Any) -> None:
            self._running.append(self._names.get(id(module), self._running[-1] if self._running else ""))

        def leave(*_: Any) -> None:
            self._running.pop()

        handles = (register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def index(self, tensor: Tensor) -> int:
        """Return the index of the activation whose storage ``tensor`` looks at; a new one if it is unknown."""
        key = _storage(tensor)
        if key not in self._index:
            self._index[key] = len(self.tensors)
            self.tensors.append(_operand("output", tensor))
        return self._index[key]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operator = func.overloadpacket.__name__
        if operator not in SHAPES and operator not in KINDS and torch.Tag.pointwise not in func.tags:
            # einsum, matmul, lstm and their like are made of known operators.
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        self._record(func, operator, args, kwargs, result)
        return result

    def _record(self, func: Any, operator: str, args: Any, kwargs: Any, result: Any) -> None:
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        written = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor) and leaf.numel()]
        in_place = func._schema.is_mutable
        addresses = {_storage(tensor) for tensor in read}
        if not in_place:
            written = [tensor for tensor in written if _storage(tensor) not in addresses]
        if not written or operator in FREE:
            for tensor in written:
                self._forget(tensor)
            return
        weights = [tensor for tensor in read if _storage(tensor) in self._weights]
        activations = [tensor for tensor in read if _storage(tensor) not in self._weights]
        reads = tuple(dict.fromkeys(self.index(tensor) for tensor in activations if tensor.numel()))
        for tensor in written:
            if _storage(tensor) not in addresses:
                self._forget(tensor)
        pointwise = torch.Tag.pointwise in func.tags
        describe = SHAPES.get(operator)
        shape = describe(args, kwargs, written[0]) if describe else Shape(kind_of(operator, pointwise))
        # The largest, for addmm names its bias first; a matrix of one row is as large as the bias.
        weight = max(weights, key=lambda tensor: (tensor.dim() > 1, tensor.numel()), default=None)
        name = None if weight is None else self._name(weight)
        pattern, density = (
            (None, 1.0) if name is None or weight is None or not shape.macs else self._zeros(name, weight)
        )
        weight_bytes = sum(_bytes(tensor) for tensor in weights)
        if operator == "embedding":  # only the rows looked up are read
            weight_bytes = min(weight_bytes, _bytes(written[0]))
        per_input, per_output = COUNTED[operator](args, kwargs) if operator in COUNTED else (0, 0)
        self.ops.append(
            Op(
                name=(name or "").rpartition(".")[0] or operator,
                operator=operator.rstrip("_"),
                weight_bytes=weight_bytes,
                input_bytes=sum(_bytes(tensor) for tensor in activations),
                output_bytes=sum(_bytes(tensor) for tensor in written),
                dtype=str(written[0].dtype).removeprefix("torch."),
                itemsize=written[0].element_size(),
                weight_name=name,
                weight_density=density,
                pattern=pattern,
                reads=reads,
                writes=tuple(dict.fromkeys(self.index(tensor) for tensor in written)),
                module=self._running[-1] if self._running else "",
                operands=(
                    *(_operand("weight" if _storage(t) in self._weights else "input", t) for t in read),
                    *(_operand("output", tensor) for tensor in written),
                ),
                per_input=per_input,
                per_output=per_output,
                **vars(shape),
            )
        )

    def _forget(self, tensor: Tensor) -> None:
        # A fresh tensor may lie where a dead one lay.
        self._index.pop(_storage(tensor), None)

    def _name(self, tensor: Tensor) -> str:
        return self._by_address.get((_storage(tensor), int(tensor.storage_offset()))) or self._weights[_storage(tensor)]

    def _zeros(self, name: str, tensor: Tensor) -> tuple[str | None, float]:
        if name in self._patterns:
            return self._patterns[name]
        if name not in self._sparsity:
            density = int(torch.count_nonzero(tensor)) / tensor.numel()
            self._sparsity[name] = ("weight" if density < 1 else None, density)
        return self._sparsity[name]


def _storage(tensor: Tensor) -> int:
    # The storage's own address, not that of its data: a tensor on the meta device has no data.
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else id(tensor)


def _operand(role: Literal["weight", "input", "output"], tensor: Tensor) -> Operand:
    return Operand(role, tuple(tensor.shape), tensor.element_size())


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
