"""The front in two numbers alone: accuracy drop and one cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from autoprune.spec.front import DROP
from autoprune.spec.record import TrialRecord


def stairs(trials: Iterable[TrialRecord], cost: Callable[[TrialRecord], float]) -> tuple[TrialRecord, ...]:
    """Return the trials with the smallest drop among all of at most their cost, by rising cost; ties by number.

    Args:
        trials: Each with an accuracy drop.
        cost: What is minimised beside it.
    """
    out: list[TrialRecord] = []
    for trial in sorted(trials, key=lambda t: (cost(t), t.values[DROP], t.number)):
        if not out or trial.values[DROP] < out[-1].values[DROP]:
            out.append(trial)
    return tuple(out)
