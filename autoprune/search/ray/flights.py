"""What is on its way through a cluster: trials, and errands."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from autoprune.search.errands import Errand
from autoprune.search.executors import Job
from autoprune.search.ray.actors import Answer, Measured, Place, Report


@dataclass(eq=False)
class Flight:
    """A job on its way through a worker and the meters.

    Attributes:
        job: What is to be done.
        attempts: How often something was begun for it.
        events: What went wrong on the way.
        place: Where its worker is.
        answer: What its worker said.
        network: Reference to the network in the object store.
        awaits: Devices that have not measured it yet.
        measured: Devices to what their meters said.
        void: Whether it is over, whatever somebody still says of it.
    """

    job: Job
    attempts: int = 0
    events: list[str] = field(default_factory=list)
    place: Place | None = None
    answer: Answer | None = None
    network: Any = None
    awaits: set[str] = field(default_factory=set)
    measured: dict[str, Measured] = field(default_factory=dict)
    void: bool = False

    def anew(self) -> Flight:
        """Return it as it begins again from the start; this one is void."""
        self.void = True
        return Flight(self.job, self.attempts, self.events)

    def dense_ms(self, device: str) -> float | None:
        """Return the study's latency of the dense model on a device; None where it is not known."""
        dense = self.job.dense
        if dense is None:
            return None
        if not device:
            return None if dense.latency is None else dense.latency.ms
        there = (dense.devices or {}).get(device)
        return there.latency_ms if there is not None and there.measured else None


@dataclass(eq=False)
class Outing:
    """An errand on its way.

    Attributes:
        errand: What is to be done.
        attempts: How often it was begun.
        events: What went wrong on the way.
        report: What came of it; None until then.
        void: Whether nobody waits for it any more.
    """

    errand: Errand[Any]
    attempts: int = 0
    events: list[str] = field(default_factory=list)
    report: Report | None = None
    void: bool = False


def taken_from(line: deque[Flight | Outing]) -> Flight | Outing | None:
    """Take the first of those who wait for whom somebody still waits."""
    while line:
        first = line.popleft()
        if not first.void:
            return first
    return None
