"""Surgery on a network that trains: the same modules and parameter objects, smaller, with the optimizer's state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from autoprune.errors import ConfigError
from autoprune.graph.groups import Group, ModelGraph
from autoprune.graph.rules import SIZE
from autoprune.graph.walk import stored_tensors
from autoprune.pruning.kept import kept_of, note_cut
from autoprune.pruning.plan import cuts_of
from autoprune.pruning.surgery import follow_shapes


def shrink(model: nn.Module, graph: ModelGraph, gone: Mapping[str, Tensor], optimizer: Optimizer) -> ModelGraph:
    """Cut units out of a model in place, and out of the optimizer's state.

    Parameters stay the same objects, so the optimizer's groups and anybody's references hold; gradients are dropped.

    Args:
        model: What trains.
        graph: Its graph.
        gone: Group name to the units that go, shape (count,).
        optimizer: Whose state tensors in a parameter's shape are cut alike.

    Returns:
        The graph of the smaller model, under the same fingerprint.

    Raises:
        ConfigError: The optimizer keeps state that has neither the shape of its parameter nor one number.
    """
    cuts = cuts_of(graph, gone)
    tensors = stored_tensors(model)
    by_tensor: dict[str, dict[int, Tensor]] = {}
    for (name, dim), places in cuts.items():
        if dim != SIZE:
            by_tensor.setdefault(name, {})[dim] = places
    for name in by_tensor:
        for key, value in _state(optimizer, tensors[name]).items():
            if isinstance(value, Tensor) and value.numel() > 1 and value.shape != tensors[name].shape:
                raise ConfigError(
                    f"{type(optimizer).__name__} keeps {key!r} of {name!r} in another shape than the weight, so it "
                    "cannot be cut with it; use remove='end'"
                )
    for name, dims in by_tensor.items():
        tensor = tensors[name]
        state = _state(optimizer, tensor)
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == tensor.shape and value.dim():
                state[key] = _select(value, dims)
        tensor.grad = None
        tensor.data = _select(tensor.detach(), dims)
    changed = {id(tensors[name]) for name in by_tensor}
    for module in model.modules():
        if any(id(tensor) in changed for tensor in (*module._parameters.values(), *module._buffers.values())):
            follow_shapes(module)
    for (name, dim), places in cuts.items():
        if dim == SIZE:
            owner, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(owner), attribute, places.numel())
    note_cut(model, kept_of(model), cuts, graph.shapes)
    return smaller_graph(graph, gone)


def smaller_graph(graph: ModelGraph, gone: Mapping[str, Tensor]) -> ModelGraph:
    """Return the graph of the model without some units: places are numbered anew, nothing is traced again."""
    cuts = cuts_of(graph, gone)
    shapes = {
        name: tuple(len(cuts[name, dim]) if (name, dim) in cuts else size for dim, size in enumerate(shape))
        for name, shape in graph.shapes.items()
    }
    layers = {name: replace(layer, shape=shapes[layer.weight]) for name, layer in graph.layers.items()}

    def moved(index: Tensor, axis: tuple[str, int], size: int, units: Tensor) -> Tensor:
        if axis not in cuts:
            return index[units]
        place = torch.full((size,), -1)
        place[cuts[axis]] = torch.arange(len(cuts[axis]))
        return place[index[units]]

    def smaller(group: Group) -> Group:
        stays = torch.ones(group.units, dtype=torch.bool)
        stays[gone.get(group.name, torch.zeros(0, dtype=torch.long))] = False
        units = torch.nonzero(stays).reshape(-1)
        return replace(
            group,
            units=len(units),
            slices=tuple(
                replace(
                    each, index=moved(each.index, (each.tensor, each.dim), graph.shapes[each.tensor][each.dim], units)
                )
                for each in group.slices
            ),
            sizes=tuple(
                replace(
                    size,
                    dense=len(cuts[size.name, SIZE]) if (size.name, SIZE) in cuts else size.dense,
                    index=moved(size.index, (size.name, SIZE), size.dense, units),
                )
                for size in group.sizes
            ),
        )

    return replace(
        graph, shapes=shapes, layers=layers, groups={name: smaller(group) for name, group in graph.groups.items()}
    )


def _state(optimizer: Optimizer, tensor: Tensor) -> dict[str, object]:
    return optimizer.state.get(tensor, {})  # type: ignore[no-any-return]


def _select(tensor: Tensor, dims: Mapping[int, Tensor]) -> Tensor:
    for dim, places in dims.items():
        tensor = tensor.index_select(dim, places.to(tensor.device))
    return tensor
