"""One pass over an exported graph with integer tensors in the place of activations; afterwards every tie is known."""

from __future__ import annotations

import operator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from autoprune.graph.identity import fixed
from autoprune.graph.rules import Call, Findings, Stored, apply_rule
from autoprune.graph.trace import Trace, inner_name, operator_name


class Walk:
    """The pass and what it found.

    Attributes:
        found: Ties, pins, producers, consumers.
        used: Stored tensors in the order in which they are first read.
    """

    def __init__(self, model: nn.Module, traced: Trace, prefer: Literal["free", "heads"]) -> None:
        self.found = Findings(prefer)
        self.used: dict[str, None] = {}
        self._names = first_names(model)
        self._tensors = stored_tensors(model)
        self._sizes = {name: integers(module) for name, module in model.named_modules()}
        self._env: dict[torch.fx.Node, Any] = {}
        for node in traced.nodes:
            if node.op == "placeholder":
                self._env[node] = self._placeholder(node, traced)
            elif node.op == "output":
                for value in node.all_input_nodes:
                    self._pin_output(node, self._env[value])
            else:
                self._step(node)

    def _placeholder(self, node: torch.fx.Node, traced: Trace) -> Any:
        name = self._names.get(traced.tensors.get(node.name, ""))
        value = node.meta.get("val")
        if name is not None:
            tensor = self._tensors[name]
            return Stored.whole(name, tensor.shape, isinstance(tensor, nn.Parameter))
        return fixed(value.shape) if isinstance(value, Tensor) else value

    def _step(self, node: torch.fx.Node) -> None:
        if node.op == "get_attr":
            held = _held(node)
            self._env[node] = fixed(held.shape) if isinstance(held, Tensor) else held
        else:
            self._env[node] = self._call(node)

    def _inline(self, region: torch.fx.GraphModule, args: tuple[Any, ...]) -> Any:
        """Walk a region that the export keeps apart because gradients or autocast are off in it."""
        given = iter(args)
        result: Any = None
        for node in region.graph.nodes:
            if node.op == "placeholder":
                self._env[node] = next(given)
            elif node.op == "output":
                result = torch.fx.map_arg(node.args[0], lambda n: self._env[n])
            else:
                self._step(node)
        return result

    def _call(self, node: torch.fx.Node) -> Any:
        args: Any = torch.fx.map_arg(node.args, lambda n: self._env[n])
        kwargs: Any = torch.fx.map_arg(node.kwargs, lambda n: self._env[n])
        if node.target is operator.getitem:
            return args[0][args[1]]
        regions = [i for i, value in enumerate(args) if isinstance(value, torch.fx.GraphModule)]
        if len(regions) == 1 and operator_name(node.target).startswith("wrap_with"):
            return self._inline(args[regions[0]], args[regions[0] + 1 :])
        for used in node.all_input_nodes:
            stored = self._env[used]
            if isinstance(stored, Stored):
                self.used.setdefault(stored.name)
        value = node.meta.get("val")
        outputs = list(value) if isinstance(value, list | tuple) else [value]
        shapes = [tuple(v.shape) if isinstance(v, Tensor) else () for v in outputs]
        stack = node.meta.get("nn_module_stack")
        module = inner_name(next(reversed(stack.values()))[0]) if stack else ""
        result = apply_rule(
            Call(
                found=self.found,
                operator=operator_name(node.target),
                target=node.target,
                args=args,
                kwargs=kwargs,
                shape=shapes[0] if shapes else (),
                module=module,
                sizes=self._sizes.get(module, {}),
            )
        )
        if isinstance(value, list | tuple) and isinstance(result, Tensor):
            return [result, *[fixed(shape) for shape in shapes[1:]]]
        return result

    def _pin_output(self, node: torch.fx.Node, value: Any) -> None:
        reason = "the network's output"
        if isinstance(value, Tensor):
            self.found.ids.pin(value, reason)
        elif isinstance(value, Stored):
            Call(self.found, "output", node.target, (), {}, ()).freeze(value, reason)
        elif isinstance(value, list | tuple):
            for item in value:
                self._pin_output(node, item)


def stored_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name, each tensor once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def first_names(model: nn.Module) -> dict[str, str]:
    """Return for every name of a parameter or buffer the first name of that tensor: weights may be shared."""
    first = {id(tensor): name for name, tensor in stored_tensors(model).items()}
    every = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {name: first[id(tensor)] for name, tensor in every}


def integers(module: nn.Module) -> dict[str, int]:
    """Return the public integer attributes of a module."""
    return {name: value for name, value in vars(module).items() if type(value) is int and not name.startswith("_")}


def _held(node: torch.fx.Node) -> Any:
    """Return what a get_attr node reads: a constant or a region."""
    value: Any = node.graph.owning_module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value
