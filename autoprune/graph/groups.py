"""Coupled channels by identity propagation: which slices of which tensors disappear with each channel.

The export is walked with integer tensors in the place of activations (see ``walk``, ``identity`` and ``rules``).
Classes with the same signature, that is the same tensors cut along the same dimensions, form a group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor, nn

from autoprune.errors import TraceError, unknown_name
from autoprune.graph.blocks import Stage, find_stages
from autoprune.graph.members import Axis, Members, members
from autoprune.graph.rules import SIZE
from autoprune.graph.rules.attention import PRODUCT
from autoprune.graph.rules.reshape import SPLIT
from autoprune.graph.trace import check_inputs, fingerprint, trace
from autoprune.graph.walk import Walk, first_names, integers, stored_tensors

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
        read: Whether a later layer reads the units here: always for "in", and for an "out" that is also read
            (shared or tied weights).
    """

    tensor: str
    dim: int
    index: Tensor
    role: Literal["out", "in", "along"]
    read: bool = False


@dataclass(frozen=True)
class Size:
    """An integer attribute of a module that counts the units of a group, such as ``n_head``.

    Attributes:
        name: Qualified name: module, dot, attribute.
        dense: Its value in the dense model.
        index: Shape (units, k): the k of its ``dense`` counts that unit u stands for.
    """

    name: str
    dense: int
    index: Tensor


@dataclass(frozen=True)
class Group:
    """Channels that must go together, in units that may go one by one.

    Attributes:
        name: Its first layer in forward order.
        layers: Layers that lose output channels, in forward order.
        units: Number of units.
        slices: Where the units stand, tensor by tensor.
        kind: "head" where a unit is an attention head with all its queries, keys and values (with grouped queries, a
            key and value head and all query heads that share it), else "channel". The granularity that removes it.
        sizes: Integer attributes that follow.
        assumption: What a run of the smaller model must prove before the group may be used; empty if nothing.
    """

    name: str
    layers: tuple[str, ...]
    units: int
    slices: tuple[Slices, ...]
    kind: Literal["channel", "head"] = "channel"
    sizes: tuple[Size, ...] = ()
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
        stages: Stage name to residual blocks that may be replaced by the identity.
    """

    fingerprint: str
    layers: Mapping[str, Layer]
    groups: Mapping[str, Group]
    shapes: Mapping[str, tuple[int, ...]]
    pinned: tuple[Pinned, ...]
    norm_scales: frozenset[str] = field(default_factory=frozenset)
    untraced: str = ""
    stages: Mapping[str, Stage] = field(default_factory=dict)

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
    try:
        traced = trace(model, args, kwargs)
    except TraceError as error:
        return layers_alone(model, str(error))
    identity = fingerprint(model)
    shapes = {name: tuple(tensor.shape) for name, tensor in stored_tensors(model).items()}
    walks = [Walk(model, traced, "free")]
    if walks[0].found.choices:
        walks.append(Walk(model, traced, "heads"))
    layers = _layers(model, list(walks[0].used))
    groups = _named(_groups(walks, layers, model), layers)
    return ModelGraph(
        identity,
        layers,
        groups,
        shapes,
        _pinned(walks, layers),
        frozenset(walks[0].found.norm_scales),
        stages=find_stages(model, traced, list(layers), args, kwargs),
    )


def layers_alone(model: nn.Module, reason: str) -> ModelGraph:
    """Return the graph of a model that is not traced: layers for weight patterns, no groups.

    Args:
        model: The dense model.
        reason: Why no groups are known.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in stored_tensors(model).items()}
    return ModelGraph(fingerprint(model), _layers(model, list(shapes)), {}, shapes, (), untraced=reason)


def _layers(model: nn.Module, used: list[str]) -> dict[str, Layer]:
    """Return layers in the order in which their weights are first read; those never read come last.

    Layers that share one weight are one layer, under the first name.
    """
    found: dict[str, Layer] = {}
    order = {name: i for i, name in enumerate(used)}
    first = first_names(model)
    owned: set[str] = set()
    for name, module in model.named_modules():
        weight = module._parameters.get("weight")
        out_dim = _out_dim(module)
        qualified = first.get(f"{name}.weight" if name else "weight", "")
        if out_dim is not None and weight is not None and qualified not in owned:
            owned.add(qualified)
            found[name] = Layer(name, type(module).__name__, qualified, tuple(weight.shape), out_dim)
    return dict(sorted(found.items(), key=lambda item: order.get(item[1].weight, len(order))))


