"""The loop of a study: propose while there is room, wait, settle, until enough trials are finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autoprune.errors import RunError
from autoprune.search.executors import Executor, Job
from autoprune.search.ledger import Ledger
from autoprune.search.stored import counts
from autoprune.spec.front import DENSE, GrowingFront, hypervolume_history
from autoprune.spec.record import TrialRecord
from autoprune.spec.study import SearchSpec

GOES_ON = "The same command goes on"
"""What to do about a search that ended early by no fault of its space."""

POLL_S = 1.0
"""Seconds between two looks at what other drivers do, while there is nothing to do here."""

MOST_FAILURES = 10
"""Failures in a row after which something other than the configs is wrong."""

MOST_REPEATS = 100
"""Repeated proposals in a row after which the space counts as exhausted."""


LEAST_GAIN = 1e-3
"""Share by which the hypervolume must grow for patience to begin anew."""


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
        warnings: What the dense model showed that the user should know at once; with its trial alone.
    """

    finished: int
    wanted: int
    front_size: int
    hypervolume: float | None
    elapsed_s: float
    done_here: int
    last: TrialRecord | None
    warnings: tuple[str, ...] = ()


class _Patience:
    """How many trials have passed since the hypervolume grew.

    Args:
        history: Hypervolumes after each trial so far.
    """

    def __init__(self, history: Sequence[float]) -> None:
        self.best, self.waited = 0.0, 0
        for volume in history:
            self.see(volume)

    def see(self, volume: float) -> None:
        """Take the hypervolume after one more trial; what grows by less than :data:`LEAST_GAIN` does not count.

        Nobody waits before there is anything: within tight bounds a search goes on until it finds a feasible trial.
        """
        if volume > self.best * (1 + LEAST_GAIN):
            self.best, self.waited = volume, 0
        elif self.best:
            self.waited += 1


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
        records = ledger.records()
        if records is not None:
            records = records.model_copy(update={"trials": tuple(filter(counts, records.trials))})
        self._patience = _Patience(() if records is None else hypervolume_history(records))
        self._front: GrowingFront | None = None

    def run(self) -> str:
        """Run until the trials asked for are finished; return why it ended before, empty if it did not.

        Raises:
            RunError: Ten trials in a row failed.
            AutopruneError: The dense model cannot be scored or measured, or the executor is gone for good.
        """
        self._report(None)
        while True:
            self._waiting += self._ledger.refresh()
            stopped = self._fill()
            if not self._ledger.in_flight:
                if stopped or self._ledger.finished >= self._search.trials or not self._ledger.elsewhere:
                    return stopped
                time.sleep(POLL_S)  # what is left to do is in flight with another driver
                continue
            self._settle_next()
            while self._executor.ended:  # all that ended meanwhile, so that as many are proposed together
                self._settle_next()

    def _settle_next(self) -> None:
        job, record = self._executor.wait()
        self._submitted -= 1
        went = self._ledger.climb(job, record)
        if isinstance(went, Job):
            self._waiting.append(went)
        elif (settled := self._ledger.settle(job, went)) is not None:
            self._settled(settled)

    def _fill(self) -> str:
        """Propose while there is room; return why nothing more is to be proposed, empty if all is or will be done."""
        while self._waiting and self._submitted < self._executor.capacity:
            self._submit(self._waiting.pop(0))  # who climbs goes first
        while (
            self._ledger.finished + self._ledger.in_flight + (elsewhere := self._ledger.elsewhere) < self._search.trials
        ):
            stopped = self._ended()
            if stopped:
                return stopped
            if elsewhere and self._ledger.dense is None:
                return ""  # another driver measures the dense model
            # Everything is compared with the dense model: it goes first, alone.
            room = self._executor.capacity if self._ledger.dense is not None else 1
            if self._ledger.in_flight >= room:
                return ""
            left = self._search.trials - self._ledger.finished - self._ledger.in_flight - elsewhere
            job = self._ledger.propose(min(room - self._ledger.in_flight, left))
            if self._ledger.surplus(job):
                return ""
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
        budget = self._search.budget_s
        if budget is not None and self._ledger.seconds > budget:
            return f"the budget of {self._search.budget} of trial time is spent. Give a larger one to go on"
        if self._search.patience is not None and self._patience.waited >= self._search.patience:
            return (
                f"the last {self._patience.waited} trials gained no hypervolume ({self._patience.best:.4f}). "
                "Give more patience to go on"
            )
        if self._repeats >= MOST_REPEATS:
            return f"{MOST_REPEATS} proposals in a row were known: the space is exhausted. Widen it to go on"
        return ""

    def _settled(self, record: TrialRecord) -> None:
        self._failures = self._failures + 1 if record.state == "failed" else 0
        if counts(record):
            self._report(record)
        if self._failures >= MOST_FAILURES:
            cause = (record.error or "").strip().splitlines()[-1]
            raise RunError(
                f"{self._failures} trials in a row failed, the last with {cause}; mend the cause and run the same "
                "command again (the tracebacks stand in the report)"
            )

    def _report(self, last: TrialRecord | None) -> None:
        if self._front is None and (records := self._ledger.records()) is not None:
            self._front = GrowingFront(records.study, ())
        if self._front is not None:
            self._front.take(self._ledger.settled)
        volume = None if self._front is None else self._front.hypervolume
        if last is not None:
            self._patience.see(volume or 0.0)
        self._on_trial(
            Progress(
                finished=self._ledger.finished,
                wanted=self._search.trials,
                front_size=0 if self._front is None else len(self._front.trials),
                hypervolume=volume,
                elapsed_s=time.perf_counter() - self._started,
                done_here=self._ledger.finished - self._begun_with,
                last=last,
                warnings=self._ledger.warnings if last is not None and last.origin == DENSE else (),
            )
        )
