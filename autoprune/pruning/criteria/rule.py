"""What a criterion is, and what it may look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from autoprune.registry import Registry

Role = Literal["out", "in", "along"]
"""Where a unit stands in a tensor, as in ``graph.groups.Slices``."""

ROLES: tuple[Role, ...] = ("out", "in", "along")


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
        args: Positional example inputs; a batch without a loss is cut to so many.
        kwargs: Keyword example inputs.
    """

    model: nn.Module
    weights: tuple[str, ...]
    norm_scales: tuple[str, ...]
    batches: Callable[[], Iterator[Any]] | None = None
    loss: Callable[[nn.Module, Any], Tensor] | None = None
    seed: int = 0
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

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
        """Whether it needs ``Task.batches``."""
        ...

    @property
    def needs_loss(self) -> bool:
        """Whether it needs ``Task.loss`` as well."""
        ...

    @property
    def granularities(self) -> tuple[str, ...] | None:
        """Keys it can serve; None for all."""
        ...

    @property
    def judges(self) -> tuple[Role, ...]:
        """In which of a unit's tensors its scores count: where it is made, where it is read, what goes along."""
        ...

    def scores(self, evidence: Evidence) -> Mapping[str, Tensor]:
        """Return for each tensor that it judges a score per entry, same shape, at least 0, finite.

        The score of a unit is their sum over its entries. Instead, a tensor may have a leading dimension of draws and
        hold signed contributions: the score of a unit is then the mean over draws of the square of their sum.
        """
        ...


@dataclass(frozen=True)
class Rule:
    """A criterion made of one function.

    Attributes:
        summary: As :class:`Criterion`.
        compute: From the evidence to the scores.
        needs_data: As :class:`Criterion`.
        needs_loss: As :class:`Criterion`.
        granularities: As :class:`Criterion`.
        judges: As :class:`Criterion`.
    """

    summary: str
    compute: Callable[[Evidence], Mapping[str, Tensor]]
    needs_data: bool = False
    needs_loss: bool = False
    granularities: tuple[str, ...] | None = None
    judges: tuple[Role, ...] = ROLES

    def scores(self, evidence: Evidence) -> Mapping[str, Tensor]:
        """Return the scores, as :class:`Criterion` says."""
        return self.compute(evidence)


CRITERIA: Registry[Criterion] = Registry("criterion", "autoprune.criteria")
