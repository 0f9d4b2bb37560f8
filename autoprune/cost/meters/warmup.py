"""Warm-up by detection: it ends when runs stop getting quicker, not after a constant number of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SHARE = 0.2
"""Most of a budget that warm-up may take."""

_STEADY = 0.97
_WINDOW = 3


@dataclass(frozen=True)
class WarmUp:
    """What a warm-up saw.

    Attributes:
        seconds: Of one run of each side, once warm: medians of the last three rounds.
        rounds: Rounds run.
        steady: Whether a steady state was seen.
    """

    seconds: tuple[float, ...]
    rounds: int
    steady: bool


def warm_up(run_round: Callable[[], tuple[float, ...]], elapsed: Callable[[], float], budget_s: float) -> WarmUp:
    """Run rounds until none of their sides gets quicker any more.

    Steady is: the median of the last three rounds is less than 3 % below that of the three before, on every side.

    Args:
        run_round: Runs each side once and returns the seconds of each.
        elapsed: Seconds since the measurement began.
        budget_s: When ``elapsed`` reaches it the warm-up ends in any case. At least one round runs.
    """
    rounds: list[tuple[float, ...]] = []
    steady = False
    while not steady:
        rounds.append(run_round())
        if len(rounds) >= 2 * _WINDOW:
            before = np.median(rounds[-2 * _WINDOW : -_WINDOW], axis=0)
            after = np.median(rounds[-_WINDOW:], axis=0)
            steady = bool((after >= _STEADY * before).all())
        if elapsed() >= budget_s:
            break
    seconds = np.median(rounds[-_WINDOW:], axis=0)
    return WarmUp(tuple(float(value) for value in seconds), len(rounds), steady)
