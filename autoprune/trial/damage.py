"""What one choice for one group or layer costs when everything else stays dense: measured, on a small batch.

The network with that choice alone is run once on a few calibration samples, batch norm with their own statistics, which
is recalibration and scoring in one pass; its damage is what the task's loss rose by. A loss tells more than a score
from the same samples, because it moves before an answer flips.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import nn

from autoprune.pruning.criteria import batch_size
from autoprune.spec.config import LayerChoice, ModelIdentity, PruningConfig
from autoprune.trial.pruned import pruned_model
from autoprune.trial.recovery import first_samples, norms_of, recalibrate_batchnorm
from autoprune.trial.runner import TrialRunner
from autoprune.trial.task import score, score_dense

MOST_SAMPLES = 128
LEAST_SAMPLES = 16
"""Samples that a probe is scored on, where the task has a loss."""

TRIALS_WORTH = 16.0
"""What a table is to cost: as many samples through the network as this many trials take, or, where there are many
probes, :data:`LEAST_SAMPLES` for each and the time to build its network."""

CONTEST = 0.25
"""Share of a probe's samples on which criteria are compared with one another."""

TOO_FEW = 8
"""Samples of a batch below which its own statistics say nothing: batch norm is recalibrated over all batches then."""


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
        samples: Of a probe, where the task has a loss, before bounds; a contest has a quarter of them.

    Attributes:
        by_loss: Whether probes are scored by the loss.
    """

    def __init__(self, runner: TrialRunner, dense_score: float, samples: int = MOST_SAMPLES) -> None:
        self._runner = runner
        self._score = dense_score
        data = runner.data
        self.by_loss = data.loss is not None and data.batches is not None
        most, fewer = (min(MOST_SAMPLES, max(LEAST_SAMPLES, n)) for n in (samples, round(CONTEST * samples)))
        self._batches: list[Any] = _samples(runner, most) if self.by_loss else []
        self._contest: list[Any] = _samples(runner, fewer) if self.by_loss else []
        self._recalibrate = min(runner.recovery.batchnorm_samples or 0, most)
        self._own_statistics = self._recalibrate > 0 and min(map(batch_size, self._batches), default=0) >= TOO_FEW
        self._dense = {few: self._loss(copy.deepcopy(runner.model), few) for few in (True, False) if self.by_loss}

    def __call__(self, name: str, choice: LayerChoice, few: bool = False) -> Probe:
        """Return what a choice costs.

        Args:
            name: Address in a config.
            choice: Everything else is dense.
            few: On a share of the samples, the same ones each time, to be compared with what else they told.
        """
        runner = self._runner
        config = PruningConfig(
            model=ModelIdentity(fingerprint=runner.graph.fingerprint),
            seed=runner.spec.search.seed,
            layers={name: (choice,)},
        )
        pruned = pruned_model(runner.model, runner.graph, runner.book, config)
        if not self.by_loss:
            if self._recalibrate:
                recalibrate_batchnorm(pruned.model, runner.data, self._recalibrate)
            value = score(runner.task.evaluate, pruned.model, "evaluate")
            return Probe(name, choice, self._score - value if runner.task.higher_is_better else value - self._score)
        return Probe(name, choice, self._drop(self._loss(pruned.model, few) - self._dense[few]))

    def _drop(self, rise: float) -> float:
        if not self._runner.task.higher_is_better:
            return rise
        return abs(self._score) * -math.expm1(-max(rise, -1.0))

    def _loss(self, model: nn.Module, few: bool) -> float:
        """Return the mean loss of a model that may be changed."""
        loss = self._runner.data.loss
        assert loss is not None
        if self._recalibrate and not self._own_statistics:
            recalibrate_batchnorm(model, self._runner.data, self._recalibrate)
        model.eval()
        if self._own_statistics:
            for norm in norms_of(model).values():
                norm.train()
        total = count = 0.0
        with torch.no_grad():
            for batch in self._contest if few else self._batches:
                size = batch_size(batch)
                total += float(loss(model, batch)) * size
                count += size
        # A network that is destroyed may overflow; it is then as bad as a loss can be told.
        return total / count if math.isfinite(total) else 1e3


def dense_score_and_samples(runner: TrialRunner) -> tuple[float, int]:
    """Score the dense model, and count the samples that a trial sends through a network.

    Returns:
        The score, and the samples of ``Task.evaluate`` and of recalibration together.

    Raises:
        TaskError: The dense model cannot be scored.
    """
    seen = 0

    def count(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal seen
        seen += batch_size((*args, *kwargs.values()))

    handle = runner.model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        value = score_dense(runner.task.evaluate, runner.model, "evaluate")
    finally:
        handle.remove()
    return value, seen + (runner.recovery.batchnorm_samples or 0)


def probe_samples(trial_samples: int, probes: float) -> int:
    """Return the samples of one probe, before bounds: all together cost about :data:`TRIALS_WORTH` trials.

    Args:
        trial_samples: Samples that a trial sends through a network.
        probes: How many probes there are; those of a contest count as their share.
    """
    return round(TRIALS_WORTH * trial_samples / max(probes, 1.0))


def _samples(runner: TrialRunner, samples: int) -> list[Any]:
    """Return calibration batches of so many samples together, or all that there are."""
    found: list[Any] = []
    taken = 0
    for batch in islice(runner.data.walk(), 10_000):
        part = first_samples(batch, samples - taken)
        if found and batch_size(part) < TOO_FEW <= batch_size(batch):
            break  # a rest that is too small for statistics of its own
        found.append(part)
        taken += batch_size(part)
        if taken >= samples:
            break
    return found
