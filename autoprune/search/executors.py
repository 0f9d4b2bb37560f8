"""Where trials run: what an executor is, and which there are.

The driver (:mod:`autoprune.search.loop`) proposes, and keeps the books; an executor turns a :class:`Job` into a
record, and does the errands of a study. It knows nothing of samplers or storages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from autoprune.registry import Registry
from autoprune.search.errands import Errand, Performed, T
from autoprune.spec.config import PruningConfig
from autoprune.spec.executor import ray_options
from autoprune.spec.record import TrialRecord
from autoprune.spec.study import StudySpec
from autoprune.trial.runner import TrialRunner


@dataclass(frozen=True)
class Job:
    """One stretch of work on one trial.

    Attributes:
        number: Optuna's trial number.
        config: What is tried, signed.
        origin: Who proposed it.
        dense: Record of the dense model; None where this trial is the one that measures it.
        rung: Rung of the trial that this job climbs; 0 is the first, and the only one of a study without rungs.
        propose_s: Wall seconds that the proposal took.
    """

    number: int
    config: PruningConfig
    origin: str
    dense: TrialRecord | None
    rung: int = 0
    propose_s: float = 0.0


class Executor(Protocol):
    """What runs jobs. A job's own failure is a record with its traceback; only the dense model's failure is raised."""

    @property
    def capacity(self) -> int:
        """Jobs that may be in flight at once, at least 1; it may change while a search runs."""
        ...

    def submit(self, job: Job) -> None:
        """Take a job; never more than ``capacity`` are in flight."""
        ...

    def wait(self) -> tuple[Job, TrialRecord]:
        """Return the next job that is done, in the order in which they end, with its record.

        Called only while a job is in flight.

        Raises:
            AutopruneError: The dense model cannot be scored or measured, or what the jobs run on is gone for good.
        """
        ...

    @property
    def ended(self) -> int:
        """Jobs that have ended as well and were not returned yet: ``wait`` returns so many more at once."""
        ...

    @property
    def has_meter(self) -> bool:
        """Whether latency is measured, and not modelled."""
        ...

    def perform(self, errands: Sequence[Errand[T]]) -> Iterator[Performed[T]]:
        """Yield each errand once it is done, in the order in which they end, with its result or what it raised.

        Called while no job is in flight.

        Raises:
            AutopruneError: What errands run on is gone for good.
        """
        ...

    def close(self) -> None:
        """Give up what is still in flight and what the jobs ran on; called once, also after an error."""
        ...


@dataclass(frozen=True)
class ExecutorRequest:
    """What an executor may depend on.

    Attributes:
        runner: What trials of the study share; its ``spec`` is the study.
        directory: The run directory.
    """

    runner: TrialRunner
    directory: Path


@dataclass(frozen=True)
class ExecutorEntry:
    """An executor that recipes can name.

    Attributes:
        open: Starts it, or says in a sentence why it cannot.
        summary: One line for people.
        measures: Whether it measures latency itself, on a device that need not be here.
        check: Says in a sentence why it cannot be opened for a study, before the task is loaded, which may take long.
    """

    open: Callable[[ExecutorRequest], Executor]
    summary: str
    measures: bool = False
    check: Callable[[StudySpec], None] = lambda _: None


EXECUTORS: Registry[ExecutorEntry] = Registry("executor", "autoprune.executors")


def _local(request: ExecutorRequest) -> Executor:
    from autoprune.search.local import LocalExecutor

    return LocalExecutor(request.runner)


EXECUTORS.add("local", ExecutorEntry(_local, "in the process of the search, one trial at a time"))


def _ray(request: ExecutorRequest) -> Executor:
    from autoprune.search.ray.executor import RayExecutor

    return RayExecutor(request)


def _check_ray(spec: StudySpec) -> None:
    from autoprune.search.ray.cluster import check_cluster

    check_cluster(ray_options(spec.executor))


EXECUTORS.add(
    "ray", ExecutorEntry(_ray, "on a Ray cluster, latency on the target device", measures=True, check=_check_ray)
)
