"""Coupled channels by identity propagation: which slices of which tensors disappear with each channel.

The export is walked once with integer tensors in the place of activations (see ``identity`` and ``rules``). Classes with
the same signature, that is the same tensors cut along the same dimensions, form a group.
"""

from __future__ import annotations

import operator
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from autoprune.errors import TraceError, unknown_name
from autoprune.graph.identity import Identities, fixed
from autoprune.graph.rules import Call, Stored, apply_rule
from autoprune.graph.trace import Trace, check_inputs, fingerprint, trace

PRUNABLE_TYPES = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Linear,
)
"""Modules whose ``weight`` can be pruned by a weight-level granularity."""


@dataclass(frozen=True)
class Layer:
    """A module with a prunable weight.

    Attributes:
        name: Qualified name.
        type_name: Class name.
        weight: Qualified name of its weight.
        shape: Shape of its weight.
        out_dim: Dimension of the weight that holds output channels.
    """

    name: str
    type_name: str
    weight: str
    shape: tuple[int, ...]
    out_dim: int


@dataclass(frozen=True)
class Slices:
    """Where the units of a group stand in one tensor.

    Attributes:
        tensor: Qualified name of a parameter or buffer.
        dim: Dimension that is cut.
        index: Shape (units, k): the k places that unit u takes along ``dim``.
        role: "out" where the unit's own weights stand (output channels), "in" where a later layer reads it, "along" for
            what goes with it (bias, batch norm, a bare parameter).
    """

    tensor: str
    dim: int
    index: Tensor
    role: Literal["out", "in", "along"]


@dataclass(frozen=True)
class Group:
    """Channels that must go together, in units that may go one by one.

    Attributes:
        name: Its first layer in forward order.
        layers: Layers that lose output channels, in forward order.
        units: Number of units.
        slices: Where the units stand, tensor by tensor.
        assumption: What a run of the smaller model must prove before the group may be used; empty if nothing.
    """

    name: str
    layers: tuple[str, ...]
    units: int
    slices: tuple[Slices, ...]
    assumption: str = ""


@dataclass(frozen=True)
class Pinned:
    """Output channels of a layer that stay.

    Attributes:
        layer: Qualified name.
        channels: How many of them.
        reason: Why.
    """

    layer: str
    channels: int
    reason: str


@dataclass(frozen=True)
class ModelGraph:
    """What may be pruned in a model.

    Attributes:
        fingerprint: Of the architecture.
        layers: Layer name to layer, in forward order.
        groups: Group name to group, in forward order.
        shapes: Parameter or buffer name to its dense shape.
        pinned: Channels that stay, with reasons.
        norm_scales: Names of batch-norm scales.
        untraced: Why no groups are known, where the model does not export; empty otherwise.
    """

    fingerprint: str
    layers: Mapping[str, Layer]
    groups: Mapping[str, Group]
    shapes: Mapping[str, tuple[int, ...]]
    pinned: tuple[Pinned, ...]
    norm_scales: frozenset[str] = field(default_factory=frozenset)
    untraced: str = ""

    def layer(self, name: str) -> Layer:
        """Return a layer by name, or raise with the closest name."""
        if name not in self.layers:
            raise unknown_name("layer", name, self.layers)
        return self.layers[name]

    def without(self, names: Mapping[str, str]) -> ModelGraph:
        """Return the graph with some groups pinned: group name to reason."""
        pinned = [
            Pinned(layer, self.groups[name].units, reason)
            for name, reason in names.items()
            for layer in self.groups[name].layers
        ]
        groups = {name: group for name, group in self.groups.items() if name not in names}
        return replace(self, groups=groups, pinned=(*self.pinned, *pinned))


