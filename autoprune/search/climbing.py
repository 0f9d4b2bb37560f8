"""Trials on their way up the rungs: what each has brought so far, kept in the storage, and where it goes next."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from optuna.trial import FrozenTrial, Trial

from autoprune.search import storage
from autoprune.search.executors import Job
from autoprune.search.rungs import Rungs
from autoprune.spec.findings import RungRecord
from autoprune.spec.front import DENSE, DROP
from autoprune.spec.record import Timings, TrialRecord
from autoprune.spec.study import LAST_RUNG, StudySpec


class Climbing:
    """The trials of one driver that climb.

    Args:
        spec: The study.
    """

    def __init__(self, spec: StudySpec) -> None:
        self._rungs = Rungs(spec) if spec.search.rungs else None
        self._so_far: dict[int, TrialRecord] = {}

    def begun(self, trial: FrozenTrial, dense: TrialRecord | None) -> Job | None:
        """Return the job with which a trial goes on that came to a rung before its process died; None for another."""
        so_far = None if self._rungs is None else storage.record_of(trial, storage.CLIMBING)
        if so_far is None:
            return None
        self._so_far[trial.number] = so_far
        assert so_far.config is not None, "a trial that climbs has a config"
        assert so_far.rungs is not None
        return Job(trial.number, so_far.config, so_far.origin, dense, len(so_far.rungs), so_far.timings.propose_s)

    def next(self, job: Job, record: TrialRecord, trial: Trial, settled: Iterable[TrialRecord]) -> Job | TrialRecord:
        """Take what a job brought: the trial's next job, or the record to settle it with.

        What a rung brought is in the storage before anything is decided: whoever goes on after the process died decides
        the same, and runs the next rung only.
        """
        if self._rungs is None or job.dense is None:
            return record
        so_far = _added(self._so_far.get(job.number), record)
        if record.state != "pruned":  # whole, or failed
            return so_far
        trial.set_user_attr(storage.CLIMBING, so_far.to_data())
        self._so_far[job.number] = so_far
        known = (*settled, *self._so_far.values())
        others = [r for r in known if (r.rungs or r.origin == DENSE) and r.state != "failed" and r.number != job.number]
        stopped = self._rungs.verdict(so_far, others)
        if stopped:
            return so_far.model_copy(update={"error": stopped})
        return dataclasses.replace(job, rung=job.rung + 1)

    def forget(self, number: int) -> None:
        """Take a trial off the rungs: it is settled, or another driver's."""
        self._so_far.pop(number, None)

    def clear(self) -> None:
        """Take all trials off the rungs; the storage keeps what they brought."""
        self._so_far.clear()


def _added(so_far: TrialRecord | None, record: TrialRecord) -> TrialRecord:
    """Return a trial's record with the rungs and the seconds of its earlier jobs."""
    rungs, timings = record.rungs, record.timings
    if record.state == "complete" and record.score is not None:
        seconds = timings.total_s - timings.latency_s - timings.prune_s - timings.cost_s
        reached = RungRecord(name=LAST_RUNG, score=record.score, drop=record.values[DROP], seconds=seconds)
        rungs = (*(rungs or ()), reached)
    if so_far is not None:
        rungs = (*(so_far.rungs or ()), *(rungs or ()))
        both = (so_far.timings, timings)
        timings = Timings(**{name: sum(getattr(part, name) for part in both) for name in Timings.model_fields})
    return record.model_copy(update={"rungs": rungs, "timings": timings})
