"""Whether a deployed pruned network still does what the dense one does: paired, sample by sample, over time.

Both networks see the same samples, so what is hard for both cancels. The interval of the mean difference is a
confidence sequence (Waudby-Smith et al. 2021, arXiv 2103.06476, theorem 2.2): it holds at all times at once, so it may
be looked at after every batch, where a fixed-sample interval would raise a false alarm sooner or later.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.errors import UsageError
from autoprune.graph.trace import evaluation_mode, output_tensors
from autoprune.trial.task import positional

Metric = Callable[[Any, Any], Tensor]
"""(output of a model, targets) to one score a sample, shape (n,), higher is better."""

TIGHTEST_AT = 500
"""Samples at which the interval is tightest; it holds at every other count too."""


class DriftWarning(UserWarning):
    """A pruned network has drifted from the dense one by more than the limit."""


@dataclass(frozen=True)
class Drift:
    """What a window of samples shows.

    Attributes:
        samples: Samples compared.
        mean: Mean score that the pruned network loses to the dense one.
        low: Lower end of its interval, which holds at all times at once.
        high: Upper end.
        limit: The largest loss that is accepted.
    """

    samples: int
    mean: float
    low: float
    high: float
    limit: float

    @property
    def drifted(self) -> bool:
        """Whether the loss is above the limit beyond chance."""
        return self.low > self.limit

    def __str__(self) -> str:
        return (
            f"the pruned network loses {self.mean:.4g} [{self.low:.4g}, {self.high:.4g}] to the dense one on "
            f"{self.samples} samples (limit {self.limit:.4g})"
        )


class DriftMonitor:
    """Compares a pruned network with the dense one on batches as they come, and warns once a window.

    ::

        monitor = ap.DriftMonitor(dense, pruned, limit=0.02, window=5000)
        for inputs, targets in sampled_traffic:
            monitor.observe(inputs, targets)     # or without targets: how often the two disagree

    Args:
        dense: The dense network.
        pruned: The pruned one.
        limit: Loss of score that is accepted: with the default metric, a share of the samples.
        metric: Score a sample, given an output and targets. Left out: 1 where the largest logit (dimension 1) is the
            target's, averaged over further dimensions; without targets, the dense network's answer is the target.
        confidence: That no warning in the whole life of the monitor is a false alarm.
        window: Samples after which counting starts anew, so that a late drift is not drowned in a long good past; None
            counts all. Later windows share what is left of the error probability, 1 / (k (k + 1)) of it each.

    Raises:
        UsageError: A number is out of its range.
    """

    def __init__(
        self,
        dense: nn.Module,
        pruned: nn.Module,
        *,
        limit: float,
        metric: Metric | None = None,
        confidence: float = 0.95,
        window: int | None = None,
    ) -> None:
        if not 0 < confidence < 1:
            raise UsageError(f"confidence is {confidence}; give a number between 0 and 1")
        if not limit >= 0:
            raise UsageError(f"limit is {limit}; give the loss that is accepted, at least 0")
        if window is not None and window < 2:
            raise UsageError(f"window is {window}; give at least 2 samples")
        self._models = dense, pruned
        self._limit, self._metric, self._window = limit, metric or top_one, window
        self._error = 1 - confidence
        self._finished: list[Drift] = []
        self._restart()

    def _restart(self) -> None:
        self._count, self._mean, self._squares = 0, 0.0, 0.0
        self._warned = False

    def observe(self, inputs: Any, targets: Any = None) -> Drift:
        """Run both networks on a batch and count it in.

        Args:
            inputs: As the networks take them: a tensor, a tuple or a dict.
            targets: As the metric takes them; None compares with the dense network's answers.

        Returns:
            The present window with this batch.

        Raises:
            UsageError: The metric gives no finite score a sample.
        """
        args = positional(inputs)
        kwargs: Mapping[str, Any] = inputs if isinstance(inputs, Mapping) else {}
        outputs = []
        for model in self._models:
            with evaluation_mode(model), torch.no_grad():
                outputs.append(model(*args, **kwargs))
        if targets is None:
            targets = output_tensors(outputs[0])[0].argmax(dim=1)
        scores = [self._metric(output, targets) for output in outputs]
        if (
            scores[0].dim() != 1
            or scores[0].shape != scores[1].shape
            or not bool(torch.isfinite(torch.stack(scores)).all())
        ):
            raise UsageError(
                f"the metric gave {tuple(scores[0].shape)} and {tuple(scores[1].shape)}; "
                "give one finite score a sample, shape (n,), for both networks"
            )
        return self.count((scores[0].double() - scores[1].double()).cpu())

    def count(self, losses: Tensor) -> Drift:
        """Count in losses that were computed elsewhere: dense score minus pruned score of each sample, shape (n,)."""
        for loss in losses.tolist():  # Welford's update
            self._count += 1
            delta = loss - self._mean
            self._mean += delta / self._count
            self._squares += delta * (loss - self._mean)
        drift = self.drift
        if drift.drifted and not self._warned:
            self._warned = True
            warnings.warn(f"{drift}; evaluate it on labelled data, or prune anew", DriftWarning, stacklevel=3)
        if self._window is not None and self._count >= self._window:
            self._finished.append(drift)
            self._restart()
        return drift

    @property
    def drift(self) -> Drift:
        """The present window so far."""
        error = self._error
        if self._window is not None:
            number = len(self._finished) + 1
            error /= number * (number + 1)
        variance = self._squares / self._count if self._count else 0.0
        margin = confidence_margin(self._count, variance, error)
        return Drift(self._count, self._mean, self._mean - margin, self._mean + margin, self._limit)

    @property
    def history(self) -> tuple[Drift, ...]:
        """The windows that are full, in order."""
        return tuple(self._finished)


def top_one(output: Any, targets: Tensor) -> Tensor:
    """Return 1 where the largest logit is the target's, else 0, averaged over what follows; shape (n,)."""
    answers = output_tensors(output)[0].argmax(dim=1)
    return (
        (answers == targets.to(answers.device)).double().flatten(1).mean(dim=1)
        if answers.dim() > 1
        else (answers == targets.to(answers.device)).double()
    )


def confidence_margin(count: int, variance: float, error: float) -> float:
    """Return the half-width of the confidence sequence for a mean; inf below two samples.

    Args:
        count: Samples so far.
        variance: Of the samples; one difference of a half is counted in, so that agreement alone is no certainty.
        error: Probability that the mean is ever outside.
    """
    if count < 2:
        return math.inf
    variance += 0.25 / count
    log = -2 * math.log(error)
    scale = (log + math.log(log + 1)) / TIGHTEST_AT / 0.25
    spread = count * variance * scale + 1
    return math.sqrt(2 * spread / (count**2 * scale) * math.log(math.sqrt(spread) / error))
