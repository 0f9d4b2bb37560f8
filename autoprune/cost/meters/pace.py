"""At what speed the machine runs: samples tell, and what was measured while it was slow is set aside.

A core of a shared host runs by turns alone and beside a stranger, and the clock of a laptop or a board goes up and
down: on one host a small network took 0.83 ms or 1.45 ms, for milliseconds or minutes. Ratios are steady in either
state and differ between them (.655 of dense in one and .677 in the other; another network .469 and .492), for what
slows arithmetic down does not slow the start of a kernel as much. So the pairs of the quicker state alone count.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

SLOWER = 1.15
"""Times the least time of its network, from which on a sample counts as slow."""

MEMORY_S = 300.0
"""How long it is remembered how quick the machine was: a clock that stays low becomes the machine's speed."""

_MEMORY = 4  # measurements that are remembered however old they are
_FEWEST = 8  # samples that tell how quick the machine was
_LOW = 10  # percentile that stands for the least: single samples are lucky
_SCATTER = 4.0  # standard deviations of single samples above that percentile that are no change of speed


class Pace:
    """Remembers how quick the machine ran a reference, over the measurements that it takes part in.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: deque[tuple[float, float]] = deque()

    @property
    def new(self) -> bool:
        """Whether nothing is remembered yet."""
        return not self._known

    def quick(self, pairs: Sequence[tuple[float, float]]) -> NDArray[np.bool_]:
        """Return which pairs ran at full speed, shape (pairs,): both of their samples did.

        The limit is the same for both sides, relative to how each scatters, so that it favours neither.

        Args:
            pairs: (reference, candidate), seconds of one run, in the order in which they were taken.
        """
        reference, candidate = np.asarray(pairs, dtype=np.float64).T
        quick = _within(reference, self._least(reference))
        # Nothing is known of the candidate but beside a quick reference: elsewhere its least time may be a slow one.
        return quick & _within(candidate, _low(candidate[quick])) if quick.any() else quick

    def speed(self, pairs: Sequence[tuple[float, float]]) -> float:
        """Return the machine's speed in a measurement over the best that is known: 0.57 where it was slow throughout.

        Args:
            pairs: As for :meth:`quick`.
        """
        reference = np.asarray(pairs, dtype=np.float64)[:, 0]
        return self._least(reference) / float(np.median(reference))

    def remember(self, pairs: Sequence[tuple[float, float]]) -> None:
        """Take a measurement that has ended for what is known; one of fewer than eight pairs tells too little.

        Args:
            pairs: As for :meth:`quick`.
        """
        if len(pairs) < _FEWEST:
            return
        now = self._clock()
        self._known.append((now, _low(np.asarray(pairs, dtype=np.float64)[:, 0])))
        while len(self._known) > _MEMORY and self._known[0][0] < now - MEMORY_S:
            self._known.popleft()

    def _least(self, reference_s: NDArray[np.float64]) -> float:
        return min([_low(reference_s), *(least for _, least in self._known)])


def _low(seconds: NDArray[np.float64]) -> float:
    return float(np.percentile(seconds, _LOW))


def _within(seconds: NDArray[np.float64], least: float) -> NDArray[np.bool_]:
    """Return which samples of a network are no further above its least time than they scatter from one to the next."""
    logs = np.log(seconds)
    steps = np.abs(np.diff(logs))
    # The median step of normal samples is 0.954 standard deviations, and where the speed changes from sample to sample
    # more; their 10th and 40th percentiles are 1.028 apart, and where most samples are slow more. One of both holds.
    by_steps = float(np.median(steps)) / 0.954 if len(steps) else 0.0
    by_rank = float(np.subtract(*np.percentile(logs, [40, _LOW]))) / 1.028
    scatter = min(by_steps, by_rank)
    return np.asarray(logs <= np.log(least) + max(np.log(SLOWER), _SCATTER * scatter))
