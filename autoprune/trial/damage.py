"""What one choice for one group or layer costs when everything else stays dense: measured, on a small batch.

The network with that choice alone is recovered as far as batch norm goes and run on a few calibration samples; its
damage is what the task's loss rose by. A loss tells more than a score from the same samples, because it moves before an
answer flips.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import nn

from autoprune.pruning.criteria import batch_size
from autoprune.spec.config import LayerChoice, ModelIdentity, PruningConfig
from autoprune.trial.pruned import pruned_model
from autoprune.trial.recovery import first_samples, recalibrate_batchnorm
from autoprune.trial.runner import TrialRunner
from autoprune.trial.task import score

SAMPLES = 128
"""Samples that a probe is scored on, where the task has a loss, and at most as many that batch norm sees."""


@dataclass(frozen=True)
class Probe:
    """What one choice did.

    Attributes:
        name: Address in a config.
        choice: Everything else is dense.
        drop: Estimated accuracy drop in the score's unit, below 0 where the score rose.
    """

    name: str
    choice: LayerChoice
    drop: float


class DamageMeter:
    """Probes single choices on one model.

    A loss in nats is told as a drop by what it does to the geometric mean of the right answers' probability, which is
    exp(-loss): a score of 0.9 whose loss rises by 0.1 is estimated to drop by 0.9 (1 - exp(-0.1)). Where a lower score
    is better it is taken for a loss itself. A task without a loss is scored by ``Task.evaluate``.

    Args:
        runner: The model with its graph, scores and data.
        dense_score: Its score.

    Attributes:
        by_loss: Whether probes are scored by the loss.
    """

    def __init__(self, runner: TrialRunner, dense_score: float) -> None:
        self._runner = runner
        self._score = dense_score
        data = runner.data
        self.by_loss = data.loss is not None and data.batches is not None
        self._recalibrate = min(runner.recovery.batchnorm_samples or 0, SAMPLES)
        self._batches: list[Any] = list(_samples(runner, self._recalibrate)) if self.by_loss else []
        self._dense = self._loss(runner.model) if self.by_loss else dense_score

    def __call__(self, name: str, choice: LayerChoice) -> Probe:
        """Return what a choice costs."""
        runner = self._runner
        config = PruningConfig(
            model=ModelIdentity(fingerprint=runner.graph.fingerprint),
            seed=runner.spec.search.seed,
            layers={name: (choice,)},
        )
        pruned = pruned_model(runner.model, runner.graph, runner.book, config)
        if self._recalibrate:
            recalibrate_batchnorm(pruned.model, runner.data, self._recalibrate)
        pruned.model.eval()
        if not self.by_loss:
            value = score(runner.task.evaluate, pruned.model, "evaluate")
            return Probe(name, choice, self._score - value if runner.task.higher_is_better else value - self._score)
        return Probe(name, choice, self._drop(self._loss(pruned.model) - self._dense))

    def _drop(self, rise: float) -> float:
        if not self._runner.task.higher_is_better:
            return rise
        return abs(self._score) * -math.expm1(-max(rise, -1.0))

    def _loss(self, model: nn.Module) -> float:
        loss = self._runner.data.loss
        assert loss is not None
        total = count = 0.0
        with torch.no_grad():
            for batch in self._batches:
                size = batch_size(batch)
                total += float(loss(model, batch)) * size
                count += size
        # A network that is destroyed may overflow; it is then as bad as a loss can be told.
        return total / count if math.isfinite(total) else 1e3


def _samples(runner: TrialRunner, skipped: int) -> list[Any]:
    """Return calibration batches behind those that batch norm sees, where there are as many, else the first ones."""
    found: list[Any] = []
    seen = taken = 0
    for batch in islice(runner.data.walk(), 10_000):
        size = batch_size(batch)
        seen += size
        if seen <= skipped:
            continue
        found.append(first_samples(batch, SAMPLES - taken))
        taken += min(size, SAMPLES - taken)
        if taken >= SAMPLES:
            return found
    return found or [first_samples(next(iter(runner.data.walk())), SAMPLES)]
