"""From a config to what is cut and what is zeroed: all decisions, no model changed yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoprune.errors import ConfigError, UnknownNameError, unknown_name
from autoprune.graph.blocks import Stage, is_within
from autoprune.graph.groups import Layer, ModelGraph
from autoprune.graph.rules import SIZE
from autoprune.pruning.criteria import CRITERIA
from autoprune.pruning.granularity import DEPTH, granularity, lowest, removed_count, unit_sums
from autoprune.pruning.scores import BlockScores, ScoreBook, Scores, pattern_scores, units_below
from autoprune.spec.config import LayerChoice, PruningConfig

Cuts = Mapping[tuple[str, int], Tensor]
"""(tensor name, dimension) to the places that stay, ascending, shape (kept,); likewise (attribute name, SIZE)."""


@dataclass(frozen=True)
class Plan:
    """What one config does to one model.

    Attributes:
        cuts: What stays of each tensor that gets smaller.
        masks: Weight name to the kept weights of what is left (bool, shape after the cuts).
        patterns: Weight name to the granularity of its mask.
        gone: Group name to how many of its units are cut.
        skipped: Residual block that goes to :attr:`autoprune.graph.skip.Skip.length`.
    """

    cuts: Cuts
    masks: Mapping[str, Tensor]
    patterns: Mapping[str, str]
    gone: Mapping[str, int] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)


NOTHING = Plan({}, {}, {})
"""The plan that leaves the model dense."""


def check_config(config: PruningConfig, graph: ModelGraph) -> None:
    """Check that a config fits a model, before anything is computed.

    Raises:
        ConfigError: Names the layer, the rule and the remedy.
        UnknownNameError: A layer, group, granularity or criterion does not exist.
    """
    if config.model.fingerprint != graph.fingerprint:
        raise ConfigError(
            f"the config is for the architecture {config.model.fingerprint}, the model is {graph.fingerprint}; "
            f"{_what_differs(config, graph)}; use the model that the study searched"
        )
    for name, choices in config.layers.items():
        try:
            removing = [granularity(choice.granularity).removed for choice in choices]
            for choice in choices:
                CRITERIA.get(choice.criterion)
        except UnknownNameError as error:
            raise UnknownNameError(f"layer {name!r}: {error}") from error
        if removing not in ([True], [False], [True, False]):
            raise ConfigError(
                f"layer {name!r} has {' then '.join(choice.granularity for choice in choices)}; "
                "two entries are first channel, then a weight pattern on what is left"
            )
        for choice in choices:
            _check_choice(name, choice, graph)


def _what_differs(config: PruningConfig, graph: ModelGraph, most: int = 6) -> str:
    """Say, layer by layer, what differs from the config's network, or what of the config another model cannot take."""
    if config.shapes is not None:
        here = {name: layer.shape for name, layer in graph.layers.items()}
        odd = [
            f"{name!r} is {_shown(here[name])} and was {_shown(shape)}" if name in here else f"{name!r} is missing"
            for name, shape in config.shapes.items()
            if here.get(name) != shape
        ]
        odd += [f"{name!r} is new" for name in here if name not in config.shapes]
        if not odd:
            return (
                f"its {len(here)} layers have the same names and shapes, so a type or the wiring between them differs"
            )
        return _few(odd, most)
    odd = []
    for name, choices in config.layers.items():
        if name not in graph.layers and name not in graph.groups:
            odd.append(f"{name!r} is missing")
            continue
        try:
            for choice in choices:
                _check_choice(name, choice, graph)
        except (ConfigError, UnknownNameError) as error:
            odd.append(f"{name!r} cannot be pruned so ({str(error).partition(';')[0]})")
    if not odd:
        return (
            f"it has all {len(config.layers)} layers that the config names, so a width, a type or another layer differs"
        )
    return f"of {len(config.layers)} layers that the config names {_few(odd, most)}"