def _out_dim(module: nn.Module) -> int | None:
    """Return which dimension of a layer's weight holds output channels; None for what is no prunable layer."""
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return 1
    if isinstance(module, PRUNABLE_TYPES):
        return 0
    # transformers' Conv1D, the linear layer of GPT-2, known by its attributes: the library is not needed for it
    return 1 if type(module).__name__ == "Conv1D" and {"nf", "nx"} <= integers(module).keys() else None


def _groups(walks: list[Walk], layers: Mapping[str, Layer], model: nn.Module) -> list[Group]:
    """Collect the groups of the first walk and, of the second, the heads that the first could not offer."""
    sizes = {
        f"{name}.{key}" if name else key: value
        for name, module in model.named_modules()
        for key, value in integers(module).items()
    }
    made: dict[tuple[tuple[Axis, int], ...], Group] = {}
    for walk in walks:
        for each in members(walk.found.ids):
            group = _group(walk, layers, sizes, each)
            if group is not None and (walk is walks[0] or group.kind == "head"):
                made.setdefault(tuple((axis, where.shape[1]) for axis, where in each.index.items()), group)
    return list(made.values())


def _group(walk: Walk, layers: Mapping[str, Layer], sizes: Mapping[str, int], each: Members) -> Group | None:
    """Make a group of classes with one signature; None where no layer makes its channels."""
    found, ids = walk.found, walk.found.ids
    producing = {axis[0] for axis in each.index if axis in found.producers}
    names = tuple(layer.name for layer in layers.values() if layer.weight in producing)
    if not names:
        return None
    heads = all({SPLIT, PRODUCT} <= ids.marks(root) for root in each.roots)
    return Group(
        name=names[0],
        layers=names,
        units=len(each.roots),
        slices=tuple(
            Slices(axis[0], axis[1], where, _role(walk, axis), axis in found.consumers)
            for axis, where in each.index.items()
            if axis[1] != SIZE
        ),
        kind="head" if heads else "channel",
        sizes=tuple(Size(axis[0], sizes[axis[0]], where) for axis, where in each.index.items() if axis[1] == SIZE),
        assumption=next(filter(None, map(ids.assumption, each.roots)), ""),
    )


def _named(groups: list[Group], layers: Mapping[str, Layer]) -> dict[str, Group]:
    """Order groups and tell those with the same first layer apart; heads come before channels within heads."""
    order = {name: i for i, name in enumerate(layers)}
    groups = sorted(groups, key=lambda g: (order[g.name], g.kind == "channel", int(g.slices[0].index[0, 0])))
    seen: Counter[str] = Counter()
    named: dict[str, Group] = {}
    for group in groups:
        seen[group.name] += 1
        name = group.name if seen[group.name] == 1 else f"{group.name}#{seen[group.name]}"
        named[name] = replace(group, name=name)
    return named


def _role(walk: Walk, axis: Axis) -> Literal["out", "in", "along"]:
    if axis in walk.found.producers:
        return "out"
    return "in" if axis in walk.found.consumers else "along"


def _pinned(walks: list[Walk], layers: Mapping[str, Layer]) -> tuple[Pinned, ...]:
    """List the output channels that stay in every walk, with the reason of the first."""
    found: list[Pinned] = []
    for layer in layers.values():
        axis = (layer.weight, layer.out_dim)
        each = [_reasons(walk, axis) for walk in walks]
        if not each[0]:
            found.append(Pinned(layer.name, layer.shape[layer.out_dim], "not read by the traced forward pass"))
            continue
        stay = [reasons[0] for reasons in zip(*each, strict=True) if None not in reasons]
        found += [Pinned(layer.name, count, str(reason)) for reason, count in Counter(stay).items()]
    return tuple(found)


def _reasons(walk: Walk, axis: Axis) -> list[str | None]:
    """Return for every place of an axis why it stays, None where it may go; empty for an axis that is never used."""
    ids = dict(walk.found.ids.axes()).get(axis)
    return [] if ids is None else [walk.found.ids.pinned(root) for root in walk.found.ids.roots(ids)]
