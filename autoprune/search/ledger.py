"""The books of a study: what is finished, known, queued and in flight, in step with the storage.

The storage is the only truth; what is kept here can be read from it again. Every trial's record is written before
Optuna is told, so that a process may die between any two statements.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import time
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from autoprune.search import storage
from autoprune.search.about import about_study, bound_notes
from autoprune.search.damage import DamageTable
from autoprune.search.drivers import Drivers
from autoprune.search.executors import Job
from autoprune.search.greybox import History
from autoprune.search.greybox.seeds import DAMAGE_ORIGIN, MOST_SEEDS, seeds
from autoprune.search.greybox.space import SpaceKnowledge, space_knowledge
from autoprune.search.opening import FirstTrial, opening
from autoprune.search.prior import PRIOR, gather, prior_of
from autoprune.search.rungs import Rungs
from autoprune.search.samplers import SAMPLERS, SamplerRequest
from autoprune.search.survey import Surveyed
from autoprune.spec.config import Provenance, PruningConfig
from autoprune.spec.findings import RungRecord
from autoprune.spec.front import DENSE, DROP, WARM
from autoprune.spec.record import RunRecords, Timings, TrialRecord
from autoprune.spec.study import LAST_RUNG, StudySpec
from autoprune.trial.runner import TrialRunner


class Ledger:
    """Proposes trials and settles them.

    Args:
        study: The Optuna study.
        runner: What trials share; its ``spec`` is the study.
        surveyed: What is known before the first trial: the search space, and what predicts latency.
        directory: The run directory, for the provenance of configs.
        shown: The study as it may be shown to anybody.
        table: What single choices cost; None where that was not tried.

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
    ) -> None:
        self._study, self._runner, self._surveyed = study, runner, surveyed
        self._table, self._forecast = table, surveyed.forecast
        self._proposals = surveyed.narrowed.proposals if table is None else table.proposals
        self._directory, self._shown = directory, shown
        self._spec = runner.spec
        self._drivers = Drivers(study, directory, runner.spec.storage is not None)
        self._records: dict[int, TrialRecord] = {}
        self._known: dict[str, int] = {}
        self._in_flight: dict[int, Trial] = {}
        self.warnings: tuple[str, ...] = ()
        self._record_s = 0.0
        self._rungs = Rungs(self._spec) if self._spec.search.rungs else None
        self._climbing: dict[int, TrialRecord] = {}
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
        """Trials that other drivers of the study work on."""
        return len(self._drivers.others(self._study.get_trials(deepcopy=False))) if self._drivers.shared else 0

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
            self._forecast.predictor,
            None if self._table is None else self._table.arrays(self._proposals),
        )

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
        for trial in self._study.get_trials(deepcopy=False):
            record = storage.record_of(trial)
            if record is not None:
                self._remember(record)
        self._forecast.learn(*self._records.values())
        jobs = self._take_over()
        self._enqueue()
        return jobs

    def refresh(self) -> list[Job]:
        """Take in what other drivers of the study have done, and take over what they left when they were lost.

        Returns:
            Jobs as from :meth:`resume`.
        """
        if not self._drivers.shared:
            return []
        had_dense = self.dense is not None
        self._read_others()
        jobs = self._take_over()
        if self.dense is not None and not had_dense:
            self._enqueue()
        return jobs

    def close(self) -> None:
        """Let other drivers know that this one is gone."""
        self._drivers.close()

    def propose(self) -> Job:
        """Ask for the next trial. It is in flight until it is settled or abandoned."""
        started = time.perf_counter()
        made = storage.proposals_made(self._study.get_trials(deepcopy=False))
        search = self._spec.search
        request = SamplerRequest(search.seed, made, search.trials, lambda: self._knowledge, self._history)
        self._study.sampler = SAMPLERS.get(search.sampler).make(request)
        trial = self._ask()
        self._in_flight[trial.number] = trial
        config = self._proposals.suggest(trial)
        origin = str(trial.user_attrs.get(storage.ORIGIN, self._spec.search.sampler))
        if self.dense is None:
            config = self._runner.dense_config
        return Job(
            number=trial.number,
            config=self._signed(config, trial.number),
            origin=origin,
            dense=self.dense,
            propose_s=time.perf_counter() - started,
        )

    def _ask(self) -> Trial:
        """Ask for a trial and claim it; one that another driver took for lost between the two is left alone."""
        while True:
            trial = self._study.ask()
            with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
                self._drivers.claim(trial)
                return trial

    def repeat(self, job: Job) -> TrialRecord | None:
        """Return the record of a job whose config is known or in flight; None for one that has to be run."""
        taken = self._taken(job.number)
        if self._drivers.shared:
            self._read_others()  # after the look at what runs, so that what ends in between is seen once at least
        known = taken if taken is not None else self._known.setdefault(job.config.signature, job.number)
        if known == job.number:
            return None
        error = f"repeats the config of trial {known}"
        return TrialRecord(number=job.number, state="pruned", origin=job.origin, config=job.config, error=error)

    def surplus(self, job: Job) -> bool:
        """Give up a trial if other drivers have asked for enough at the same moment; tell whether that was so."""
        if not self._drivers.shared:
            return False
        self._read_others()
        others = self._drivers.others(self._study.get_trials(deepcopy=False))
        earlier = sum(other.number < job.number for other in (*others, *self._in_flight.values()))
        if self.finished + earlier < self._spec.search.trials:
            return False
        del self._in_flight[job.number]
        self._study.tell(job.number, state=TrialState.FAIL)
        return True

    def climb(self, job: Job, record: TrialRecord) -> Job | TrialRecord:
        """Take what a job brought: the trial's next job, or the record to settle it with.

        What a rung brought is in the storage before anything is decided: whoever goes on after the process died decides
        the same, and runs the next rung only.
        """
        if self._rungs is None or job.dense is None:
            return record
        so_far = _added(self._climbing.get(job.number), record)
        if record.state != "pruned":  # whole, or failed
            return so_far
        self._in_flight[job.number].set_user_attr(storage.CLIMBING, so_far.to_data())
        self._climbing[job.number] = so_far
        known = (*self._records.values(), *self._climbing.values())
        others = [r for r in known if (r.rungs or r.origin == DENSE) and r.state != "failed" and r.number != job.number]
        stopped = self._rungs.verdict(so_far, others)
        if stopped:
            return so_far.model_copy(update={"error": stopped})
        return dataclasses.replace(job, rung=job.rung + 1)

    def settle(self, job: Job, record: TrialRecord) -> TrialRecord:
        """Write the record of a job into the storage and tell Optuna; return it with its times.

        Raises:
            TaskError: The dense model cannot be scored on test data.
        """
        started = time.perf_counter()
        if job.dense is None and record.state == "complete":
            record = record.model_copy(update={"config": job.config})
            self.test(record)  # a test that cannot run is better known before the search than after
            warning = self._runner.norm_warning(record.score or 0.0)
            self.warnings = (
                *((warning,) if warning else ()),
                *bound_notes(self._spec, self._runner, record),
            )
            about = about_study(self._shown, self._runner, record, self._surveyed, self.warnings)
            if self._table is not None:
                dropped = (*(about.dropped or ()), *self._table.dropped) or None
                about = about.model_copy(update={"damage": self._table.records, "dropped": dropped})
            self._study.set_user_attr(storage.STUDY, about.to_data())
            started = time.perf_counter()
        elif job.dense is not None:
            record = self._forecast.foretold(record, job.dense)
            self._forecast.learn(record)
        timings = record.timings.model_copy(update={"propose_s": job.propose_s, "record_s": self._record_s})
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        record = record.model_copy(update={"timings": timings, "finished_at": now})
        trial = self._in_flight[job.number]
        self._constrain(trial, record)
        trial.set_user_attr(storage.RECORD, record.to_data())
        self._tell(job.number, record)
        del self._in_flight[job.number]
        self._climbing.pop(job.number, None)
        self._remember(record)
        if record.origin == DENSE:
            self._enqueue()
        self._record_s = time.perf_counter() - started
        return record

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
                self._queue_again(self._study.get_trials(deepcopy=False)[number])
        self._in_flight.clear()
        self._climbing.clear()

    def test(self, record: TrialRecord) -> None:
        """Score a trial on test data, once however often this is asked."""
        scores = dict(self._study.user_attrs.get(storage.TEST_SCORES, {}))
        if self._runner.task.test is not None and str(record.number) not in scores and record.config is not None:
            scores[str(record.number)] = self._runner.test_score(record.config)
            self._study.set_user_attr(storage.TEST_SCORES, scores)

    def _enqueue(self) -> None:
        """Queue what every study starts with and this one lacks: the dense model, and after it the baselines."""
        trials = self._study.get_trials(deepcopy=False)
        present = {_key(_fixed(t)) for t in trials if t.state == TrialState.WAITING}
        present |= {_key(_fixed(t)) for t in self._drivers.others(trials)}
        begun = (storage.RECORD, storage.CLIMBING)
        present |= {_key(t.params) for t in trials if any(key in t.user_attrs for key in begun)}
        wanted = self._spec.search.trials
        first = opening(self._proposals, self._runner.graph, self._runner.book, wanted)
        prior = prior_of(self._study)
        if prior is not None:
            first[1:1] = [FirstTrial(WARM, dict(trial.params)) for trial in prior.warmest(wanted)]
        known = self._knowledge if self._table is not None else None
        if known is not None:
            rows = seeds(known, min(wanted // 5, MOST_SEEDS))
            first[1:1] = [FirstTrial(DAMAGE_ORIGIN, {**first[0].params, **known.domain.decode(row)}) for row in rows]
        for origin, params in first if self.dense else first[:1]:
            searched = params if origin == WARM else self._proposals.searched(params)
            if _key(searched) not in present:
                present.add(_key(searched))
                self._study.enqueue_trial(searched, user_attrs={storage.ORIGIN: origin})

    def _read_others(self) -> None:
        for trial in self._study.get_trials(deepcopy=False):
            if trial.number not in self._records and trial.state.is_finished():
                record = storage.record_of(trial)
                if record is not None:
                    self._remember(record)

    def _take_over(self) -> list[Job]:
        """Finish or free the running trials that nobody works on."""
        jobs = []
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number in self._in_flight or not self._drivers.is_lost(trial):
                continue
            record = storage.record_of(trial)
            if record is not None:  # the process died after the record, before the telling
                self._remember(record)
                with _told_by_another():
                    self._tell(trial.number, record)
            elif self._rungs is not None and (so_far := storage.record_of(trial, storage.CLIMBING)) is not None:
                jobs.append(self._go_on(trial, so_far))
            else:
                self._queue_again(trial)
        return jobs

    def _queue_again(self, trial: FrozenTrial) -> None:
        """Close a trial that came to no record, and queue what it was to try.

        One that was lost before all of its parameters were drawn is drawn again, with the same seed.
        """
        with _told_by_another():
            self._study.tell(trial.number, state=TrialState.FAIL)
            searched = self._proposals.searched(self._proposals.uniform(0.0))
            if self.dense is not None and trial.params.keys() == searched.keys():
                origin = trial.user_attrs.get(storage.ORIGIN, self._spec.search.sampler)
                self._study.enqueue_trial(trial.params, user_attrs={storage.ORIGIN: origin})

    def _taken(self, number: int) -> int | None:
        """Return the trial of another driver that tries the same at this moment.

        What was queued twice is the earlier trial's; of two that were drawn at the same moment both may give way.
        """
        if not self._drivers.shared:
            return None
        trials = self._study.get_trials(deepcopy=False)
        mine = trials[number]
        for other in self._drivers.others(trials):
            queued = _fixed(mine) and _fixed(other)
            same = _key(_fixed(other) if queued else other.params) == _key(mine.params)
            if same and (not queued or other.number < number):
                return int(other.number)
        return None

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

    def _go_on(self, trial: FrozenTrial, so_far: TrialRecord) -> Job:
        self._in_flight[trial.number] = Trial(self._study, trial._trial_id)
        self._drivers.claim(self._in_flight[trial.number])
        self._climbing[trial.number] = so_far
        assert so_far.config is not None, "a trial that climbs has a config"
        assert so_far.rungs is not None
        self._known.setdefault(so_far.config.signature, trial.number)
        return Job(trial.number, so_far.config, so_far.origin, self.dense, len(so_far.rungs), so_far.timings.propose_s)

    def _signed(self, config: PruningConfig, number: int) -> PruningConfig:
        provenance = Provenance(
            run=str(self._directory),
            trial=number,
            task=self._spec.task,
            device=self._spec.device,
            version=version("autoprune"),
        )
        return config.model_copy(update={"provenance": provenance})


def read_study(study: optuna.Study) -> RunRecords | None:
    """Return everything a report needs from the storage; None before the dense model was measured."""
    about = storage.study_record(study)
    if about is None:
        return None
    scores = study.user_attrs.get(storage.TEST_SCORES, {})
    trials = []
    for trial in study.get_trials(deepcopy=False):
        record = storage.record_of(trial)
        if record is not None and trial.state.is_finished():
            test = scores.get(str(trial.number))
            trials.append(record if test is None else record.model_copy(update={"test_score": float(test)}))
    return RunRecords(study=about, trials=tuple(trials))


def counts(record: TrialRecord) -> bool:
    """Whether a trial counts: complete, failed, or stopped on a rung; no repeat of another one."""
    return record.state != "pruned" or record.rungs is not None


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


def _told_by_another() -> contextlib.suppress:
    """Let another driver win that takes over the same trial at the same moment."""
    return contextlib.suppress(ValueError, optuna.exceptions.UpdateFinishedTrialError)


def _fixed(trial: FrozenTrial) -> dict[str, Any]:
    return dict(trial.system_attrs.get("fixed_params", {}))


def _key(params: Any) -> str:
    return json.dumps({name: params[name] for name in sorted(params)}, default=str)