def _few(texts: list[str], most: int) -> str:
    more = f", and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _check_choice(name: str, choice: LayerChoice, graph: ModelGraph) -> None:
    shape = granularity(choice.granularity)
    criterion = CRITERIA.get(choice.criterion)
    if criterion.granularities is not None and choice.granularity not in criterion.granularities:
        raise ConfigError(
            f"layer {name!r}: criterion {choice.criterion!r} scores only {', '.join(criterion.granularities)}, "
            f"not {choice.granularity!r}; choose another criterion"
        )
    if choice.granularity == DEPTH:
        _check_stage(name, graph)
    elif shape.removed:
        if name in graph.stages and name not in graph.groups:
            raise ConfigError(f"{name!r} is a stage of residual blocks; its granularity is {DEPTH!r}")
        if name not in graph.groups:
            _raise_no_group(name, graph)
        kind = graph.groups[name].kind
        if kind != choice.granularity:
            raise ConfigError(
                f"group {name!r} is made of {kind}s, and {choice.granularity!r} removes something else; "
                f"use granularity {kind!r}"
            )
    else:
        refusal = shape.refusal(graph.layer(name))
        if refusal:
            raise ConfigError(f"{refusal}; choose another granularity")
        if choice.threshold is not None and shape.units is None:
            raise ConfigError(
                f"layer {name!r}: {choice.granularity} is not chosen unit by unit, so no threshold can decide; "
                "give a sparsity"
            )


def _check_stage(name: str, graph: ModelGraph) -> None:
    if name in graph.stages:
        return
    if graph.untraced:
        raise ConfigError(f"stage {name!r} cannot lose blocks: {graph.untraced}")
    if not graph.stages:
        raise ConfigError(
            f"stage {name!r}: this model has no residual block that the identity can replace; "
            "choose another granularity"
        )
    owner = next((s.name for s in graph.stages.values() if name in [block.name for block in s.blocks]), None)
    if owner is not None:
        raise ConfigError(f"block {name!r} belongs to stage {owner!r}; prune that name")
    if name in graph.layers:
        raise ConfigError(
            f"{name!r} is a layer, and {DEPTH!r} removes whole residual blocks; give it another granularity, or choose "
            f"among {', '.join(map(repr, graph.stages))}"
        )
    inside = [stage for stage in graph.stages if stage.startswith(f"{name}.")]
    if inside:
        raise ConfigError(f"{name!r} is no block; blocks are in it: prune {', '.join(map(repr, inside))}")
    if any(layer.startswith(f"{name}.") for layer in graph.layers):
        raise ConfigError(
            f"block {name!r} stays: the identity replaces a block that adds a branch to what enters it, changes that "
            "in no other way, keeps its shape, is called once, and is not the last of its stage; "
            f"choose among {', '.join(map(repr, graph.stages))}"
        )
    raise unknown_name("stage", name, graph.stages)


def _raise_no_group(name: str, graph: ModelGraph) -> None:
    if graph.untraced:
        raise ConfigError(f"layer {name!r} cannot lose channels: {graph.untraced}")
    if name not in graph.layers:
        raise unknown_name("group", name, graph.groups)
    owner = next((group.name for group in graph.groups.values() if name in group.layers), None)
    if owner is not None:
        raise ConfigError(f"the channels of layer {name!r} are tied to group {owner!r}; prune that name")
    reasons = sorted({pinned.reason for pinned in graph.pinned if pinned.layer == name})
    raise ConfigError(f"the channels of layer {name!r} stay ({'; '.join(reasons)}); choose a weight pattern for it")


def make_plan(config: PruningConfig, graph: ModelGraph, book: ScoreBook) -> Plan:
    """Decide every unit that goes.

    Raises:
        ConfigError: As :func:`check_config`, and where scores cannot be computed.
    """
    check_config(config, graph)
    plan = plan_units(config, graph, book)
    skipped = blocks_that_go(config, graph, book)
    if not skipped:
        return plan
    left = {name: mask for name, mask in plan.masks.items() if not is_within(name, skipped)}
    return replace(plan, masks=left, patterns={name: plan.patterns[name] for name in left}, skipped=skipped)


