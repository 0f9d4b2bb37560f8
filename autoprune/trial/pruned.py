"""A config applied to a dense model: the one way in which a search, a test and an export get the smaller network."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from autoprune.graph.groups import ModelGraph
from autoprune.pruning.compensate import compensate
from autoprune.pruning.plan import Plan, make_plan
from autoprune.pruning.scores import ScoreBook
from autoprune.pruning.surgery import prune
from autoprune.spec.config import PruningConfig, RecoverySpec
from autoprune.trial.recovery import finetune, recalibrate_batchnorm, resolve_recovery
from autoprune.trial.task import Calibration


@dataclass(frozen=True)
class PrunedModel:
    """The smaller network, and how it came to be.

    Attributes:
        model: In evaluation mode; shares nothing with the dense one.
        plan: What was cut and zeroed.
        graph: Of the dense model; None where nothing was pruned.
        book: What compensation asks about the dense model; None where nothing was pruned.
    """

    model: nn.Module
    plan: Plan
    graph: ModelGraph | None = None
    book: ScoreBook | None = None


def pruned_model(model: nn.Module, graph: ModelGraph, book: ScoreBook, config: PruningConfig) -> PrunedModel:
    """Cut and mask; no recovery yet.

    Raises:
        ConfigError: The config does not fit the model.
    """
    plan = make_plan(config, graph, book)
    return PrunedModel(prune(model, plan).eval(), plan, graph, book)


@dataclass(frozen=True)
class Recovered:
    """What recovery did.

    Attributes:
        text: In words.
        seconds: Wall seconds, by the names of ``spec.record.Timings``.
    """

    text: str
    seconds: Mapping[str, float]


def recover_pruned(pruned: PrunedModel, config: PruningConfig, data: Calibration) -> Recovered:
    """Recover in place, as the config says: compensate, fine-tune, recalibrate batch norm.

    Raises:
        TaskError: The config asks for data or a function that is not given.
    """
    recovery = resolve_recovery(config.recovery, pruned.model, data)
    times = [time.perf_counter()]
    done = [_compensate(pruned, recovery)]
    times.append(time.perf_counter())
    dense = pruned.book.evidence.model if pruned.book is not None else None
    done.append(finetune(pruned.model, recovery, data, pruned.plan.masks, config.seed, dense))
    times.append(time.perf_counter())
    if recovery.batchnorm_samples:
        done.append(_batchnorm(pruned, recovery.batchnorm, data, recovery.batchnorm_samples))
    times.append(time.perf_counter())
    pruned.model.eval()
    parts = ("compensate_s", "finetune_s", "recover_s")
    seconds = {part: after - before for part, before, after in zip(parts, times, times[1:], strict=False)}
    return Recovered(", ".join(filter(None, done)) or "none", seconds)


def _batchnorm(pruned: PrunedModel, how: str | None, data: Calibration, samples: int) -> str:
    if how == "shift":
        from autoprune.trial.batchnorm import shift_batchnorm  # it takes a pruned model

        return f"batch norm shifted on {shift_batchnorm(pruned, data, samples)} samples"
    return f"batch norm recalibrated on {recalibrate_batchnorm(pruned.model, data, samples)} samples"


def _compensate(pruned: PrunedModel, recovery: RecoverySpec) -> str:
    if recovery.compensate == "none" or pruned.graph is None or pruned.book is None:
        return ""
    moments = pruned.book.moments(second=recovery.compensate == "least_squares")
    dense = pruned.book.evidence.model
    layers = compensate(pruned.model, dense, pruned.graph, pruned.plan, moments, recovery.compensate)
    return f"{recovery.compensate.replace('_', ' ')} compensation of {len(layers)} layers"
