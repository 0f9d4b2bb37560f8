"""What pruning achieved, compared with what was asked: by the config, and by the record of the trial it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from autoprune.errors import SurgeryError, TraceError
from autoprune.graph.blocks import is_within
from autoprune.graph.groups import ModelGraph, find_groups
from autoprune.graph.trace import check_inputs, output_tensors
from autoprune.graph.walk import stored_tensors
from autoprune.pruning.granularity import DEPTH, granularity, removed_count
from autoprune.pruning.plan import blocks_gone, check_config
from autoprune.pruning.surgery import skipped_blocks
from autoprune.spec.config import PruningConfig
from autoprune.spec.record import TrialRecord
from autoprune.trial.task import positional

Axis = tuple[str, int]
"""Tensor name and dimension."""
Loss = tuple[int, Tensor]
"""Places that a group loses on an axis, and all the places that it has there."""
SPARSITY_SLACK = 0.01
"""A weight may be zero by chance, or by training."""


@dataclass(frozen=True)
class Achieved:
    """A comparison of a pruned network with what was asked.

    Attributes:
        differences: Sentences, one a layer or rule; empty where all is as asked.
        unchecked: What could not be compared, with the reason.
    """

    differences: tuple[str, ...]
    unchecked: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "; ".join(self.differences) or "as asked"

    def raise_for_differences(self) -> None:
        """Do nothing where all is as asked.

        Raises:
            SurgeryError: One sentence with every difference.
        """
        if self.differences:
            raise SurgeryError(f"the pruned network is not what was asked: {self}; apply the config to it anew")


def verify(
    smaller: nn.Module,
    asked: PruningConfig | TrialRecord,
    dense: nn.Module,
    example_inputs: Any,
    *,
    drop: float | None = None,
    max_drop: float | None = None,
) -> Achieved:
    """Compare a pruned network with its config or the record of its trial, and run it.

    Compared are the shape of every tensor and the pattern of every masked weight; with a record also channels, zeros,
    parameters and the MACs of every layer; and that it runs, with finite outputs in the shapes of the dense network's.

    Args:
        smaller: After :func:`autoprune.apply`, :meth:`autoprune.Sparsifier.finalize`, or training.
        asked: The config, or the trial's record, whose config is taken.
        dense: The network that was pruned; not changed.
        example_inputs: One batch as the model takes it.
        drop: Accuracy that was lost after training, in the unit of the score.
        max_drop: The largest drop allowed.

    Raises:
        ConfigError: The config is for another architecture, or the record holds none.
        TraceError: The dense model does not run on the inputs.
    """
    args = positional(example_inputs)
    kwargs: Mapping[str, Any] = example_inputs if isinstance(example_inputs, Mapping) else {}
    wanted = output_tensors(check_inputs(dense, args, kwargs))
    found = compare(smaller, asked, find_groups(dense, args, kwargs), args, kwargs, wanted)
    if drop is None or max_drop is None or drop <= max_drop:
        return found
    too_much = f"the accuracy drop is {drop:.4g} where at most {max_drop:.4g} is allowed"
    return Achieved((*found.differences, too_much), found.unchecked)


def compare(
    smaller: nn.Module,
    asked: PruningConfig | TrialRecord,
    graph: ModelGraph,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    wanted: list[Tensor] | None,
) -> Achieved:
    """Compare a pruned network with what was asked, where the graph of the dense one is known already.

    Args:
        smaller: The pruned network.
        asked: As for :func:`verify`.
        graph: Of the dense network.
        args: Positional example inputs.
        kwargs: Keyword example inputs.
        wanted: Outputs of the network that was pruned on these inputs; None where there are no inputs to run it on.

    Raises:
        ConfigError: The config does not fit the graph.
    """
    record = asked if isinstance(asked, TrialRecord) else None
    config = asked.config if isinstance(asked, TrialRecord) else asked
    unchecked: list[str] = []
    differences: list[str] = []
    if config is None:
        unchecked.append("the record holds no config")
    else:
        differences += config_differences(smaller, config, graph)
        unchecked += [
            f"{name}: a threshold decides how much goes" for name, choice in config.choices() if choice.threshold
        ]
    if wanted is None:
        return Achieved(tuple(dict.fromkeys(differences)), (*unchecked, "it was not run: no example inputs were given"))
    try:
        found = output_tensors(check_inputs(smaller, args, kwargs))
    except TraceError as error:
        return Achieved((*differences, str(error)), tuple(unchecked))
    differences += _output_differences(found, wanted)
    if record is not None:
        differences += _record_differences(smaller, record, graph, args, kwargs)
    return Achieved(tuple(dict.fromkeys(differences)), tuple(unchecked))


def config_differences(smaller: nn.Module, config: PruningConfig, graph: ModelGraph) -> list[str]:
    """Return where a pruned network is not what its config says, by the shapes and zeros of its tensors.

    Args:
        smaller: The pruned network.
        config: What was asked.
        graph: Of the dense network.

    Raises:
        ConfigError: The config does not fit the graph.
    """
    check_config(config, graph)
    tensors, skipped = stored_tensors(smaller), skipped_blocks(smaller)
    losses: dict[Axis, list[Loss]] = {}
    open_axes: set[Axis] = set()
    for name, choice in config.choices():
        if granularity(choice.granularity).removed and choice.granularity != DEPTH:
            group = graph.groups[name]
            for slices in group.slices:
                axis = (slices.tensor, slices.dim)
                if choice.threshold is not None:
                    open_axes.add(axis)
                else:
                    lost = removed_count(group.units, choice.fraction) * slices.index.shape[1]
                    losses.setdefault(axis, []).append((lost, slices.index))
    found = []
    for name, dense in graph.shapes.items():
        for dim, (size, left) in enumerate(zip(dense, tensors[name].shape if name in tensors else (), strict=False)):
            least, most = _asked(size, losses.get((name, dim), []))
            if not least <= left <= most and (name, dim) not in open_axes:
                asked = least if least == most else f"{least} to {most}"
                found.append(f"{name} has {left} of {size} along dimension {dim} where {asked} are asked")
    found += [f"{name} is missing" for name in graph.shapes if name not in tensors and not is_within(name, skipped)]
    found += _block_differences(skipped, config, graph)
    return found + list(_pattern_differences(tensors, config, graph))


def _block_differences(skipped: Iterable[str], config: PruningConfig, graph: ModelGraph) -> Iterator[str]:
    asked = {name: choice for name, choice in config.choices() if choice.granularity == DEPTH}
    for name, stage in graph.stages.items():
        gone = len({block.name for block in stage.blocks} & set(skipped))
        choice = asked.get(name)
        wanted = blocks_gone(stage, choice.fraction) if choice is not None and choice.threshold is None else 0
        if gone != wanted and (choice is None or choice.threshold is None):
            yield f"stage {name} lost {gone} of {stage.depth} blocks where {wanted} are asked"


def _asked(size: int, losses: list[Loss]) -> tuple[int, int]:
    """Return the least and the most places that stay on an axis: groups may share places (heads, channels in heads)."""
    if not losses:
        return size, size
    places = torch.cat([index.reshape(-1) for _, index in losses])
    counts = [count for count, _ in losses]
    least = max(0, size - sum(counts))
    return least, least if len(places) == len(set(places.tolist())) else size - max(counts)


def _pattern_differences(tensors: Mapping[str, Tensor], config: PruningConfig, graph: ModelGraph) -> Iterator[str]:
    """Yield the weights that break their pattern: a mask of their own magnitudes would remove more than zeros."""
    for name, choice in config.choices():
        shape = granularity(choice.granularity)
        if shape.mask is None or choice.threshold is not None or not choice.fraction:
            continue
        layer = graph.layer(name)
        if layer.weight not in tensors:  # it went with its block
            continue
        weight = tensors[layer.weight].detach().movedim(layer.out_dim, 0)
        gone = ~shape.mask(weight.abs().double().cpu(), choice.fraction)
        left = int((weight.cpu()[gone] != 0).sum())
        if left:
            zeros = float((weight == 0).double().mean())
            yield (
                f"{name} is {zeros:.1%} zero where {choice.granularity} at {choice.fraction:.1%} is asked "
                f"({left} weights too many)"
            )


def _output_differences(found: list[Tensor], wanted: list[Tensor]) -> Iterator[str]:
    shapes, dense = ([tuple(tensor.shape) for tensor in outputs] for outputs in (found, wanted))
    if shapes != dense:
        yield f"its outputs have the shapes {shapes} where the dense network's have {dense}"
    elif not all(bool(torch.isfinite(tensor).all()) for tensor in found if tensor.is_floating_point()):
        yield "its outputs on the example inputs are not finite"


def _record_differences(
    smaller: nn.Module, record: TrialRecord, graph: ModelGraph, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[str]:
    tensors = stored_tensors(smaller)
    for name, layer in record.layers.items():
        if name not in graph.layers:
            yield f"{name} of the record is missing"
            continue
        known = graph.layers[name]
        if known.weight not in tensors:
            if layer.channels:
                yield f"{name} is missing where the record has {layer.channels} channels"
            continue
        weight = tensors[known.weight].detach()
        channels, dense = weight.shape[known.out_dim], known.shape[known.out_dim]
        if layer.dense_channels != dense:
            yield f"{name} has {dense} channels when dense where the record has {layer.dense_channels}"
        if layer.channels != channels:
            yield f"{name} has {channels} channels where the record has {layer.channels}"
        zeros = float((weight == 0).double().mean())
        if abs(zeros - layer.weight_sparsity) > SPARSITY_SLACK:
            yield f"{name} is {zeros:.1%} zero where the record has {layer.weight_sparsity:.1%}"
    params = sum(parameter.numel() for parameter in smaller.parameters())
    if "params" in record.values and params != record.values["params"]:
        yield f"it has {params:,} parameters where the record has {record.values['params']:,.0f}"
    yield from _mac_differences(_layer_macs(smaller, args, kwargs), record, _samples(args, kwargs))


def _layer_macs(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, int]:
    """Return the MACs of every module by torch's own counter, whose flop is half a multiply-add."""
    counter = FlopCounterMode(display=False)
    with counter:
        check_inputs(model, args, kwargs)
    root = type(model).__name__ + "."
    return {
        name.removeprefix(root): sum(counts.values()) // 2
        for name, counts in counter.get_flop_counts().items()
        if name.startswith(root)
    }


def _mac_differences(macs: Mapping[str, int], record: TrialRecord, samples: int) -> Iterator[str]:
    """Compare layer by layer; the study may have counted another batch size, which is one factor for all layers."""
    both = {name: (layer.macs, macs[name]) for name, layer in record.layers.items() if macs.get(name) and layer.macs}
    if not both:
        return
    batch = max(1, round(median(theirs * samples / ours for theirs, ours in both.values())))
    for name, (theirs, ours) in both.items():
        if ours * batch != theirs * samples:
            yield f"{name} has {ours * batch // samples:,} MACs where the record has {theirs:,}"


def _samples(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    return next((len(leaf) for leaf in tree_leaves((args, dict(kwargs))) if isinstance(leaf, Tensor) and leaf.dim()), 1)
