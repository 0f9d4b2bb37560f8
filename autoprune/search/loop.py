"""The loop of a study: propose while there is room, wait, settle, until enough trials are finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autoprune.errors import RunError
from autoprune.search.executors import Executor, Job
from autoprune.search.ledger import Ledger
from autoprune.spec.front import front, hypervolume_of
from autoprune.spec.record import TrialRecord
from autoprune.spec.study import SearchSpec

GOES_ON = "The same command goes on"
"""What to do about a search that ended early by no fault of its space."""

MOST_FAILURES = 10
"""Failures in a row after which something other than the configs is wrong."""

MOST_REPEATS = 100
"""Repeated proposals in a row after which the space counts as exhausted."""


@dataclass(frozen=True)
class Progress:
    """Where a study stands after a trial.

    Attributes:
        finished: Trials finished.
        wanted: Trials asked for.
        front_size: Trials on the front.
        hypervolume: Dominated volume, 0 to 1; None before the dense model was measured.
        elapsed_s: Wall seconds of this run of the command.
        done_here: Trials finished in this run of the command.
        last: The trial that has just finished; None at the start.
    """

    finished: int
    wanted: int
    front_size: int
    hypervolume: float | None
    elapsed_s: float
    done_here: int
    last: TrialRecord | None


class Loop:
    """One run of the command on one study.

    Args:
        ledger: The books.
        executor: Where jobs run.
        search: How long.
        on_trial: Called at the start and after every trial.
        begun: Jobs in flight that go before anything is proposed.
    """

    def __init__(
        self,
        ledger: Ledger,
        executor: Executor,
        search: SearchSpec,
        on_trial: Callable[[Progress], None],
        begun: Sequence[Job] = (),
    ) -> None:
        self._waiting, self._submitted = list(begun), 0
        self._ledger, self._executor, self._search, self._on_trial = ledger, executor, search, on_trial
        self._started = time.perf_counter()
        self._begun_with = ledger.finished
        self._repeats = self._failures = 0

    def run(self) -> str:
        """Run until the trials asked for are finished; return why it ended before, empty if it did not.

        Raises:
            RunError: Ten trials in a row failed.
            AutopruneError: The dense model cannot be scored or measured, or the executor is gone for good.
        """
        self._report(None)
        while True:
            stopped = self._fill()
            if not self._ledger.in_flight:
                return stopped
            job, record = self._executor.wait()
            self._submitted -= 1
            went = self._ledger.climb(job, record)
            if isinstance(went, Job):
                self._waiting.append(went)
            else:
                self._settled(self._ledger.settle(job, went))

    def _fill(self) -> str:
        """Propose while there is room; return why nothing more is to be proposed, empty if all is or will be done."""
        while self._waiting and self._submitted < self._executor.capacity:
            self._submit(self._waiting.pop(0))  # who climbs goes first
        while self._ledger.finished + self._ledger.in_flight < self._search.trials:
            stopped = self._ended()
            if stopped:
                return stopped
            # Everything is compared with the dense model: it goes first, alone.
            room = self._executor.capacity if self._ledger.dense is not None else 1
            if self._ledger.in_flight >= room:
                return ""
            job = self._ledger.propose()
            repeat = self._ledger.repeat(job)
            if repeat is None:
                self._repeats = 0
                self._submit(job)
            else:
                self._repeats += 1
                self._ledger.settle(job, repeat)
        return ""

    def _submit(self, job: Job) -> None:
        self._submitted += 1
        self._executor.submit(job)

    def _ended(self) -> str:
        timeout = self._search.timeout_s
        if timeout is not None and time.perf_counter() - self._started > timeout:
            return f"the time of {self._search.timeout} is up. {GOES_ON}"
        if self._repeats >= MOST_REPEATS:
            return f"{MOST_REPEATS} proposals in a row were known: the space is exhausted. Widen it to go on"
        return ""

    def _settled(self, record: TrialRecord) -> None:
        self._failures = self._failures + 1 if record.state == "failed" else 0
        if record.state != "pruned" or record.rungs is not None:
            self._report(record)
        if self._failures >= MOST_FAILURES:
            cause = (record.error or "").strip().splitlines()[-1]
            raise RunError(
                f"{self._failures} trials in a row failed, the last with {cause}; mend the cause and run the same "
                "command again (the tracebacks stand in the report)"
            )

    def _report(self, last: TrialRecord | None) -> None:
        records = self._ledger.records()
        self._on_trial(
            Progress(
                finished=self._ledger.finished,
                wanted=self._search.trials,
                front_size=0 if records is None else len(front(records)),
                hypervolume=None if records is None else hypervolume_of(records),
                elapsed_s=time.perf_counter() - self._started,
                done_here=self._ledger.finished - self._begun_with,
                last=last,
            )
        )
