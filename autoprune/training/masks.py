"""What is pruned so far, in the shapes of the network that trains: units of groups, weight patterns, whole blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, distributed

from autoprune.graph.blocks import is_within
from autoprune.graph.groups import ModelGraph
from autoprune.graph.rules import SIZE
from autoprune.pruning.plan import Plan, cuts_of


@dataclass(frozen=True)
class Masks:
    """What is pruned, before anything is removed.

    Attributes:
        gone: Group name to the units that go, ascending, shape (count,).
        patterns: Weight name to the kept weights, bool, in the shape of the weight.
        granularities: Weight name to the granularity of its pattern.
        blocks: Residual block that goes to :attr:`autoprune.graph.skip.Skip.length`.
    """

    gone: Mapping[str, Tensor] = field(default_factory=dict)
    patterns: Mapping[str, Tensor] = field(default_factory=dict)
    granularities: Mapping[str, str] = field(default_factory=dict)
    blocks: Mapping[str, int] = field(default_factory=dict)


def masks_of(plan: Plan, graph: ModelGraph) -> Masks:
    """Translate a plan into masks of full-sized tensors; :func:`plan_of` goes back."""
    gone = {}
    for name, group in graph.groups.items():
        first = group.slices[0]
        kept = plan.cuts.get((first.tensor, first.dim))
        if kept is not None:
            stays = torch.zeros(graph.shapes[first.tensor][first.dim], dtype=torch.bool)
            stays[kept] = True
            places = torch.nonzero(~stays[first.index[:, 0]]).reshape(-1)
            if places.numel():
                gone[name] = places
    patterns = {}
    for name, mask in plan.masks.items():
        whole = torch.zeros(graph.shapes[name], dtype=torch.bool)
        kept_places = [
            plan.cuts.get((name, dim), torch.arange(size)).numpy() for dim, size in enumerate(graph.shapes[name])
        ]
        whole[np.ix_(*kept_places)] = mask.cpu()
        patterns[name] = whole
    return Masks(gone, patterns, dict(plan.patterns), dict(plan.skipped))


def plan_of(masks: Masks, graph: ModelGraph) -> Plan:
    """Return the plan that removes what the masks zero."""
    cuts = cuts_of(graph, masks.gone)
    left = {}
    for name, mask in masks.patterns.items():
        if is_within(name, masks.blocks):
            continue
        for dim in range(mask.dim()):
            if (name, dim) in cuts:
                mask = mask.index_select(dim, cuts[name, dim])
        left[name] = mask
    return Plan(cuts, left, {name: masks.granularities[name] for name in left}, skipped=masks.blocks)


def kept_weights(masks: Masks, graph: ModelGraph, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return for every parameter that loses something its kept entries, bool, same shape and device.

    Of a group's units everything is zeroed: where they are made, what goes along, and where they are read. Zero where
    they are read is what makes the later removal exact. A block is zero in all its parameters, so its branch is.
    """
    kept: dict[str, Tensor] = {name: mask.clone() for name, mask in masks.patterns.items()}
    for (name, dim), places in cuts_of(graph, masks.gone).items():
        if dim == SIZE or name not in parameters:
            continue
        stays = torch.zeros(graph.shapes[name][dim], dtype=torch.bool)
        stays[places] = True
        mask = kept.setdefault(name, torch.ones(graph.shapes[name], dtype=torch.bool))
        mask &= stays.reshape([-1 if axis == dim else 1 for axis in range(mask.dim())])
    for name, parameter in parameters.items() if masks.blocks else ():
        if is_within(name, masks.blocks):
            kept[name] = torch.zeros(parameter.shape, dtype=torch.bool)
    return {name: mask.to(parameters[name].device) for name, mask in kept.items()}


def agreed(masks: Masks, graph: ModelGraph) -> Masks:
    """Return the masks of the first process of the default process group; the same where there is only one.

    Weights and reduced gradients are the same in all of them, the data of a criterion need not be.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return masks
    device = torch.device("cuda") if distributed.get_backend() == "nccl" else torch.device("cpu")
    gone: dict[str, Tensor] = {}
    for name, group in graph.groups.items():
        flags = torch.zeros(group.units, dtype=torch.uint8, device=device)
        flags[masks.gone.get(name, torch.zeros(0, dtype=torch.long)).to(device)] = 1
        distributed.broadcast(flags, 0)
        if bool(flags.any()):
            gone[name] = torch.nonzero(flags.cpu()).reshape(-1)
    patterns = {}
    for name, mask in masks.patterns.items():
        sent = mask.to(device, torch.uint8)
        distributed.broadcast(sent, 0)
        patterns[name] = sent.cpu().bool()
    blocks = [block for stage in graph.stages.values() for block in stage.blocks]
    if blocks:
        flags = torch.tensor([block.name in masks.blocks for block in blocks], dtype=torch.uint8, device=device)
        distributed.broadcast(flags, 0)
        blocks = [block for block, goes in zip(blocks, flags.tolist(), strict=True) if goes]
    return Masks(gone, patterns, masks.granularities, {block.name: block.length for block in blocks})


def packed(mask: Tensor) -> Tensor:
    """Return a boolean mask as bits, uint8, shape (ceil(entries / 8),)."""
    return torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(-1)))


def unpacked(bits: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the mask that :func:`packed` was given.

    Raises:
        ValueError: The bits are not of a mask of this shape.
    """
    count = int(np.prod(shape, dtype=np.int64))
    if bits.numel() != -(-count // 8):
        raise ValueError(f"{bits.numel()} bytes for a mask of {count} weights")
    return torch.from_numpy(np.unpackbits(bits.numpy(), count=count)).bool().reshape(shape)
