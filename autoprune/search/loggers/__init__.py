"""Where the values of trials go beside the study's storage: one Protocol, one key a place (``--log KEY:WHERE``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from autoprune.errors import UsageError
from autoprune.registry import Registry
from autoprune.spec.record import RunRecords, TrialRecord
from autoprune.spec.study import StudySpec


@dataclass(frozen=True)
class LoggedRun:
    """The run whose trials are logged.

    Attributes:
        directory: The run directory; the same directory is the same run when a search goes on.
        spec: The resolved study.
    """

    directory: Path
    spec: StudySpec


@dataclass(frozen=True)
class Standing:
    """Where the study stands after a trial.

    Attributes:
        front_size: Trials on the front.
        hypervolume: Of the front, 0 to 1; None before the dense model was measured.
    """

    front_size: int
    hypervolume: float | None


class Logger(Protocol):
    """One place that trials are told to. Anything it raises is told to the user once and never ends the search."""

    def known(self) -> frozenset[int]:
        """Return the numbers of this run's trials that the place already holds."""
        ...

    def log(self, trial: TrialRecord, standing: Standing | None) -> None:
        """Tell one trial, whatever its state.

        Args:
            trial: One that is not known there.
            standing: After it; None for a trial of an earlier run of the command.
        """
        ...

    def close(self, records: RunRecords | None) -> None:
        """End the log of this command.

        Args:
            records: Everything finished, with the test scores of the front; None where the search failed.
        """
        ...


@dataclass(frozen=True)
class LoggerEntry:
    """A place that ``--log`` can name.

    Attributes:
        make: Opens it: what stands after the colon, and the run.
        summary: One line for ``autoprune list``.
    """

    make: Callable[[str, LoggedRun], Logger]
    summary: str


LOGGERS: Registry[LoggerEntry] = Registry("logger", "autoprune.loggers")


def needed(module: str, extra: str) -> Any:
    """Import a module of an optional package.

    Raises:
        UsageError: It is not installed; the sentence says how to get it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise UsageError(
            f"--log {extra} needs the package {error.name or extra!r}, which is not installed; "
            f"pip install 'autoprune[{extra}]'"
        ) from error


def _mlflow(where: str, run: LoggedRun) -> Logger:
    from autoprune.search.loggers.to_mlflow import MlflowLogger

    return MlflowLogger(where, run)


def _tensorboard(where: str, run: LoggedRun) -> Logger:
    from autoprune.search.loggers.to_tensorboard import TensorboardLogger

    return TensorboardLogger(Path(where), run)


LOGGERS.add("mlflow", LoggerEntry(_mlflow, "a run for the study and one inside it for each trial; mlflow:TRACKING_URI"))
LOGGERS.add("tensorboard", LoggerEntry(_tensorboard, "scalars over trial number; tensorboard:FOLDER"))
