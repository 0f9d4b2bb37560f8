"""Seats: places on the cluster that an actor fills, and another one after it was lost."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from autoprune.errors import AutopruneError, RunError, one_line
from autoprune.search.ray.actors import Place
from autoprune.search.ray.cluster import import_ray

MOST_FALSE_STARTS = 3
"""Actors in a row that were lost while they started, after which the fault is not the cluster's."""


@dataclass
class Seat:
    """A place that an actor fills.

    Attributes:
        spawn: Makes an actor; its ``start`` method returns a :class:`Place`, or the error that keeps it from working.
        what: "worker" or "meter", for messages.
        actor: Handle of the actor.
        place: Where the actor is; None until it has started.
        pending: The call that is in flight: ``start``, or the work of a flight.
        since: When the pending call was made, on the monotonic clock.
        flight: What the actor works on.
    """

    spawn: Callable[[], Any]
    what: str
    actor: Any = None
    place: Place | None = None
    pending: Any = None
    since: float = 0.0
    flight: Any = None
    _false_starts: int = field(default=0, repr=False)

    def fill(self) -> None:
        """Start an actor here."""
        self.actor, self.place, self.flight = self.spawn(), None, None
        self._call(self.actor.start.remote())

    def give(self, flight: Any, pending: Any) -> None:
        """Note what the actor has begun."""
        self.flight = flight
        self._call(pending)

    def started(self) -> None:
        """Take in the answer of ``start``.

        Raises:
            AutopruneError: The actor cannot work here, or several in a row were lost while they started.
        """
        ray = import_ray()
        try:
            answer = ray.get(self.pending)
        except ray.exceptions.RayError as error:
            self._false_starts += 1
            if self._false_starts >= MOST_FALSE_STARTS:
                raise RunError(
                    f"{self._false_starts} {self.what}s in a row were lost while they started, the last with "
                    f"{why_lost(error)}; see Ray's logs on the node, and run the same command again"
                ) from error
            self.fill()
            return
        if isinstance(answer, AutopruneError):
            raise answer
        self.place, self.pending, self._false_starts = answer, None, 0

    def free(self) -> Any:
        """Return what the actor worked on; it is free again."""
        flight, self.flight, self.pending = self.flight, None, None
        return flight

    def empty(self) -> Any:
        """Stop the actor; return what it worked on."""
        ray = import_ray()
        if self.actor is not None:
            ray.kill(self.actor, no_restart=True)
        flight, self.flight, self.pending, self.actor, self.place = self.flight, None, None, None, None
        return flight

    @property
    def where(self) -> str:
        """The actor in words."""
        return f"{self.what} {self.place.pid} on {self.place.host}" if self.place else f"a {self.what}"

    @property
    def idle(self) -> bool:
        """Whether the actor has started and works on nothing."""
        return self.place is not None and self.pending is None

    def _call(self, pending: Any) -> None:
        self.pending, self.since = pending, time.monotonic()


def why_lost(error: BaseException) -> str:
    """Return why Ray lost an actor, or what it made, in a few words."""
    if type(error).__name__ == "OutOfMemoryError":
        return "its node ran out of memory"
    if re.search(r"its node has died|node (\w+ )?(was|is|has) (terminated|dead|died)", str(error)):
        return "its node left the cluster"
    if type(error).__name__.startswith(("Actor", "RayActor", "Worker")):
        return "its process died"
    return one_line(error, 160)