def find_groups(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> ModelGraph:
    """Find layers and coupled channels of a model; the model is not changed.

    Args:
        model: The dense model.
        args: Positional example inputs.
        kwargs: Keyword example inputs.

    Returns:
        The graph. A model that does not export has layers but no groups, and says why in ``untraced``.

    Raises:
        TraceError: The model cannot run on the example inputs.
    """
    kwargs = kwargs or {}
    check_inputs(model, args, kwargs)
    identity = fingerprint(model)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    try:
        traced = trace(model, args, kwargs)
    except TraceError as error:
        return ModelGraph(
            identity, _layers(model, list(dict(model.named_parameters()))), {}, shapes, (), untraced=str(error)
        )
    walk = _Walk(traced, shapes)
    layers = _layers(model, walk.used)
    groups = _groups(walk, layers)
    return ModelGraph(identity, layers, groups, shapes, _pinned(walk, layers), frozenset(walk.norm_scales))


class _Walk:
    """One pass over the nodes; afterwards ``ids`` holds every tie."""

    def __init__(self, traced: Trace, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.ids = Identities()
        self.producers: dict[tuple[str, int], None] = {}
        self.consumers: dict[tuple[str, int], None] = {}
        self.norm_scales: set[str] = set()
        self.used: list[str] = []
        self._env: dict[torch.fx.Node, Any] = {}
        for node in traced.nodes:
            if node.op == "placeholder":
                self._env[node] = self._placeholder(node, traced, shapes)
            elif node.op == "call_function":
                self._env[node] = self._call(node)
            elif node.op == "output":
                for value in node.all_input_nodes:
                    self._pin_output(self._env[value])

    def _placeholder(self, node: torch.fx.Node, traced: Trace, shapes: Mapping[str, tuple[int, ...]]) -> Any:
        name = traced.tensors.get(node.name)
        value = node.meta.get("val")
        if name is not None and name in shapes:
            return Stored(name, shapes[name])
        return fixed(value.shape) if isinstance(value, Tensor) else value

    def _call(self, node: torch.fx.Node) -> Any:
        args: Any = torch.fx.map_arg(node.args, lambda n: self._env[n])
        kwargs: Any = torch.fx.map_arg(node.kwargs, lambda n: self._env[n])
        if node.target is operator.getitem:
            return args[0][args[1]]
        value = node.meta.get("val")
        outputs = [value] if isinstance(value, Tensor) else value if isinstance(value, list | tuple) else []
        shapes = [tuple(v.shape) for v in outputs if isinstance(v, Tensor)]
        schema = getattr(node.target, "_schema", None)
        name = (
            schema.name.partition("::")[2] if schema is not None else getattr(node.target, "__name__", str(node.target))
        )
        for used in node.all_input_nodes:
            stored = self._env[used]
            if isinstance(stored, Stored) and stored.name not in self.used:
                self.used.append(stored.name)
        call = Call(
            ids=self.ids,
            operator=name.removesuffix("_"),
            target=node.target,
            args=args,
            kwargs=kwargs,
            shape=shapes[0] if shapes else (),
            norm_scales=self.norm_scales,
            producers=self.producers,
            consumers=self.consumers,
        )
        result = apply_rule(call)
        if isinstance(value, list | tuple) and isinstance(result, Tensor):
            return [result, *[fixed(shape) for shape in shapes[1:]]]
        return result

    def _pin_output(self, value: Any) -> None:
        if isinstance(value, Tensor):
            self.ids.pin(value, "the network's output")
        elif isinstance(value, list | tuple):
            for item in value:
                self._pin_output(item)


def _layers(model: nn.Module, used: list[str]) -> dict[str, Layer]:
    """Return layers in the order in which their weights are first read; those never read come last."""
    found: dict[str, Layer] = {}
    order = {name: i for i, name in enumerate(used)}
    for name, module in model.named_modules():
        weight = module._parameters.get("weight")
        if isinstance(module, PRUNABLE_TYPES) and weight is not None:
            out_dim = 1 if isinstance(module, nn.modules.conv._ConvTransposeNd) else 0
            qualified = f"{name}.weight" if name else "weight"
            found[name] = Layer(name, type(module).__name__, qualified, tuple(weight.shape), out_dim)
    return dict(sorted(found.items(), key=lambda item: order.get(item[1].weight, len(order))))


def _groups(walk: _Walk, layers: Mapping[str, Layer]) -> dict[str, Group]:
    members: dict[int, dict[tuple[str, int], list[int]]] = defaultdict(dict)
    for axis, ids in walk.ids.axes():
        for place, root in enumerate(walk.ids.roots(ids)):
            if walk.ids.pinned(root) is None:
                members[root].setdefault(axis, []).append(place)
    by_signature: dict[tuple[tuple[tuple[str, int], int], ...], list[int]] = defaultdict(list)
    for root, places in members.items():
        if any(axis in walk.producers for axis in places):
            by_signature[tuple((axis, len(index)) for axis, index in places.items())].append(root)
    owner = {layer.weight: layer.name for layer in layers.values()}
    order = {name: i for i, name in enumerate(layers)}
    made: list[Group] = []
    for signature, roots in by_signature.items():
        producing = [owner[axis[0]] for axis, _ in signature if axis in walk.producers and axis[0] in owner]
        if not producing:
            continue
        slices = tuple(
            Slices(axis[0], axis[1], torch.tensor([members[root][axis] for root in roots]), _role(walk, axis))
            for axis, _ in signature
        )
        names = tuple(sorted(set(producing), key=lambda name: order[name]))
        assumption = next(filter(None, map(walk.ids.assumption, roots)), "")
        made.append(Group(names[0], names, len(roots), slices, assumption))
    made.sort(key=lambda group: (order[group.name], int(group.slices[0].index[0, 0])))
    seen: Counter[str] = Counter()
    named: dict[str, Group] = {}
    for group in made:
        seen[group.name] += 1
        name = group.name if seen[group.name] == 1 else f"{group.name}#{seen[group.name]}"
        named[name] = replace(group, name=name)
    return named


def _role(walk: _Walk, axis: tuple[str, int]) -> Literal["out", "in", "along"]:
    if axis in walk.producers:
        return "out"
    return "in" if axis in walk.consumers else "along"


def _pinned(walk: _Walk, layers: Mapping[str, Layer]) -> tuple[Pinned, ...]:
    axes = dict(walk.ids.axes())
    found: list[Pinned] = []
    for layer in layers.values():
        ids = axes.get((layer.weight, layer.out_dim))
        if ids is None:
            found.append(Pinned(layer.name, layer.shape[layer.out_dim], "not read by the traced forward pass"))
            continue
        reasons = Counter(reason for root in walk.ids.roots(ids) if (reason := walk.ids.pinned(root)) is not None)
        found += [Pinned(layer.name, count, reason) for reason, count in reasons.items()]
    return tuple(found)
