"""Samples in which another process held the core: they are seen in the kernel's own books, and run again.

A sample of 1.5 ms is shorter than a time slice. Beside one other process on its core every second sample took three
times as long as the rest, and where slices and samples kept step the median of the pair ratios was 2.2 instead of 0.9.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

SLICE_S = 4e-3
"""Least time that Linux leaves a process on a core that another one wants."""

MOST_TRIES = 10
"""How often a sample is taken at most."""

_THREADS = Path("/proc/self/task")
_OWN = Path("/proc/thread-self/schedstat")
_AT_WORK = 0.5
"""Share of the busiest thread's time from which another counts as one that the sample waits for."""


class Waits:
    """How long the threads that compute here waited for a core, by Linux's ``schedstat``; elsewhere it is not known.

    Args:
        threads: That a sample computes with. With one it is the calling thread.
    """

    def __init__(self, threads: int) -> None:
        self._alone = threads == 1
        self._seen = self._read()

    def __call__(self) -> float:
        """Return the seconds since the last call in which a thread at work was ready to run and did not."""
        before, self._seen = self._seen, self._read()
        spans = [
            (ran - before.get(thread, (0, 0))[0], waited - before.get(thread, (0, 0))[1])
            for thread, (ran, waited) in self._seen.items()
        ]
        busiest = max((ran for ran, _ in spans), default=0)
        return max((waited for ran, waited in spans if ran >= _AT_WORK * busiest), default=0) * 1e-9

    def _read(self) -> dict[str, tuple[int, int]]:
        """Return thread to nanoseconds run, and waited."""
        found: dict[str, tuple[int, int]] = {}
        try:
            paths = [_OWN] if self._alone else [thread / "schedstat" for thread in _THREADS.iterdir()]
        except OSError:
            return found
        for path in paths:
            try:
                ran, waited, *_ = path.read_text().split()
            except (OSError, ValueError):  # the thread has ended, or this kernel keeps no such books
                continue
            found[path.parent.name] = int(ran), int(waited)
        return found


class Undisturbed:
    """Takes samples, and takes one again where other processes held the core for more of it than is allowed.

    What comes after an interruption is dropped too, for the caches hold what the other process left there. Where
    :data:`MOST_TRIES` have none that ran alone on warm caches, the least disturbed counts. A sample that is longer than
    a time slice cannot run alone on a busy core and counts as it is.

    Args:
        waits: Seconds waited since it was last called; see :class:`Waits`.
        allowed: Share of a sample that may be lost.
        clock: Seconds.

    Attributes:
        repeated: Samples that were dropped.
    """

    def __init__(
        self, waits: Callable[[], float], allowed: float, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._waits, self._allowed, self._clock = waits, allowed, clock
        self.repeated = 0

    def __call__(self, sample: Callable[[], float], warm: Callable[[], bool] = lambda: False) -> float:
        """Return what a sample gives: where that is possible one that nobody disturbed.

        Args:
            sample: Takes one.
            warm: Fills the caches before each try, and returns whether it did; an interruption before is forgotten then
                and one meanwhile does no harm.
        """
        calm, best, least = True, 0.0, float("inf")
        for tried in range(MOST_TRIES):
            filled = warm() or calm
            self._waits()
            begun = self._clock()
            found = sample()
            waited, took = self._waits(), self._clock() - begun
            calm = waited <= self._allowed * took
            if (calm and filled) or took - waited > SLICE_S:
                self.repeated += tried
                return found
            waited = 0.0 if calm else waited
            if waited <= least:  # of two that are as calm the later: it is warmer
                best, least = found, waited
        self.repeated += MOST_TRIES - 1
        return best
