"""Criteria: rules that score units; the lowest scores go.

A criterion gives one non-negative score per weight of a tensor. One shared rule (``scores.unit_scores``) sums them over
the weights of a unit, so a criterion serves every granularity.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from autoprune.errors import ConfigError
from autoprune.registry import Registry

DATA_SAMPLES = 512
"""Samples that a data-driven criterion looks at, taken from the front of ``Task.batches``."""


@dataclass(frozen=True)
class Evidence:
    """What a criterion may look at.

    Attributes:
        model: The dense model, in evaluation mode; not to be changed.
        weights: Names of the prunable weights.
        norm_scales: Names of the batch-norm scales.
        batches: Gives the task's batches anew at each call; None where the task has none.
        loss: ``loss(model, batch) -> scalar tensor``; None where the task has none.
        seed: Seed of whatever is random.
    """

    model: nn.Module
    weights: tuple[str, ...]
    norm_scales: tuple[str, ...]
    batches: Callable[[], Iterator[Any]] | None = None
    loss: Callable[[nn.Module, Any], Tensor] | None = None
    seed: int = 0

    def tensors(self, names: tuple[str, ...]) -> dict[str, Tensor]:
        """Return the named parameters, detached."""
        parameters = dict(self.model.named_parameters())
        return {name: parameters[name].detach() for name in names}


class Criterion(Protocol):
    """A rule that scores weights."""

    @property
    def summary(self) -> str:
        """Formula and source in one line, for ``autoprune list``."""
        ...

    @property
    def needs_data(self) -> bool:
        """Whether it needs ``Task.batches`` and ``Task.loss``."""
        ...

    @property
    def granularities(self) -> tuple[str, ...] | None:
        """Keys it can serve; None for all."""
        ...

    def scores(self, evidence: Evidence) -> Mapping[str, Tensor]:
        """Return for each tensor that it judges a score per entry, same shape, at least 0, finite."""
        ...


CRITERIA: Registry[Criterion] = Registry("criterion", "autoprune.criteria")


@dataclass(frozen=True)
class _FromWeight:
    summary: str
    formula: Callable[[Tensor], Tensor]
    needs_data: bool = False
    granularities: tuple[str, ...] | None = None

    def scores(self, evidence: Evidence) -> Mapping[str, Tensor]:
        return {name: self.formula(weight) for name, weight in evidence.tensors(evidence.weights).items()}


CRITERIA.add("magnitude_l1", _FromWeight("|w|; Han et al. 2015, filters: Li et al. 2017 (arXiv 1608.08710)", torch.abs))
CRITERIA.add(
    "magnitude_l2", _FromWeight("w^2: the squared L2 norm of a unit; He et al. 2018 (arXiv 1808.06866)", torch.square)
)


@dataclass(frozen=True)
class _Taylor:
    """First-order Taylor expansion: the mean over batches of |w · dL/dw| (Molchanov et al. 2019, arXiv 1906.10771)."""

    summary: str = "mean over batches of |w * dL/dw|; Molchanov et al. 2019 (arXiv 1906.10771)"
    needs_data: bool = True
    granularities: tuple[str, ...] | None = None

    def scores(self, evidence: Evidence) -> Mapping[str, Tensor]:
        assert evidence.batches is not None
        assert evidence.loss is not None
        parameters = dict(evidence.model.named_parameters())
        judged = {name: parameters[name] for name in evidence.weights}
        totals = {name: torch.zeros_like(weight) for name, weight in judged.items()}
        frozen = [weight for weight in judged.values() if not weight.requires_grad]
        seen = 0
        try:
            for weight in frozen:
                weight.requires_grad_(True)
            for batch in evidence.batches():
                with torch.enable_grad():
                    loss = evidence.loss(evidence.model, batch)
                    gradients = torch.autograd.grad(loss, list(judged.values()), allow_unused=True)
                for name, gradient in zip(judged, gradients, strict=True):
                    if gradient is not None:
                        totals[name] += (judged[name].detach() * gradient).abs()
                seen += batch_size(batch)
                if seen >= DATA_SAMPLES:
                    break
        finally:
            for weight in frozen:
                weight.requires_grad_(False)
        if not seen:
            raise ConfigError("criterion 'taylor' needs data, and Task.batches gave none; give at least one batch")
        return totals


CRITERIA.add("taylor", _Taylor())


@dataclass(frozen=True)
class _BatchNormScale:
    """The absolute scale of the batch norm after a channel (Network Slimming, Liu et al. 2017, arXiv 1708.06519)."""

    summary: str = "|gamma| of the batch norm behind a channel; Liu et al. 2017 (arXiv 1708.06519)"
    needs_data: bool = False
    granularities: tuple[str, ...] | None = ("channel",)

    def scores(self, evidence: Evidence) -> Mapping[str, Tensor]:
        return {name: scale.abs() for name, scale in evidence.tensors(evidence.norm_scales).items()}


CRITERIA.add("batchnorm_scale", _BatchNormScale())


@dataclass(frozen=True)
class _Random:
    """Uniform in [0, 1), from the seed and the tensor's name: the baseline that every other criterion must beat."""

    summary: str = "uniform noise from the seed: the baseline"
    needs_data: bool = False
    granularities: tuple[str, ...] | None = None

    def scores(self, evidence: Evidence) -> Mapping[str, Tensor]:
        found = {}
        for name, weight in evidence.tensors(evidence.weights).items():
            generator = torch.Generator().manual_seed(zlib.crc32(f"{evidence.seed}/{name}".encode()))
            found[name] = torch.rand(weight.shape, generator=generator).to(weight.device)
        return found


CRITERIA.add("random", _Random())


def batch_size(batch: Any) -> int:
    """Return the samples in a batch: the first dimension of the first tensor found in it, 1 where there is none."""
    if isinstance(batch, Tensor):
        return int(batch.shape[0]) if batch.dim() else 1
    values = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    for value in values:
        if isinstance(value, Tensor | Mapping | list | tuple):
            return batch_size(value)
    return 1
