"""The books of a study: what is finished, known, queued and in flight, in step with the storage.

The storage is the only truth; what is kept here can be read from it again. Every trial's record is written before
Optuna is told, so that a process may die between any two statements.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import time
from collections.abc import Iterable
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from autoprune.search import storage
from autoprune.search.about import about_study, bound_notes
from autoprune.search.afterwards import score_on_test
from autoprune.search.climbing import Climbing
from autoprune.search.damage import DamageTable
from autoprune.search.drivers import Drivers
from autoprune.search.errands import Hands, NormWarning, OwnHands
from autoprune.search.executors import Job
from autoprune.search.greybox import History
from autoprune.search.greybox.space import SpaceKnowledge, space_knowledge
from autoprune.search.prior import PRIOR, gather, prior_of
from autoprune.search.queued import Queue
from autoprune.search.samplers import SAMPLERS, SamplerRequest
from autoprune.search.stored import counts
from autoprune.search.survey import Surveyed
from autoprune.spec.config import Provenance, PruningConfig
from autoprune.spec.front import DENSE, DROP
from autoprune.spec.record import RunRecords, TrialRecord
from autoprune.spec.study import StudySpec
from autoprune.trial.runner import TrialRunner

_log = logging.getLogger("autoprune")


class Ledger:
    """Proposes trials and settles them.

    Args:
        study: The Optuna study.
        runner: What trials share; its ``spec`` is the study.
        surveyed: What is known before the first trial: the search space, and what predicts latency.
        directory: The run directory, for the provenance of configs.
        shown: The study as it may be shown to anybody.
        table: What single choices cost; None where that was not tried.
        hands: What scores networks on test data; None: this process.

    Raises:
        RunDirectoryError: A study to start from has no records, or is of another architecture.

    Attributes:
        warnings: What the dense model showed that the user should know at once.
    """

    def __init__(
        self,
        study: optuna.Study,
        runner: TrialRunner,
        surveyed: Surveyed,
        directory: Path,
        shown: StudySpec,
        table: DamageTable | None = None,
        hands: Hands | None = None,
    ) -> None:
        self._hands = hands or OwnHands(runner)
        self._study, self._runner, self._surveyed = study, runner, surveyed
        self._table, self._forecast = table, surveyed.forecast
        self._proposals = surveyed.narrowed.proposals if table is None else table.proposals
        self._directory, self._shown = directory, shown
        self._spec = runner.spec
        self._drivers = Drivers(study, directory, runner.spec.storage is not None)
        known_if_probed = (lambda: None) if table is None else (lambda: self._knowledge)
        self._queue = Queue(study, runner, self._proposals, self._drivers, known_if_probed)
        self._records: dict[int, TrialRecord] = {}
        self._known: dict[str, int] = {}
        self._in_flight: dict[int, Trial] = {}
        self._seen: list[FrozenTrial] = []
        self.warnings: tuple[str, ...] = ()
        self._record_s = 0.0
        self._climbing = Climbing(self._spec)
        earlier = self._spec.search.warm_start
        if earlier is not None and PRIOR not in study.user_attrs:
            study.set_user_attr(PRIOR, gather(earlier, self._proposals).to_data())
        self._history = History()

    @property
    def dense(self) -> TrialRecord | None:
        """The record of the dense model; None before it was measured."""
        return next((r for r in self._records.values() if r.origin == DENSE and r.state == "complete"), None)

    @property
    def finished(self) -> int:
        """Trials that count: complete, failed, or stopped on a rung; no repeats."""
        return sum(map(counts, self._records.values()))

    @property
    def in_flight(self) -> int:
        """Trials that were proposed here and are not settled."""
        return len(self._in_flight)

    @property
    def elsewhere(self) -> int:
        """Trials that other drivers of the study worked on at the last look."""
        return len(self._drivers.others(self._seen))

    @property
    def seconds(self) -> float:
        """Wall seconds that all settled trials took, whoever ran them."""
        return sum(record.timings.total_s for record in self._records.values())

    @property
    def _knowledge(self) -> SpaceKnowledge | None:
        """What is known of the space beside its trials; nothing before the dense model was measured."""
        return None if self.dense is None else self._known_space

    @cached_property
    def _known_space(self) -> SpaceKnowledge | None:
        about, dense = storage.study_record(self._study), self.dense
        assert about is not None
        assert dense is not None
        worst = about.reference.get(DROP, abs(about.dense_score))
        limits = self._runner.limits(dense)
        return space_knowledge(
            self._proposals,
            self._runner.costs,
            self._spec.objectives,
            worst,
            about.dense_score,
            limits,
            dense.values,
            self._forecast.predictors,
            None if self._table is None else self._table.arrays(self._proposals),
            prior_of(self._study),
            self._runner.task.higher_is_better,
        )

    @property
    def settled(self) -> Iterable[TrialRecord]:
        """The records of all settled trials."""
        return self._records.values()

    def records(self) -> RunRecords | None:
        """Return the records of all settled trials, without test scores; None before the dense model was measured."""
        about = storage.study_record(self._study)
        return None if about is None else RunRecords(study=about, trials=tuple(self._records.values()))

    def resume(self) -> list[Job]:
        """Take over what the storage holds: finish what has a record, free what has none, queue what is missing.

        Returns:
            Jobs of trials that had come to a rung: they are in flight again and go on from there.
        """
        self._drivers.start()
        self._seen = self._study.get_trials(deepcopy=False)
        for trial in self._seen:
            record = storage.record_of(trial)
            if record is not None:
                self._remember(record)
        self._forecast.learn(*self._records.values())
        jobs = self._take_over(self._seen)
        self._queue.fill(self.dense is not None)
        return jobs

    def refresh(self) -> list[Job]:
        """Take in what other drivers of the study have done, and take over what they left when they were lost.

        Returns:
            Jobs as from :meth:`resume`.
        """
        if not self._drivers.shared:
            return []
        had_dense = self.dense is not None
        jobs = self._take_over(self._look())
        if self.dense is not None and not had_dense:
            self._queue.fill(self.dense is not None)
        return jobs

    def close(self) -> None:
        """Let other drivers know that this one is gone."""
        self._drivers.close()

    def propose(self, batch: int = 1) -> Job:
        """Ask for the next trial. It is in flight until it is settled or abandoned.

        Args:
            batch: Trials that are asked for at this moment, this one included.
        """
        started = time.perf_counter()
        made = storage.proposals_made(self._study.get_trials(deepcopy=False))
        search = self._spec.search
        request = SamplerRequest(search.seed, made, search.trials, lambda: self._knowledge, self._history, batch)
        self._study.sampler = SAMPLERS.get(search.sampler).make(request)
        trial, config = self._ask()
        if self.dense is None and self._drivers.shared:
            self._look()  # what was asked for may have been queued by who has just measured the dense model
        origin = str(trial.user_attrs.get(storage.ORIGIN, self._spec.search.sampler))
        if self.dense is None or origin == DENSE:  # a second one repeats the first: two drivers may each have queued it
            config = self._runner.dense_config
        return Job(
            number=trial.number,
            config=self._signed(config, trial.number),
            origin=origin,
            dense=self.dense,
            propose_s=time.perf_counter() - started,
        )

    def _ask(self) -> tuple[Trial, PruningConfig]:
        """Put the next trial in flight; one that another driver took for lost meanwhile is left alone."""
        while True:
            trial = self._study.ask()
            self._in_flight[trial.number] = trial
            with contextlib.suppress(UpdateFinishedTrialError):
                self._drivers.claim(trial)
                return trial, self._proposals.suggest(trial)
            del self._in_flight[trial.number]

    def repeat(self, job: Job) -> TrialRecord | None:
        """Return the record of a job whose config is known or in flight; None for one that has to be run."""
        rival = self._queue.rival(job.number, self._look()) if self._drivers.shared else None
        known = rival if rival is not None else self._known.setdefault(job.config.signature, job.number)
        if known == job.number:
            return None
        error = f"repeats the config of trial {known}"
        return TrialRecord(number=job.number, state="pruned", origin=job.origin, config=job.config, error=error)

    def surplus(self, job: Job) -> bool:
        """Give up a trial if other drivers have asked for enough at the same moment; tell whether that was so.

        A trial gives way to earlier ones and to those that were confirmed. It is confirmed between two looks: whoever
        did not yet see that it is confirmed is seen by its second look. So no two stay where one is wanted.
        """
        if not self._drivers.shared:
            return False
        trial = self._in_flight[job.number]
        if not self._enough_without(job.number):
            with contextlib.suppress(UpdateFinishedTrialError):
                self._drivers.confirm(trial)
            if not self._enough_without(job.number, but_confirmed=False):
                return False
        del self._in_flight[job.number]
        self._queue.give_up(job.number)
        return True

    def _enough_without(self, number: int, but_confirmed: bool = True) -> bool:
        """Whether what is finished and what goes before one of our trials is all that was asked for."""
        others = self._drivers.others(self._look())
        before = {n for n in self._in_flight if n != number}
        before |= {o.number for o in others if o.number < number or (but_confirmed and self._drivers.confirmed(o))}
        before -= self._records.keys()
        if self.dense is None:
            return bool(before)  # one measures the dense model, and everybody waits for it
        return self.finished + len(before) >= self._spec.search.trials

    def climb(self, job: Job, record: TrialRecord) -> Job | TrialRecord:
        """Take what a job brought: the trial's next job, or the record to settle it with."""
        try:
            return self._climbing.next(job, record, self._in_flight[job.number], self._records.values())
        except UpdateFinishedTrialError:
            return record  # another driver took it for lost: so does who settles it

    def settle(self, job: Job, record: TrialRecord) -> TrialRecord | None:
        """Write the record of a job into the storage and tell Optuna; return it with its times.

        None where another driver took the trial for lost meanwhile, because this one gave no sign for a minute: what it
        tries was queued again, and the result that comes late is dropped.

        Raises:
            TaskError: The dense model cannot be scored on test data.
        """
        started = time.perf_counter()
        if job.dense is None and record.state == "complete":
            record = record.model_copy(update={"config": job.config})
            self._begin(record)
            started = time.perf_counter()
        elif job.dense is not None:
            record = self._forecast.foretold(record, job.dense)
            self._forecast.learn(record)
        timings = record.timings.model_copy(update={"propose_s": job.propose_s, "record_s": self._record_s})
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        record = record.model_copy(update={"timings": timings, "finished_at": now})
        trial = self._in_flight[job.number]
        del self._in_flight[job.number]
        self._climbing.forget(job.number)
        try:
            self._constrain(trial, record)
            trial.set_user_attr(storage.RECORD, record.to_data())
            with _told_by_another():
                self._tell(job.number, record)
        except UpdateFinishedTrialError:
            self._known.pop(record.config.signature if record.config else "", None)
            _log.warning("trial %d was taken over by another driver meanwhile; its result is dropped", job.number)
            return None
        self._remember(record)
        if record.origin == DENSE:
            self._queue.fill(self.dense is not None)
        self._record_s = time.perf_counter() - started
        return record

    def _begin(self, dense: TrialRecord) -> None:
        """Write what holds for the whole study, as soon as the dense model was measured."""
        for error in score_on_test(self._study, self._hands, self._runner.task, [dense]).values():
            raise error  # a test that cannot run is better known before the search than after
        (norm,) = self._hands.perform([NormWarning(dense.score or 0.0)])
        warning = norm.value
        self.warnings = (*((warning,) if warning else ()), *bound_notes(self._spec, self._runner, dense))
        about = about_study(self._shown, self._runner, dense, self._surveyed, self.warnings)
        if self._table is not None:
            dropped = (*(about.dropped or ()), *self._table.dropped) or None
            about = about.model_copy(update={"damage": self._table.records, "dropped": dropped})
        self._study.set_user_attr(storage.STUDY, about.to_data())

    def conclude(self, why: str) -> None:
        """Write what only the end of a run knows: why it ended before its trials were done, how well it predicted."""
        about = storage.study_record(self._study)
        if about is not None:
            ended = about.model_copy(
                update={"stopped": why or None, "predictor": self._forecast.record() or about.predictor}
            )
            if ended != about:
                self._study.set_user_attr(storage.STUDY, ended.to_data())

    def abandon(self) -> None:
        """Close what is in flight. Without a record it counts for nothing, and is queued again.

        What has come to a rung stays open: the next run goes on from there.
        """
        for number, trial in self._in_flight.items():
            if storage.RECORD not in trial.user_attrs and storage.CLIMBING not in trial.user_attrs:
                self._queue.put_back(self._study.get_trials(deepcopy=False)[number])
        self._in_flight.clear()
        self._climbing.clear()

    def _look(self) -> list[FrozenTrial]:
        """Read the study's trials, and remember what others have finished.

        One look, not two: a trial is on one side of it, running or finished with its record.
        """
        self._seen = self._study.get_trials(deepcopy=False)
        for trial in self._seen:
            if trial.number not in self._records and trial.state.is_finished():
                record = storage.record_of(trial)
                if record is not None:
                    self._remember(record)
        return self._seen

    def _take_over(self, trials: list[FrozenTrial]) -> list[Job]:
        """Finish or free the running trials that nobody works on."""
        jobs = []
        for trial in trials:
            known = trial.state != TrialState.RUNNING or trial.number in self._in_flight
            if known or not self._drivers.is_lost(trial):
                continue
            record = storage.record_of(trial)
            if record is not None:  # the process died after the record, before the telling
                self._remember(record)
                with _told_by_another():
                    self._tell(trial.number, record)
            elif (job := self._climbing.begun(trial, self.dense)) is not None:
                self._in_flight[trial.number] = Trial(self._study, trial._trial_id)
                self._drivers.claim(self._in_flight[trial.number])
                self._known.setdefault(job.config.signature, trial.number)
                jobs.append(job)
            else:
                self._queue.put_back(trial)
        return jobs

    def _constrain(self, trial: Trial, record: TrialRecord) -> None:
        dense = self.dense or record
        if record.state == "complete":
            for limit in self._runner.limits(dense):
                value = record.measured(limit.metric)
                if value is not None:  # over its scale: samplers add up what is beyond the bounds
                    trial.set_constraint(limit.metric, limit.excess(value) / limit.scale)

    def _tell(self, number: int, record: TrialRecord) -> None:
        if record.state != "complete":
            self._study.tell(number, state=TrialState.PRUNED if record.state == "pruned" else TrialState.FAIL)
            return
        dense = self.dense or record
        # Optuna needs every objective of a complete trial. What a refused config would have scored is not known; it is
        # told as the loss of everything, and the constraint keeps it out of every front.
        unknown = {**dense.values, "accuracy_drop": abs(dense.score or 0.0)}
        self._study.tell(number, [record.values.get(name, unknown[name]) for name in self._spec.objectives])

    def _remember(self, record: TrialRecord) -> None:
        self._records[record.number] = record
        if record.config is None:
            return
        if record.state == "complete" or (record.state == "pruned" and record.rungs is not None):
            self._known.setdefault(record.config.signature, record.number)
        elif record.state == "failed" and self._known.get(record.config.signature) == record.number:
            del self._known[record.config.signature]  # the same may be tried again

    def _signed(self, config: PruningConfig, number: int) -> PruningConfig:
        provenance = Provenance(
            run=str(self._directory),
            trial=number,
            task=self._spec.task,
            device=self._spec.device,
            version=version("autoprune"),
        )
        return config.model_copy(update={"provenance": provenance})


def _told_by_another() -> contextlib.suppress:
    """Let another driver win that tells the same record at the same moment."""
    return contextlib.suppress(ValueError, UpdateFinishedTrialError)
