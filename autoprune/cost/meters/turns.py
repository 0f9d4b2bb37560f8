"""Two networks run in turns in this process: warm-up, samples long enough for the timer, nobody else on the core."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from autoprune.cost.meters.interruption import Undisturbed, Waits
from autoprune.cost.meters.pace import Pace
from autoprune.cost.meters.pairing import Side, measure_blocks, measure_samples
from autoprune.cost.meters.result import PairedLatency, SingleLatency
from autoprune.cost.meters.warmup import SHARE, WarmUp, warm_up
from autoprune.spec.study import LatencySpec

_SAMPLE_S = 1.5e-3  # a sample this long drowns the timer (tens of ns) and the call of a Python loop
_SOON_WARM_S = 20e-3  # a run this long hardly feels what the caches held when it began


def measure_turns(
    dense: Callable[[int], float],
    candidate: Callable[[int], float],
    spec: LatencySpec,
    meter: str,
    seed: int = 0,
    pace: Pace | None = None,
) -> PairedLatency:
    """Measure what two networks take, in blocks A B B A.

    Threads, cores and the collector are as the caller set them.

    Args:
        dense: Runs the reference so many times in a row and returns the mean seconds of one run.
        candidate: Runs the other one.
        spec: Threads, wanted half-width, budget and wait.
        meter: Description for the result.
        seed: Of the bootstrap.
        pace: See :func:`~autoprune.cost.meters.pairing.measure_blocks`; not heeded where ``spec`` does not wait.

    Raises:
        MeterError: A sample is not a positive, finite number.
    """
    start = time.perf_counter()
    runs: Mapping[Side, Callable[[int], float]] = {"dense": dense, "candidate": candidate}
    warm = _warm_up((dense, candidate), start, spec.budget_s)
    # Each side repeats until its own sample is long enough: the quicker one would drown in the timer.
    repeats = dict(zip(runs, map(_repeats, warm.seconds), strict=True))
    calm = _undisturbed(spec)
    found = measure_blocks(
        _Warmed(runs, repeats, min(warm.seconds) < _SOON_WARM_S, calm).sample,
        lambda: time.perf_counter() - start,
        spec,
        f"{meter}, A B B A",
        seed,
        pace if spec.longest_wait_s else None,
    )
    return replace(found, repeated=calm.repeated, warmup_rounds=warm.rounds, steady=warm.steady)


def measure_alone(
    run: Callable[[int], float], spec: LatencySpec, budget_s: float, meter: str, seed: int = 0
) -> SingleLatency:
    """Measure what one network takes; for the arguments see :func:`measure_turns`.

    Raises:
        MeterError: As there.
    """
    start = time.perf_counter()
    warm = _warm_up((run,), start, budget_s)
    repeats, calm = _repeats(warm.seconds[0]), _undisturbed(spec)
    found = measure_samples(
        lambda: calm(lambda: run(repeats)),
        lambda: time.perf_counter() - start,
        spec.half_width,
        budget_s,
        meter,
        seed,
    )
    return replace(found, warmup_rounds=warm.rounds)


def _warm_up(runs: tuple[Callable[[int], float], ...], start: float, budget_s: float) -> WarmUp:
    return warm_up(lambda: tuple(run(1) for run in runs), lambda: time.perf_counter() - start, SHARE * budget_s)


def _repeats(seconds: float) -> int:
    """Return how many runs of so many seconds make a sample long enough for the timer."""
    return max(1, round(_SAMPLE_S / seconds + 0.5)) if seconds > 0 else 1


def _undisturbed(spec: LatencySpec) -> Undisturbed:
    return Undisturbed(Waits(spec.threads), spec.half_width)


class _Warmed:
    """Takes samples of networks in turns; a quick network runs untimed before what counts, for as long as that.

    Its first runs find in the caches what the other network left there, or another process: of a network of 0.35 ms the
    first took 14 % longer, and the next four 3, 2, 0.7 and 0.5 %. With them in a sample the ratio depends on how many
    runs make one; beside busy cores, where most samples are taken again and so find warm caches, it was 3 % lower.
    Where one run is a sample, it is made after a change of sides alone, for it takes as long as what counts.

    Args:
        runs: What runs each side.
        repeats: How many runs make a sample of each.
        quick: Whether they are quick enough for that.
        calm: What keeps other processes out of the samples.
    """

    def __init__(
        self,
        runs: Mapping[Side, Callable[[int], float]],
        repeats: Mapping[Side, int],
        quick: bool,
        calm: Undisturbed,
    ) -> None:
        self._runs, self._repeats, self._quick, self._calm = runs, repeats, quick, calm
        self._last: Side | None = None

    def sample(self, side: Side) -> float:
        """Return the mean seconds of the runs that make a sample of a side."""
        return self._calm(lambda: self._runs[side](self._repeats[side]), lambda: self._warm(side))

    def _warm(self, side: Side) -> bool:
        needed = self._quick and (self._repeats[side] > 1 or side != self._last)
        if needed:
            self._runs[side](self._repeats[side])
        self._last = side
        return needed
