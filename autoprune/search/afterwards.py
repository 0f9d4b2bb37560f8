"""What becomes of trials once they are finished: scored on test data, and measured once more; each trial once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import optuna

from autoprune.search import storage
from autoprune.search.errands import Errand, Hands, MeasureAgain, ScoreOnTest
from autoprune.spec.front import DENSE
from autoprune.spec.record import TrialRecord
from autoprune.trial.task import Task

T = TypeVar("T")


def score_on_test(
    study: optuna.Study, hands: Hands, task: Task, records: Sequence[TrialRecord]
) -> dict[int, Exception]:
    """Score trials on test data, each once however often this is asked.

    Args:
        study: The Optuna study.
        hands: What scores.
        task: Where it has no test, nothing is scored.
        records: Trials of the study.

    Returns:
        By number what was raised.
    """
    if task.test is None:
        return {}
    known = storage.test_scores(study)
    wanted = [ScoreOnTest(r.number, r.config) for r in records if r.number not in known and r.config is not None]
    return _perform(hands, wanted, lambda number, score: storage.keep_test_score(study, number, score))


def measure_again(
    study: optuna.Study, hands: Hands, dense: TrialRecord | None, records: Sequence[TrialRecord], most: int
) -> dict[int, Exception]:
    """Measure the latency of trials once more, each once however often this is asked.

    Args:
        study: The Optuna study.
        hands: What measures.
        dense: The dense trial; where its latency was not measured, nothing is.
        records: Trials of the study.
        most: How many at most, spread over their latencies.

    Returns:
        By number what was raised.
    """
    if dense is None or dense.latency is None or not dense.latency.pairs:
        return {}
    known, dense_ms = storage.latencies_again(study), dense.latency.ms
    paired = [r for r in records if r.latency is not None and r.latency.pairs and r.origin != DENSE]
    paired.sort(key=lambda r: r.values["latency_ms"])
    places = np.unique(np.linspace(0, len(paired) - 1, min(most, len(paired))).round().astype(int))
    wanted = [
        MeasureAgain(r.number, r.config, dense_ms)
        for r in (paired[place] for place in places)
        if r.number not in known and r.config is not None
    ]
    return _perform(hands, wanted, lambda number, latency: storage.keep_latency_again(study, number, latency))


def _perform(hands: Hands, wanted: Sequence[Errand[T | None]], keep: Callable[[int, T], None]) -> dict[int, Exception]:
    """Do the errands of trials and keep at once what each gives; return by number what they raised."""
    failed: dict[int, Exception] = {}
    for done in hands.perform(wanted):
        assert isinstance(done.errand, ScoreOnTest | MeasureAgain)
        if done.error is not None:
            failed[done.errand.number] = done.error
        elif done.result is not None:
            keep(done.errand.number, done.result)
    return failed