def plan_units(config: PruningConfig, graph: ModelGraph, book: Scores) -> Plan:
    """Decide channels, heads and weights, for a config that was checked; the graph may be smaller by now.

    Raises:
        ConfigError: Scores cannot be computed.
    """
    gone: dict[str, Tensor] = {}
    for name, choice in config.choices():
        if granularity(choice.granularity).removed and choice.granularity != DEPTH:
            group = graph.groups[name]
            scores = book.unit_scores(choice.criterion, group)
            count = _count(choice, scores)
            if count:
                gone[name] = lowest(scores, count)
    cuts = cuts_of(graph, gone)
    masks: dict[str, Tensor] = {}
    patterns: dict[str, str] = {}
    for name, choice in config.choices():
        shape = granularity(choice.granularity)
        if shape.mask is None or choice.fraction == 0:
            continue
        layer = graph.layer(name)
        scores = _left(book.layer_scores(choice.criterion, layer), layer, cuts)
        size = tuple(scores.shape[-len(layer.shape) :])
        scores = pattern_scores(scores, shape, size)
        fraction = choice.fraction
        if choice.threshold is not None:
            assert shape.units is not None, "check_config refuses a threshold elsewhere"
            sums = unit_sums(scores[None], shape.units(size))[0]
            fraction = _count(choice, sums) / max(len(sums), 1)
        kept = shape.mask(scores, fraction)
        masks[layer.weight] = kept.movedim(0, layer.out_dim)
        patterns[layer.weight] = choice.granularity
    return Plan(cuts, masks, patterns, {name: units.numel() for name, units in gone.items()})


def blocks_gone(stage: Stage, fraction: float) -> int:
    """Return how many blocks of a stage go: the fraction is of all its blocks, also of those that must stay."""
    return min(removed_count(stage.depth, fraction), stage.units)


def blocks_that_go(config: PruningConfig, graph: ModelGraph, book: BlockScores) -> dict[str, int]:
    """Decide residual blocks: block name to :attr:`autoprune.graph.skip.Skip.length`, for a config that was checked.

    Raises:
        ConfigError: Scores cannot be computed.
    """
    gone: dict[str, int] = {}
    for name, choice in config.choices():
        if choice.granularity != DEPTH:
            continue
        stage = graph.stages[name]
        scores = book.block_scores(choice.criterion, stage)
        if choice.threshold is not None:
            count = units_below(scores, choice.threshold.std)
        else:
            count = blocks_gone(stage, choice.fraction)
        gone |= {stage.blocks[i].name: stage.blocks[i].length for i in lowest(scores, count).tolist()}
    return gone


def cuts_of(graph: ModelGraph, gone: Mapping[str, Tensor]) -> Cuts:
    """Translate removed units into what stays of each tensor.

    Args:
        graph: The model's graph.
        gone: Group name to the units that go, shape (count,).
    """
    # In numpy: on arrays of a few dozen entries torch would spend its time on calling itself.
    keep: dict[tuple[str, int], NDArray[np.bool_]] = {}
    for name, units in gone.items():
        places = units.numpy()
        for slices in graph.groups[name].slices:
            axis = (slices.tensor, slices.dim)
            if axis not in keep:
                keep[axis] = np.ones(graph.shapes[slices.tensor][slices.dim], dtype=np.bool_)
            keep[axis][slices.index.numpy()[places]] = False
        for size in graph.groups[name].sizes:
            stays = keep.setdefault((size.name, SIZE), np.ones(size.dense, dtype=np.bool_))
            stays[size.index.numpy()[places]] = False
    return {axis: torch.from_numpy(np.flatnonzero(stays)) for axis, stays in keep.items()}


def _count(choice: LayerChoice, scores: Tensor) -> int:
    """Return how many units go, by the fraction or by the threshold."""
    if choice.threshold is not None:
        return units_below(scores, choice.threshold.std)
    return removed_count(len(scores), choice.fraction)


def _left(scores: Tensor, layer: Layer, cuts: Cuts) -> Tensor:
    """Return the scores of what the cuts leave of a weight, output first; a leading dimension of draws stays."""
    draws = scores.dim() - len(layer.shape)
    for dim in range(len(layer.shape)):
        if (layer.weight, dim) in cuts:
            scores = scores.index_select(draws + dim, cuts[layer.weight, dim].to(scores.device))
    return scores.movedim(draws + layer.out_dim, draws)
