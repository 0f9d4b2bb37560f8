"""The executor of one machine: trials run in the process of the search, one at a time, the meter undisturbed."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence

from autoprune.search.errands import Errand, OwnHands, Performed, T
from autoprune.search.executors import Job
from autoprune.spec.record import TrialRecord
from autoprune.trial.runner import TrialRunner


def run_job(runner: TrialRunner, job: Job) -> TrialRecord:
    """Do one job in this process.

    Raises:
        Exception: The dense model failed: no other trial could be compared with it.
    """
    if job.dense is None:
        return runner.run_dense(job.number)
    try:
        return runner.run(job.config, job.number, job.origin, job.dense, job.rung)
    except (Exception, SystemExit):  # the boundary: a trial's own failure is kept, and the search goes on
        return failed(job, traceback.format_exc())


def failed(job: Job, error: str) -> TrialRecord:
    """Return the record of a job that came to no result."""
    return TrialRecord(number=job.number, state="failed", origin=job.origin, config=job.config, error=error)


class LocalExecutor:
    """One job at a time, done while it is waited for.

    Args:
        runner: What trials of the study share.
    """

    capacity = 1
    ended = 0

    def __init__(self, runner: TrialRunner) -> None:
        self._runner = runner
        self._job: Job | None = None

    def submit(self, job: Job) -> None:
        """Take a job."""
        assert self._job is None, "one job at a time"
        self._job = job

    def wait(self) -> tuple[Job, TrialRecord]:
        """Do the job that was taken."""
        job, self._job = self._job, None
        assert job is not None, "there is a job to wait for"
        return job, run_job(self._runner, job)

    @property
    def has_meter(self) -> bool:
        """Whether this machine measures the study's device."""
        return self._runner.meter is not None

    def perform(self, errands: Sequence[Errand[T]]) -> Iterator[Performed[T]]:
        """Do errands, one after the other."""
        return OwnHands(self._runner).perform(errands)

    def close(self) -> None:
        """Forget the job that was taken."""
        self._job = None
