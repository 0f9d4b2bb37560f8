"""Residual blocks that may be replaced by the identity, found in the exported graph.

A block is a module whose one result is reached from what enters it by additions alone: y = x + f(x). Without f it gives
x. An activation behind the addition is allowed where x has passed the same one already, for it then changes nothing;
a norm behind the addition (BERT) changes x, so such a block stays. What is found is run: the network with the blocks
replaced must equal the exported graph with their branches zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from autoprune.graph.copying import copy_module
from autoprune.graph.skip import Skip
from autoprune.graph.trace import Trace, evaluation_mode, inner_name, operator_name, output_tensors

_ADDITIONS = frozenset({"add"})
_ACTIVATIONS = frozenset({"relu", "relu6", "hardtanh", "clamp", "clamp_min"})
"""Applied twice they give what they give once."""
_PASSING = frozenset({"dropout", "feature_dropout", "clone", "contiguous", "detach", "alias"})
"""Identities in evaluation mode."""
_SELECTING = frozenset({"max_pool1d", "max_pool2d", "max_pool3d", "slice", "view", "reshape", "flatten", "permute"})
"""Give nothing but values that entered."""
TOLERANCE = {torch.float64: 1e-9}
_LOOSE = 1e-4


@dataclass(frozen=True)
class Block:
    """A residual block that may go.

    Attributes:
        name: Qualified name of the module.
        layers: Names of the layers in it, in forward order.
        length: As :attr:`autoprune.graph.skip.Skip.length`.
    """

    name: str
    layers: tuple[str, ...]
    length: int = 0


@dataclass(frozen=True)
class Stage:
    """Residual blocks of one kind that follow one another: the units of granularity ``depth``.

    Attributes:
        name: Of its first block that may go.
        type_name: Class of its blocks.
        blocks: Those that may go, in forward order.
        depth: Blocks of the stage, those that must stay counted in: sparsity is the fraction of these.
    """

    name: str
    type_name: str
    blocks: tuple[Block, ...]
    depth: int

    @property
    def units(self) -> int:
        """Blocks that may go."""
        return len(self.blocks)


@dataclass(frozen=True)
class _Called:
    shape: tuple[int, ...]  # of the result
    length: int | None  # of Skip; None where no Skip can be called like this block


@dataclass(frozen=True)
class _Candidate:
    block: Block
    branches: tuple[tuple[torch.fx.Node, torch.fx.Node], ...]  # (addition, its operand that is not the trunk)
    shape: tuple[int, ...]


def find_stages(
    model: nn.Module, traced: Trace, layers: Sequence[str], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Stage]:
    """Return the residual blocks that may be replaced by the identity, by the name of their stage.

    Blocks of one class, in one parent, that give one shape form a stage; the first one may have to stay in it, for it
    makes that shape. A block inside which another is found is left to that one.

    Args:
        model: The dense model; not changed.
        traced: Its export.
        layers: Names of its layers, in forward order.
        args: Positional example inputs.
        kwargs: Keyword example inputs.
    """
    found = _innermost(list(_candidates(model, traced, layers)))
    called = _watch(model, {kin for one in found for kin in _siblings(model, one.block.name)}, args, kwargs)
    found = [
        replace(one, block=replace(one.block, length=known.length))
        for one in found
        if (known := called.get(one.block.name)) is not None and known.length is not None
    ]
    if found and not _exact(model, traced, found, args, kwargs):
        found = [one for one in found if _exact(model, traced, [one], args, kwargs)]
    stages: dict[tuple[str, ...], list[Block]] = {}
    for one in found:
        kin = [name for name in _siblings(model, one.block.name) if name in called and called[name].shape == one.shape]
        stages.setdefault(tuple(kin), []).append(one.block)
    return {
        blocks[0].name: Stage(
            blocks[0].name, type(model.get_submodule(blocks[0].name)).__name__, tuple(blocks), len(kin)
        )
        for kin, blocks in stages.items()
        if len(kin) > 1  # one block of each stage stays
    }


def is_within(name: str, blocks: Iterable[str]) -> bool:
    """Whether a tensor, layer or attribute belongs to one of some modules, by its qualified name."""
    return any(name.startswith(f"{block}.") for block in blocks)


def skip_blocks(model: nn.Module, blocks: Mapping[str, int], memo: dict[int, Any]) -> None:
    """Put identities for blocks into the memo of a copy: block name to :attr:`Skip.length`."""
    for name, length in blocks.items():
        block = model.get_submodule(name)
        memo[id(block)] = Skip.instead_of(block, length)


def _candidates(model: nn.Module, traced: Trace, layers: Sequence[str]) -> Iterator[_Candidate]:
    inside: dict[str, set[torch.fx.Node]] = {}
    repeated: set[str] = set()
    for node in traced.nodes:
        for key, (path, _) in (node.meta.get("nn_module_stack") or {}).items():
            name = inner_name(path).partition("@")[0]
            inside.setdefault(name, set()).add(node)
            if "@" in f"{key}{path}":
                repeated.add(name)
    for name, nodes in inside.items():
        within = tuple(layer for layer in layers if layer.startswith(f"{name}."))
        if not name or name in repeated or not within:
            continue
        leaving = [node for node in nodes if any(user not in nodes for user in node.users)]
        if len(leaving) != 1:
            continue
        branches: list[tuple[torch.fx.Node, torch.fx.Node]] = []
        activations: list[torch.fx.Node] = []
        entry = _trunk(leaving[0], nodes, branches, activations)
        if entry is None or not branches or not all(_has_passed(entry, node) for node in activations):
            continue
        entered, left = entry.meta.get("val"), leaving[0].meta.get("val")
        if isinstance(entered, Tensor) and isinstance(left, Tensor) and entered.shape == left.shape:
            yield _Candidate(Block(name, within), tuple(branches), tuple(entered.shape))


def _trunk(
    node: torch.fx.Node,
    inside: set[torch.fx.Node],
    branches: list[tuple[torch.fx.Node, torch.fx.Node]],
    activations: list[torch.fx.Node],
) -> torch.fx.Node | None:
    """Follow a result back to what entered, through additions only; None where that is not the one way there."""
    while node in inside:
        name = operator_name(node.target)
        if name in _ADDITIONS and len(node.all_input_nodes) == 2 and not node.kwargs and _same_shape(node):
            ways = []
            for here, other in (node.all_input_nodes, reversed(node.all_input_nodes)):
                tried: list[tuple[torch.fx.Node, torch.fx.Node]] = []
                passed: list[torch.fx.Node] = []
                entry = _trunk(here, inside, tried, passed)
                if entry is not None and entry.op != "get_attr":
                    ways.append((entry, [(node, other), *tried], passed))
            if len(ways) != 1:
                return None
            entry, tried, passed = ways[0]
            branches += tried
            activations += passed
            return entry
        if name in _ACTIVATIONS:
            activations.append(node)
        elif name not in _PASSING:
            return None
        first = node.args[0]
        if not isinstance(first, torch.fx.Node):
            return None
        node = first
    is_data = isinstance(node.meta.get("val"), Tensor)
    return node if is_data and (node.op == "call_function" or node.op == "placeholder") else None


def _same_shape(node: torch.fx.Node) -> bool:
    values = [node.meta.get("val"), *(operand.meta.get("val") for operand in node.all_input_nodes)]
    return all(isinstance(value, Tensor) and value.shape == values[0].shape for value in values)  # type: ignore[union-attr]


def _has_passed(entry: torch.fx.Node, activation: torch.fx.Node) -> bool:
    """Whether what enters is already a result of the same activation, so that it changes nothing."""
    node = entry
    while operator_name(node.target) in _PASSING | _SELECTING and isinstance(node.args[0], torch.fx.Node):
        node = node.args[0]
    return (
        node.op == "call_function"
        and operator_name(node.target) == operator_name(activation.target)
        and node.args[1:] == activation.args[1:]
        and node.kwargs == activation.kwargs
    )


def _innermost(found: list[_Candidate]) -> list[_Candidate]:
    names = [one.block.name for one in found]
    return [one for one in found if not any(other.startswith(f"{one.block.name}.") for other in names)]


def _siblings(model: nn.Module, name: str) -> list[str]:
    """Return the names of the modules of one class in one parent, in order."""
    parent, _, _ = name.rpartition(".")
    kind = type(model.get_submodule(name))
    prefix = f"{parent}." if parent else ""
    return [f"{prefix}{key}" for key, child in model.get_submodule(parent).named_children() if type(child) is kind]


def _watch(model: nn.Module, names: set[str], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, _Called]:
    """Run the model once to see what modules return, and in which form."""
    called: dict[str, _Called] = {}

    def hook(name: str, given: Any, named: Mapping[str, Any], result: Any) -> None:
        values = list(given) or [value for value in named.values() if isinstance(value, Tensor)]
        first = result[0] if isinstance(result, tuple) and result else result
        if not isinstance(first, Tensor):
            return
        shape = tuple(first.shape)
        fits = bool(values) and isinstance(values[0], Tensor) and values[0].shape == first.shape
        if isinstance(result, tuple):
            fits = fits and all(value is None for value in result[1:])
        length = len(result) if isinstance(result, tuple) else 0
        called[name] = _Called(shape, length if fits else None)

    def watcher(name: str) -> Any:
        return lambda _, given, named, result: hook(name, given, named, result)

    hooks = [model.get_submodule(name).register_forward_hook(watcher(name), with_kwargs=True) for name in names]
    try:
        with evaluation_mode(model), torch.no_grad():
            model(*args, **kwargs)
    finally:
        for handle in hooks:
            handle.remove()
    return called


def _exact(
    model: nn.Module,
    traced: Trace,
    found: Sequence[_Candidate],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> bool:
    """Whether the model with the blocks replaced gives what the exported graph gives with their branches zero."""
    memo: dict[int, Any] = {}
    skip_blocks(model, {one.block.name: one.block.length for one in found}, memo)
    smaller = copy_module(model, memo)
    zero = {branch for one in found for branch in one.branches}
    try:
        with evaluation_mode(smaller), evaluation_mode(model), torch.no_grad():
            got = output_tensors(smaller(*args, **kwargs))
            wanted = _run_without(model, traced, zero, args, kwargs)
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError, AssertionError):
        return False
    if len(got) != len(wanted) or not all(a.shape == b.shape for a, b in zip(got, wanted, strict=True)):
        return False
    return all(
        float((a - b).abs().max()) <= TOLERANCE.get(a.dtype, _LOOSE) * (float(b.abs().max()) or 1.0)
        for a, b in zip(got, wanted, strict=True)
        if a.is_floating_point() and a.numel()
    )


def _operand(
    env: Mapping[torch.fx.Node, Any],
    zero: set[tuple[torch.fx.Node, torch.fx.Node]],
    node: torch.fx.Node,
    operand: torch.fx.Node,
) -> Any:
    value = env[operand]
    return torch.zeros_like(value) if (node, operand) in zero else value


def _run_without(
    model: nn.Module,
    traced: Trace,
    zero: set[tuple[torch.fx.Node, torch.fx.Node]],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> list[Tensor]:
    """Run the exported graph with some operands of additions zero."""
    inputs = iter(tree_leaves((args, dict(kwargs))))
    held = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}
    env: dict[torch.fx.Node, Any] = {}
    for node in traced.nodes:
        if node.op == "placeholder":
            name = traced.tensors.get(node.name)
            env[node] = next(inputs) if name is None else held[name] if name in held else traced.constants[name]
        elif node.op == "get_attr":
            value: Any = node.graph.owning_module
            for part in str(node.target).split("."):
                value = getattr(value, part)
            env[node] = value
        elif node.op == "output":
            return output_tensors(torch.fx.map_arg(node.args[0], lambda n: env[n]))
        else:
            operands = torch.fx.map_arg(node.args, partial(_operand, env, zero, node))
            named = torch.fx.map_arg(node.kwargs, lambda n: env[n])
            env[node] = node.target(*operands, **named)  # type: ignore[operator]
    return []
