"""Errands: what a study needs of its data or its device beside trials, done wherever trials run.

An errand is data that another process can be given; called with a runner of the study it does its work. The driver may
be a machine that is slow, or has no GPU and no device: the survey goes to the meter, probes and tests go to workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar

from autoprune.errors import AutopruneError, RunError, one_line
from autoprune.spec.config import PruningConfig
from autoprune.spec.record import LatencyRecord
from autoprune.trial.runner import TrialRunner

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Errand(Protocol[T_co]):
    """Some work on what trials share; a frozen dataclass.

    Attributes:
        on_device: Whether it measures latency, and so belongs to the device.
    """

    on_device: ClassVar[bool]

    def __call__(self, runner: TrialRunner) -> T_co:
        """Do it."""
        ...


@dataclass(frozen=True)
class Performed(Generic[T]):
    """What became of an errand.

    Attributes:
        errand: Which.
        result: What it gave; None where it raised.
        error: What it raised; None where it gave a result.
    """

    errand: Errand[T]
    result: T | None
    error: Exception | None = None

    @property
    def value(self) -> T:
        """What it gave.

        Raises:
            Exception: What it raised.
        """
        if self.error is not None:
            raise self.error
        result: T = self.result  # type: ignore[assignment]
        return result


class Hands(Protocol):
    """What does errands: an executor, or this process."""

    def perform(self, errands: Sequence[Errand[T]]) -> Iterator[Performed[T]]:
        """Yield each errand once it is done, in the order in which they end."""
        ...


@dataclass(frozen=True)
class OwnHands:
    """Errands in this process, one after the other.

    Attributes:
        runner: What trials of the study share.
    """

    runner: TrialRunner

    def perform(self, errands: Sequence[Errand[T]]) -> Iterator[Performed[T]]:
        """Yield each errand once it is done."""
        return (attempt(errand, self.runner) for errand in errands)


def attempt(errand: Errand[T], runner: TrialRunner) -> Performed[T]:
    """Do an errand and keep what it raises."""
    try:
        return Performed(errand, errand(runner))
    except Exception as error:
        return Performed(errand, None, error)


def portable(error: Exception) -> Exception:
    """Return an error that any other process can read: one of ours or of Python's own, else its text in one of ours."""
    if isinstance(error, AutopruneError) or type(error).__module__ == "builtins":
        return error
    return RunError(one_line(error))


@dataclass(frozen=True)
class ScoreOnTest:
    """Score a trial's network on test data; None where the task has no test.

    Attributes:
        number: Of the trial.
        config: Of its network.
    """

    on_device: ClassVar[bool] = False
    number: int
    config: PruningConfig

    def __call__(self, runner: TrialRunner) -> float | None:
        """Rebuild the network, and score it."""
        return runner.test_score(self.config)


@dataclass(frozen=True)
class MeasureAgain:
    """Measure the latency of a trial's network once more; None where nothing measures.

    Attributes:
        number: Of the trial.
        config: Of its network.
        dense_ms: The study's latency of the dense model, which the ratio is times.
    """

    on_device: ClassVar[bool] = True
    number: int
    config: PruningConfig
    dense_ms: float

    def __call__(self, runner: TrialRunner) -> LatencyRecord | None:
        """Rebuild the network, and measure it."""
        return runner.latency_again(self.config, self.dense_ms)


@dataclass(frozen=True)
class NormWarning:
    """Say what recalibrating batch norm costs the dense model; empty where that is next to nothing.

    Attributes:
        dense_score: Its score.
    """

    on_device: ClassVar[bool] = False
    dense_score: float

    def __call__(self, runner: TrialRunner) -> str:
        """Recalibrate it, and score it."""
        return runner.norm_warning(self.dense_score)
