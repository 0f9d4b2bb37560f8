"""Whether a model, its optimizer and a config can train together; told before anything is changed."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from autoprune.errors import ConfigError, UsageError
from autoprune.graph.blocks import is_within
from autoprune.graph.groups import ModelGraph
from autoprune.graph.trace import check_inputs, output_tensors
from autoprune.pruning.granularity import DEPTH, granularity
from autoprune.pruning.scores import ScoreBook
from autoprune.pruning.surgery import cut
from autoprune.spec.config import PruningConfig, check_is_config
from autoprune.training.methods import GradualPruning, Method
from autoprune.training.schedules import OneShotSchedule, Schedule


def plain_model(model: nn.Module) -> nn.Module:
    """Return the user's own module, without what torch wraps around it (data parallel, compiled).

    Raises:
        UsageError: Its parameters are sharded.
    """
    while True:
        if isinstance(model, DistributedDataParallel):
            model = model.module
        elif isinstance(model, torch._dynamo.eval_frame.OptimizedModule):
            model = model._orig_mod
        else:
            break
    for name, parameter in model.named_parameters():
        if isinstance(parameter, DTensor) or "_fsdp_wrapped_module" in name or "_flat_param" in name:
            raise UsageError(
                f"parameter {name!r} is sharded (FSDP or tensor parallel), and a mask is decided on whole weights; "
                "train with DistributedDataParallel, or finalize before sharding: the smaller model may be sharded"
            )
    return model


def plain_optimizer(optimizer: Any) -> torch.optim.Optimizer:
    """Return the torch optimizer, without what Accelerate or Lightning wraps around it.

    Raises:
        UsageError: It is none.
    """
    while isinstance(getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = optimizer.optimizer
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UsageError(f"the optimizer is {type(optimizer).__name__}; give a torch.optim.Optimizer")
    return optimizer


def check_optimizer(
    config: PruningConfig, graph: ModelGraph, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Check that the optimizer holds every weight that the config prunes.

    Raises:
        ConfigError: Names the layer.
    """
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for name, choice in config.choices():
        layers: Iterable[str] = (name,)
        if choice.granularity == DEPTH:
            layers = [layer for block in graph.stages[name].blocks for layer in block.layers]
        elif granularity(choice.granularity).removed:
            layers = graph.groups[name].layers
        for layer in layers:
            if id(model.get_parameter(graph.layer(layer).weight)) not in held:
                raise ConfigError(
                    f"the config prunes layer {layer!r}, whose weight the optimizer does not hold; build the optimizer "
                    "from the parameters of this very model, or take the layer out of the config"
                )


def check_blocks(
    config: PruningConfig, graph: ModelGraph, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> None:
    """Check that the blocks of the config's stages are identities once all their parameters are zero, by running them.

    Args:
        config: Already checked.
        graph: Of the model.
        model: Not changed.
        args: Positional example inputs.
        kwargs: Keyword example inputs.

    Raises:
        ConfigError: Names the stage, or the weight that a block shares with the rest of the model.
    """
    for name in [name for name, choice in config.choices() if choice.granularity == DEPTH]:
        blocks = {block.name: block.length for block in graph.stages[name].blocks}
        _check_own_weights(model, blocks)
        masked = copy.deepcopy(model).eval()
        without = cut(masked, {}, blocks)
        with torch.no_grad():
            for parameter, weight in masked.named_parameters():
                if is_within(parameter, blocks):
                    weight.zero_()
        found, wanted = (output_tensors(check_inputs(each, args, kwargs)) for each in (masked, without))
        if not all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(found, wanted, strict=True)):
            raise ConfigError(
                f"stage {name!r}: a block of it is more than the identity when its weights are zero, so it cannot be "
                "masked while it trains; use autoprune.apply, or take the entry out"
            )


def _check_own_weights(model: nn.Module, blocks: Collection[str]) -> None:
    outside = {id(weight) for name, weight in _all_names(model) if not is_within(name, blocks)}
    for name, weight in _all_names(model):
        if is_within(name, blocks) and id(weight) in outside:
            raise ConfigError(
                f"{name!r} belongs to a block that may go and is shared with a part of the model that stays; "
                "take the block's entry out of the config"
            )


def _all_names(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return model.named_parameters(remove_duplicate=False)


def check_arguments(config: object, schedule: object, method: Method, remove: str) -> None:
    """Check what :class:`autoprune.Sparsifier` was given, before anything is looked at.

    Raises:
        UsageError: Says which argument, what it is, and what it may be.
    """
    check_is_config(config)
    if isinstance(schedule, type) or not isinstance(schedule, Schedule):
        kind = f"the class {schedule.__name__}" if isinstance(schedule, type) else type(schedule).__name__
        raise UsageError(f"schedule is {kind}; give a schedule such as CubicSchedule(begin=0, end=1000)")
    if remove not in ("end", "now"):
        raise UsageError(f"remove is {remove!r}; give 'end' or 'now'")
    if remove == "now" and not method.removes_at_once:
        raise UsageError(f"method {method.key!r} keeps a tensor per weight; use remove='end'")


def check_method(config: PruningConfig, method: Method) -> None:
    """Check that a method has something to do.

    Raises:
        ConfigError: The config has residual blocks alone, which the config's criteria choose.
    """
    entries = [choice.granularity for _, choice in config.choices()]
    if entries and set(entries) == {DEPTH} and not isinstance(method, GradualPruning):
        raise ConfigError(
            f"method {method.key!r} chooses weights, channels or heads, and the config has only residual blocks; "
            "use 'gradual'"
        )


def check_data(config: PruningConfig, book: ScoreBook) -> None:
    """Check that criteria which need data get it.

    Raises:
        ConfigError: Names layer, criterion and what is missing.
    """
    for name, choice in config.choices():
        missing = book.missing_data(choice.criterion)
        if missing:
            asked = " and ".join(f"{part}=" for part in missing.replace("Task.", "").split(" and "))
            raise ConfigError(
                f"layer {name!r}: criterion {choice.criterion!r} needs data; give {asked} or choose another criterion"
            )


def check_thresholds(config: PruningConfig, schedule: Schedule) -> None:
    """Check that a threshold, which is decided once, meets no schedule that asks again.

    Raises:
        ConfigError: Names the layer.
    """
    for name, choice in config.choices():
        if choice.threshold is not None and not isinstance(schedule, OneShotSchedule):
            raise ConfigError(
                f"layer {name!r} is pruned by a threshold, which decides once; use OneShotSchedule, or give a sparsity"
            )
