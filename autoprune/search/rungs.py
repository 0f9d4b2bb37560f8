"""Who climbs: a trial goes on to the next rung unless it is clearly worse than another one that was there.

The stopping variant of asynchronous successive halving (Li et al. 2020, arXiv 1810.05934), with non-dominated rank for
several objectives (Schmucker et al. 2021, arXiv 2106.12639): a trial is judged as soon as it comes down from a rung, by
those that came before it. It is stopped where another trial costs no more and lost less accuracy on the same rung, by
more than the rung's margin. There is no quota: a rung that tells nothing stops nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import hypot, inf, sqrt

import numpy as np

from autoprune.ranks import order_margin
from autoprune.spec.findings import RungRecord
from autoprune.spec.front import DENSE
from autoprune.spec.objectives import METRICS
from autoprune.spec.record import TrialRecord
from autoprune.spec.study import LAST_RUNG, RungSpec, StudySpec

LEAST_CLIMBED = 6
"""Trials that must have climbed all rungs before anybody is stopped: they show what a rung's order is worth."""

KEPT_ORDER = 0.9
"""Share of pairs that must keep their order up to the last rung where they lie further apart than the margin."""


class Rungs:
    """Decides for one study who climbs.

    Args:
        spec: The study.
    """

    def __init__(self, spec: StudySpec) -> None:
        self._rungs: tuple[RungSpec, ...] = spec.search.rungs or ()
        self._sampler = spec.search.sampler
        self._costs = known_costs(spec)

    def verdict(self, trial: TrialRecord, others: Iterable[TrialRecord]) -> str:
        """Say why a trial is stopped; empty where it climbs.

        Args:
            trial: With the rungs that it climbed so far; the last of them is judged.
            others: The dense trial, and every other one that has a rung, whatever became of it.
        """
        assert trial.rungs, "a trial is judged by its rungs"
        if trial.origin != self._sampler:
            return ""  # a baseline, or a config from an earlier study: it shows what the rungs are worth
        reached = trial.rungs[-1]
        rung = self._rungs[len(trial.rungs) - 1]
        there = [(other, found) for other in others if (found := _found(other, reached)) is not None]
        margin = self._margin(reached.name, there)
        for other, found in there:
            if not all(other.values[name] <= trial.values[name] for name in self._costs):
                continue
            apart = max(margin, hypot(_sampling_error(found.score, rung), _sampling_error(reached.score, rung)))
            if reached.drop - found.drop > apart:
                costs = " and ".join(METRICS[name].title for name in self._costs)
                return (
                    f"stopped on rung {reached.name!r}: its drop {reached.drop:.4g} is clearly above {found.drop:.4g} "
                    f"of trial {other.number}, which has no more {costs} (margin {apart:.2g})"
                )
        return ""

    def _margin(self, name: str, there: Sequence[tuple[TrialRecord, RungRecord]]) -> float:
        """Return how far apart two trials must be on a rung for the last one to keep their order nearly always."""
        pairs = [
            (found.drop, last.drop)
            for other, found in there
            if other.origin != DENSE and (last := _on(other, LAST_RUNG)) is not None
        ]
        if len(pairs) < LEAST_CLIMBED:
            return inf
        here, finally_ = np.array(pairs).T
        return order_margin(here, finally_, KEPT_ORDER)


def known_costs(spec: StudySpec) -> tuple[str, ...]:
    """Return the metrics that cheap rungs compare costs by: exact objectives, and what drives those to be measured."""
    exact = [name for name in spec.objectives if METRICS[name].exact]
    measured = any(name in ("latency_ms", "energy_mj") for name in spec.objectives)
    return tuple(dict.fromkeys([*exact, *(("macs", "dram_bytes") if measured else ())]))


def _found(other: TrialRecord, reached: RungRecord) -> RungRecord | None:
    """Return what another trial scored on the rung that one has reached; the dense model's drop is 0 on all of them."""
    if other.origin != DENSE:
        return _on(other, reached.name)
    return RungRecord(name=reached.name, score=reached.score + reached.drop, drop=0.0, seconds=0.0)


def _on(trial: TrialRecord, name: str) -> RungRecord | None:
    return next((rung for rung in trial.rungs or () if rung.name == name), None)


def _sampling_error(score: float, rung: RungSpec) -> float:
    """Return the standard error of an accuracy on a sample; 0 where it is none, or the data are whole."""
    if rung.samples is None or not 0 <= score <= 1:
        return 0.0
    return sqrt(score * (1 - score) / rung.samples)
