"""MACs as fvcore counts them: the public number that others can check, and what it could not count.

fvcore calls one multiply-add one "flop" and counts zeros like any other weight. What it has no handle for gets one
where a count means something (:mod:`autoprune.cost.handles`); what has none is listed, never silently zero.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from autoprune.cost.handles import HANDLES

_INNER = "model"


@dataclass(frozen=True)
class MacCount:
    """MACs of one run.

    Attributes:
        total: Of the whole model, fvcore's norms and poolings included.
        modules: Qualified module name to its MACs, children included; a shared module under its first name.
        uncounted_ops: Operator to the number of its calls that fvcore has no handle for.
    """

    total: int
    modules: Mapping[str, int]
    uncounted_ops: Mapping[str, int]


def count_macs(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> MacCount:
    """Count the MACs of ``model`` as it is executed in eval mode.

    Args:
        model: Left as it is: training flags, hooks and gradients.
        args: Positional arguments, with whatever tensors inside.
        kwargs: Keyword arguments, likewise.

    Returns:
        Exact integers.
    """
    leaves, spec = tree_flatten((args, dict(kwargs or {})))
    with _untouched(model), warnings.catch_warnings(), torch.no_grad():
        call = _Call(model, leaves, spec)
        # torch.jit.trace warns of each shape that it takes for a constant, which for a count is what is wanted.
        warnings.simplefilter("ignore")
        # Imported here: fvcore compiles a loss of its own at import, which takes time and warns.
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(call, tuple(leaf for leaf in leaves if isinstance(leaf, Tensor)))
        analysis.set_op_handle(**HANDLES)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        by_module = analysis.by_module()
        uncounted = analysis.unsupported_ops()
    prefix = _INNER + "."
    modules = {
        name.removeprefix(prefix) if name != _INNER else "": round(count) for name, count in by_module.items() if name
    }
    return MacCount(
        total=round(by_module[""]),
        modules=MappingProxyType(modules),
        uncounted_ops=MappingProxyType(dict(sorted((name, int(calls)) for name, calls in uncounted.items()))),
    )


class MacCounter:
    """MACs of smaller versions of one model: fvcore counts the dense model, the rest is arithmetic.

    Every count of fvcore for a module with a weight (convolution, linear, norm) is proportional to the number of its
    weight's elements, for surgery leaves positions as they are. A model in which fvcore counts anything else (a product
    of activations, a pooling) is counted by fvcore each time.

    Args:
        model: The dense model; left as it is.
        args: Positional example inputs.
        kwargs: Keyword example inputs.
    """

    def __init__(self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> None:
        self._inputs = args, kwargs
        self.dense = count_macs(model, args, kwargs)
        self._weights = {
            name: weight.numel()
            for name, module in model.named_modules()
            if (weight := module._parameters.get("weight")) is not None and not list(module.children())
        }
        own = sum(self.dense.modules.get(name, 0) for name in self._weights)
        self.by_arithmetic = own == self.dense.total

    def count(self, smaller: nn.Module) -> MacCount:
        """Count a model that surgery made of the dense one; the same integers as :func:`count_macs`."""
        if not self.by_arithmetic:
            return count_macs(smaller, *self._inputs)
        leaves = dict(smaller.named_modules())
        modules: dict[str, int] = dict.fromkeys(self.dense.modules, 0)
        for name, dense_size in self._weights.items():
            weight = leaves[name]._parameters["weight"] if name in leaves else None
            if weight is None:  # it went with its block
                continue
            count = self.dense.modules.get(name, 0) * weight.numel() // dense_size
            for parent in _and_parents(name):
                if parent in modules:
                    modules[parent] += count
        return MacCount(modules[""], MappingProxyType(modules), self.dense.uncounted_ops)


def _and_parents(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]
    yield ""


class _Call(nn.Module):
    """Call a model with any arguments and give its tensors: fvcore traces neither keywords nor dataclasses."""

    def __init__(self, model: nn.Module, leaves: list[Any], spec: Any) -> None:
        super().__init__()
        self.model = model
        self.training = model.training
        self._leaves = leaves
        self._spec = spec

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        supply = iter(tensors)
        leaves = [next(supply) if isinstance(leaf, Tensor) else leaf for leaf in self._leaves]
        args, kwargs = tree_unflatten(leaves, self._spec)
        return tuple(leaf for leaf in tree_leaves(self.model(*args, **kwargs)) if isinstance(leaf, Tensor))


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Set eval mode; afterwards put back training flags and, should a trace break off, the hooks that fvcore leaves."""
    before = [(m, m.training, list(m._forward_pre_hooks), list(m._forward_hooks)) for m in model.modules()]
    # The fused encoder layer is one operator without a handle; its parts have theirs and compute the same.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        model.eval()
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, training, pre_hooks, hooks in before:
            module.training = training
            for table, known in ((module._forward_pre_hooks, pre_hooks), (module._forward_hooks, hooks)):
                for key in [key for key in table if key not in known]:
                    del table[key]
