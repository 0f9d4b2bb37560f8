"""Units of a layer or group as places in its tensors: what penalties, gates and drop-and-grow work on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from autoprune.graph.groups import ModelGraph
from autoprune.pruning.criteria import Role
from autoprune.pruning.granularity import DEPTH, granularity, size_of
from autoprune.spec.config import LayerChoice, PruningConfig


@dataclass(frozen=True)
class Places:
    """Where units stand in one tensor.

    Attributes:
        tensor: Parameter name.
        labels: Unit of each entry, -1 for none; broadcasts to the tensor.
        role: As in ``graph.groups.Slices``.
        read: As in ``graph.groups.Slices``.
    """

    tensor: str
    labels: Tensor
    role: Role
    read: bool


@dataclass(frozen=True)
class Units:
    """The units of one entry of a config.

    Attributes:
        name: Layer or group.
        choice: Its entry.
        count: Units.
        places: Where they stand.
    """

    name: str
    choice: LayerChoice
    count: int
    places: tuple[Places, ...]

    @property
    def removed(self) -> bool:
        """Whether they are channels or heads."""
        return granularity(self.choice.granularity).removed

    def weights(self) -> tuple[Places, ...]:
        """Return the places of the units' own weights: output channels, or the weight of the pattern."""
        return tuple(each for each in self.places if each.role == "out")

    def sums(self, values: Mapping[str, Tensor], places: tuple[Places, ...]) -> Tensor:
        """Return for each unit the sum of ``values`` over some of its places, shape (count,).

        Args:
            values: Parameter name to values in its shape.
            places: Some of ``self.places``.
        """
        first = values[places[0].tensor]
        total = torch.zeros(self.count + 1, dtype=first.dtype, device=first.device)
        for each in places:
            tensor = values[each.tensor]
            labels = each.labels.to(tensor.device)
            thin = [dim for dim in range(tensor.dim()) if labels.shape[dim] == 1 and tensor.shape[dim] > 1]
            reduced = tensor.sum(thin) if thin else tensor
            flat = labels.reshape(-1)
            total.index_add_(0, torch.where(flat < 0, self.count, flat), reduced.reshape(-1))
        return total[:-1]

    def spread(self, per_unit: Tensor, place: Places, elsewhere: float) -> Tensor:
        """Return each entry's value of its unit, in a shape that broadcasts to the tensor.

        Args:
            per_unit: Shape (count,).
            place: One of ``self.places``.
            elsewhere: Value of entries that belong to no unit.
        """
        return torch.cat([per_unit, per_unit.new_full((1,), elsewhere)])[place.labels.to(per_unit.device)]


def units_of(config: PruningConfig, graph: ModelGraph) -> tuple[Units, ...]:
    """Return the units of every entry of a config that prunes something.

    N:M and kernel patterns are chosen run by run: their units here are single weights. Residual blocks are no units: no
    method but the config's criteria chooses them.
    """
    found = []
    for name, choice in config.choices():
        shape = granularity(choice.granularity)
        if choice.fraction == 0 or choice.granularity == DEPTH:
            continue
        if shape.removed:
            group = graph.groups[name]
            places = []
            for slices in group.slices:
                size = graph.shapes[slices.tensor]
                labels = torch.full((size[slices.dim],), -1)
                labels[slices.index] = torch.arange(group.units)[:, None]
                view = labels.reshape([-1 if dim == slices.dim else 1 for dim in range(len(size))])
                places.append(Places(slices.tensor, view, slices.role, slices.read))
            found.append(Units(name, choice, group.units, tuple(places)))
        else:
            layer = graph.layer(name)
            size = size_of(layer)
            labels = shape.units(size) if shape.units is not None else torch.arange(prod(size)).reshape(size)
            place = Places(layer.weight, labels.movedim(0, layer.out_dim), "out", True)
            found.append(Units(name, choice, int(labels.max()) + 1, (place,)))
    return tuple(found)
