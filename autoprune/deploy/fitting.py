"""Whether a model, its optimizer and a config can train together; told before anything is changed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from autoprune.errors import ConfigError, UsageError
from autoprune.graph.groups import ModelGraph
from autoprune.pruning.granularity import DEPTH, granularity
from autoprune.pruning.scores import ScoreBook
from autoprune.spec.config import PruningConfig
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
            raise ConfigError(
                f"stage {name!r} loses whole blocks, which no schedule can do little by little; "
                "take the entry out, and remove the blocks before: apply a config with the depth entries alone"
            )
        if granularity(choice.granularity).removed:
            layers = graph.groups[name].layers
        for layer in layers:
            if id(model.get_parameter(graph.layer(layer).weight)) not in held:
                raise ConfigError(
                    f"the config prunes layer {layer!r}, whose weight the optimizer does not hold; build the optimizer "
                    "from the parameters of this very model, or take the layer out of the config"
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
