"""A config applied to a dense model: the one way in which a search, a test and an export get the smaller network."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from autoprune.graph.groups import ModelGraph
from autoprune.pruning.plan import Plan, make_plan
from autoprune.pruning.scores import ScoreBook
from autoprune.pruning.surgery import prune
from autoprune.spec.config import PruningConfig
from autoprune.trial.recovery import recover, resolve_recovery
from autoprune.trial.task import Calibration


@dataclass(frozen=True)
class PrunedModel:
    """The smaller network, and how it came to be.

    Attributes:
        model: In evaluation mode; shares nothing with the dense one.
        plan: What was cut and zeroed.
    """

    model: nn.Module
    plan: Plan


def pruned_model(model: nn.Module, graph: ModelGraph, book: ScoreBook, config: PruningConfig) -> PrunedModel:
    """Cut and mask; no recovery yet.

    Raises:
        ConfigError: The config does not fit the model.
    """
    plan = make_plan(config, graph, book)
    return PrunedModel(prune(model, plan).eval(), plan)


def recover_pruned(pruned: PrunedModel, config: PruningConfig, data: Calibration) -> str:
    """Recover in place, as the config says; return what was done, in words.

    Raises:
        TaskError: The config asks for data or a function that is not given.
    """
    recovery = resolve_recovery(config.recovery, pruned.model, data)
    return recover(pruned.model, recovery, data, pruned.plan.masks, config.seed)
