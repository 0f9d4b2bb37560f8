"""The study: ask, run, record, tell, until enough trials are finished; resumable at any moment."""

from __future__ import annotations

import contextlib
import datetime
import json
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import Trial, TrialState

from autoprune.errors import RunError, UsageError, one_line
from autoprune.search import storage
from autoprune.search.about import about_study, identity
from autoprune.search.lock import exclusive
from autoprune.search.opening import opening
from autoprune.search.proposals import make_proposals
from autoprune.search.samplers import SAMPLERS, SamplerRequest
from autoprune.spec.config import Provenance, PruningConfig
from autoprune.spec.front import DENSE, front, hypervolume_of
from autoprune.spec.record import (
    RunRecords,
    TrialRecord,
    read_records,
    write_records,
    write_whole,
)
from autoprune.spec.space import SpaceSpec
from autoprune.spec.study import StudySpec, load_study, resolve_study
from autoprune.trial.runner import TrialRunner
from autoprune.trial.task import Task

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


class Study:
    """A multi-objective search over pruning configs.

    Args:
        task: What is pruned and how it is scored.
        spec: The study, or the path of its YAML file.
        directory: Where it is kept: ``study.yaml``, ``study.db``, ``records.jsonl``.

    Attributes:
        spec: The resolved study.
        directory: The run directory.
        stopped: Why the last run ended before all trials were done, and what to do; empty if it did not.

    Raises:
        UsageError: Something given cannot be used; the sentence says what, and what to do.
    """

    def __init__(self, task: Task, spec: StudySpec | Path | str, directory: Path | str) -> None:
        self.spec = resolve_study(spec) if isinstance(spec, StudySpec) else load_study(spec)
        self.directory = Path(directory)
        self.stopped = ""
        SAMPLERS.get(self.spec.search.sampler)
        if self.spec.storage is None:
            storage.check_sqlite(self.directory / "study.db")
        self.runner = TrialRunner(task, self.spec)
        space = self.spec.space
        assert isinstance(space, SpaceSpec), "a resolved study holds its space"
        self.proposals = make_proposals(
            space, self.runner.graph, self.runner.recovery, self.spec.search.seed, self.runner.book
        )
        self._records: dict[int, TrialRecord] = {}
        self._known: dict[str, int] = {}
        self._record_s = 0.0

    def run(self, on_trial: Callable[[Progress], None] | None = None) -> list[TrialRecord]:
        """Run until the trials asked for are finished, and return the front.

        A study that was interrupted goes on: finished trials are kept, those in flight are run again. Ctrl-C ends it
        cleanly after storing what is there.

        Args:
            on_trial: Called at the start and after every trial.

        Returns:
            The feasible trials that no other dominates, with their test scores where the task has a test.

        Raises:
            RunDirectoryError: The directory belongs to another study, or another search runs in it.
            TaskError: The dense model cannot be scored.
            StorageError: The storage fails; what was finished is kept.
            RunError: Ten trials in a row failed.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.stopped = ""
        with exclusive(self.directory):
            study = storage.open_study(
                self.spec.storage, self.directory, self.spec.objectives, identity(self._shown_spec, self.runner)
            )
            with storage.storage_errors(storage.shown_url(self.spec.storage, self.directory)):
                write_whole(self.directory / "study.yaml", self.spec.to_yaml())
                self._resume(study)
                try:
                    self._loop(study, on_trial or (lambda _: None))
                    if not self.stopped:
                        self._score_front(study)
                except KeyboardInterrupt:
                    self.stopped = f"stopped by Ctrl-C. {GOES_ON}"
                except BaseException:
                    with contextlib.suppress(Exception):  # what went wrong first is what is told
                        self._write_records(study)
                    raise
                records = self._write_records(study)
        return [] if records is None else list(front(records))

    def records(self) -> RunRecords:
        """Return the records of everything finished so far, as the run directory holds them.

        Raises:
            RunDirectoryError: Nothing has been run yet.
        """
        return read_records(self.directory / "records.jsonl")

    @property
    def _shown_spec(self) -> StudySpec:
        """The study without the password that its storage may need."""
        url = self.spec.storage
        return (
            self.spec
            if url is None
            else self.spec.model_copy(update={"storage": storage.shown_url(url, self.directory)})
        )

    def _write_records(self, study: optuna.Study) -> RunRecords | None:
        records = read_study(study)
        if records is not None:
            write_records(records, self.directory / "records.jsonl")
        return records

    def _resume(self, study: optuna.Study) -> None:
        for trial in study.get_trials(deepcopy=False):
            record = storage.record_of(trial)
            if record is not None:
                self._remember(record)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            record = self._records.get(trial.number)
            if record is not None:
                self._tell(study, trial.number, record)  # the process died after the record, before the telling
            else:
                study.tell(trial.number, state=TrialState.FAIL)
        self._enqueue(study)

    def _enqueue(self, study: optuna.Study) -> None:
        """Queue what every study starts with and this one lacks: the dense model, and after it the baselines."""
        trials = study.get_trials(deepcopy=False)
        present = {_key(t.system_attrs.get("fixed_params", {})) for t in trials if t.state == TrialState.WAITING}
        present |= {_key(t.params) for t in trials if storage.RECORD in t.user_attrs}
        first = opening(self.proposals, self.runner.graph, self.runner.book, self.spec.search.trials)
        for origin, params in first if self._dense else first[:1]:
            searched = self.proposals.searched(params)
            if _key(searched) not in present:
                present.add(_key(searched))
                study.enqueue_trial(searched, user_attrs={storage.ORIGIN: origin})

    def _loop(self, study: optuna.Study, on_trial: Callable[[Progress], None]) -> None:
        started = time.perf_counter()
        begun_with = self._finished
        failures = repeats = 0
        on_trial(self._progress(study, started, begun_with, None))
        while self._finished < self.spec.search.trials:
            timeout = self.spec.search.timeout_s
            if timeout is not None and time.perf_counter() - started > timeout:
                self.stopped = f"the time of {self.spec.search.timeout} is up. {GOES_ON}"
                return
            record = self._one(study)
            repeats = repeats + 1 if record.state == "pruned" else 0
            if repeats >= MOST_REPEATS:
                self.stopped = (
                    f"{MOST_REPEATS} proposals in a row were known: the space is exhausted. Widen it to go on"
                )
                return
            failures = failures + 1 if record.state == "failed" else 0
            if record.state != "pruned":
                on_trial(self._progress(study, started, begun_with, record))
            if failures >= MOST_FAILURES:
                cause = (record.error or "").strip().splitlines()[-1]
                raise RunError(
                    f"{failures} trials in a row failed, the last with {cause}; mend the cause and run the same "
                    "command again (the tracebacks stand in the report)"
                )

    def _one(self, study: optuna.Study) -> TrialRecord:
        started = time.perf_counter()
        settled = storage.proposals_made(study.get_trials(deepcopy=False))
        request = SamplerRequest(self.spec.search.seed, settled, self.spec.search.trials)
        study.sampler = SAMPLERS.get(self.spec.search.sampler).make(request)
        trial = study.ask()
        with _failed_if_interrupted(study, trial):
            config = self._signed(self.proposals.suggest(trial), trial.number)
            origin = str(trial.user_attrs.get(storage.ORIGIN, self.spec.search.sampler))
            proposed = time.perf_counter() - started
            record = self._run(study, config, trial.number, origin)
            timings = record.timings.model_copy(update={"propose_s": proposed, "record_s": self._record_s})
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            record = record.model_copy(update={"timings": timings, "finished_at": now})
            started = time.perf_counter()
            self._constrain(trial, record)
            trial.set_user_attr(storage.RECORD, record.to_data())
            self._tell(study, trial.number, record)
        self._remember(record)
        if record.origin == DENSE:
            self._enqueue(study)
        self._record_s = time.perf_counter() - started
        return record

    def _run(self, study: optuna.Study, config: PruningConfig, number: int, origin: str) -> TrialRecord:
        known = self._known.get(config.signature)
        if known is not None:
            error = f"repeats the config of trial {known}"
            return TrialRecord(number=number, state="pruned", origin=origin, config=config, error=error)
        dense = self._dense
        if dense is None:
            record = self.runner.run_dense(number)
            self._test(study, record)  # a test that cannot run is better known before the search than after
            about = about_study(self._shown_spec, self.runner, record, self.proposals.notes)
            study.set_user_attr(storage.STUDY, about.to_data())
            return record.model_copy(update={"config": self._signed(self.runner.dense_config, number)})
        try:
            return self.runner.run(config, number, origin, dense)
        except (Exception, SystemExit):  # the loop's boundary: a trial's own failure is kept, and the search goes on
            error = traceback.format_exc()
            return TrialRecord(number=number, state="failed", origin=origin, config=config, error=error)

    def _constrain(self, trial: Trial, record: TrialRecord) -> None:
        dense = self._dense or record
        if record.state == "complete":
            for name, limit in self.runner.limits(dense).items():
                if name in record.values:
                    trial.set_constraint(name, record.values[name] - limit)

    def _tell(self, study: optuna.Study, number: int, record: TrialRecord) -> None:
        if record.state != "complete":
            study.tell(number, state=TrialState.PRUNED if record.state == "pruned" else TrialState.FAIL)
            return
        dense = self._dense or record
        # Optuna needs every objective of a complete trial. What a refused config would have scored is not known; it is
        # told as the loss of everything, and the constraint keeps it out of every front.
        unknown = {**dense.values, "accuracy_drop": abs(dense.score or 0.0)}
        study.tell(number, [record.values.get(name, unknown[name]) for name in self.spec.objectives])

    def _score_front(self, study: optuna.Study) -> None:
        """Score the final front on test data, each trial once however often the command is run."""
        records = read_study(study)
        assert records is not None
        for trial in front(records):
            try:
                self._test(study, trial)
            except Exception as error:
                failed = f"Task.test failed on the network of trial {trial.number} ({one_line(error)})"
                self.stopped = f"{failed}. {GOES_ON}"

    def _test(self, study: optuna.Study, trial: TrialRecord) -> None:
        scores = dict(study.user_attrs.get(storage.TEST_SCORES, {}))
        if self.runner.task.test is not None and str(trial.number) not in scores and trial.config is not None:
            scores[str(trial.number)] = self.runner.test_score(trial.config)
            study.set_user_attr(storage.TEST_SCORES, scores)

    def _signed(self, config: PruningConfig, number: int) -> PruningConfig:
        provenance = Provenance(
            run=str(self.directory),
            trial=number,
            task=self.spec.task,
            device=self.spec.device,
            version=version("autoprune"),
        )
        return config.model_copy(update={"provenance": provenance})

    def _remember(self, record: TrialRecord) -> None:
        self._records[record.number] = record
        if record.state == "complete" and record.config is not None:
            self._known.setdefault(record.config.signature, record.number)

    @property
    def _dense(self) -> TrialRecord | None:
        return next((r for r in self._records.values() if r.origin == DENSE and r.state == "complete"), None)

    @property
    def _finished(self) -> int:
        return sum(record.state != "pruned" for record in self._records.values())

    def _progress(self, study: optuna.Study, started: float, begun_with: int, last: TrialRecord | None) -> Progress:
        about = storage.study_record(study)
        size, volume = 0, None
        if about is not None:
            records = RunRecords(study=about, trials=tuple(self._records.values()))
            size, volume = len(front(records)), hypervolume_of(records)
        return Progress(
            finished=self._finished,
            wanted=self.spec.search.trials,
            front_size=size,
            hypervolume=volume,
            elapsed_s=time.perf_counter() - started,
            done_here=self._finished - begun_with,
            last=last,
        )


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


@contextmanager
def _failed_if_interrupted(study: optuna.Study, trial: Trial) -> Iterator[None]:
    """Close a trial that did not come to its record. Without one it counts for nothing, and is proposed again."""
    try:
        yield
    except (KeyboardInterrupt, UsageError):
        if storage.RECORD not in trial.user_attrs:
            study.tell(trial.number, state=TrialState.FAIL)
        raise


def _key(params: Any) -> str:
    return json.dumps({name: params[name] for name in sorted(params)}, default=str)
