"""``Study``: a search over pruning configs, in a run directory; resumable at any moment."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import optuna

from autoprune.errors import AutopruneError, one_line
from autoprune.search import storage
from autoprune.search.about import identity
from autoprune.search.afterwards import measure_again, score_on_test
from autoprune.search.damage import DamageTable, damage_table, wants_probes
from autoprune.search.errands import Hands
from autoprune.search.executors import EXECUTORS, Executor, ExecutorRequest
from autoprune.search.greybox.space import why_unknown
from autoprune.search.ledger import Ledger
from autoprune.search.lock import exclusive
from autoprune.search.loop import GOES_ON, Loop, Progress
from autoprune.search.opening import opening
from autoprune.search.proposals import criteria_left_out, make_proposals
from autoprune.search.reachable import check_reachable
from autoprune.search.samplers import SAMPLERS
from autoprune.search.stored import read_study
from autoprune.search.survey import Surveyed, take_survey
from autoprune.spec.executor import executor_key
from autoprune.spec.front import front
from autoprune.spec.record import RunRecords, TrialRecord, read_records, write_records, write_whole
from autoprune.spec.space import SpaceSpec
from autoprune.spec.study import StudySpec, load_study, resolve_study
from autoprune.trial.runner import TrialRunner
from autoprune.trial.task import Task


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
        self._executor = EXECUTORS.get(executor_key(self.spec.executor))
        if self.spec.storage is None:
            storage.check_sqlite(self.directory / "study.db")
        self.runner = TrialRunner(task, self.spec, metered=not self._executor.measures)
        space = self.spec.space
        assert isinstance(space, SpaceSpec), "a resolved study holds its space"
        self.proposals = make_proposals(
            space, self.runner.graph, self.runner.recovery, self.spec.search.seed, self.runner.book
        )
        check_reachable(self.proposals, self.runner.costs, self.spec)
        self._left_out = dict.fromkeys(criteria_left_out(space, self.runner.book))

    def run(
        self, on_trial: Callable[[Progress], None] | None = None, say: Callable[[str], None] | None = None
    ) -> list[TrialRecord]:
        """Run until the trials asked for are finished, and return the front.

        A study that was interrupted goes on: finished trials are kept, those in flight are run again. Ctrl-C ends it
        cleanly after storing what is there.

        Args:
            on_trial: Called at the start and after every trial.
            say: Told, in sentences, what is measured before the first trial and what was found.

        Returns:
            The feasible trials that no other dominates, with their test scores where the task has a test.

        Raises:
            RunDirectoryError: The directory belongs to another study, or another search runs in it.
            TaskError: The dense model cannot be scored.
            StorageError: The storage fails; what was finished is kept.
            RunError: Ten trials in a row failed.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.stopped = ""
        try:
            return self._run(on_trial or (lambda _: None), say or (lambda _: None))
        except KeyboardInterrupt:
            self.stopped = f"stopped by Ctrl-C. {GOES_ON}"
            return []

    def _run(self, on_trial: Callable[[Progress], None], say: Callable[[str], None]) -> list[TrialRecord]:
        with self._opened() as study, self._hired() as executor:
            for sentence in self._left_out:
                say(f"{sentence[:1].upper()}{sentence[1:]}.")
            surveyed = self._survey(study, say, executor)
            self._say_what_is_modelled(surveyed, say)
            table = self._probe(study, surveyed, say, executor)
            with closing(self._ledger(study, surveyed, table, executor)) as ledger:
                try:
                    begun = ledger.resume()
                    self.stopped = Loop(ledger, executor, self.spec.search, on_trial, begun).run()
                    if not self.stopped.endswith(GOES_ON):
                        self._score_front(study, executor)
                        self._measure_front_again(study, executor, ledger.dense, say)
                except KeyboardInterrupt:
                    ledger.abandon()
                    self.stopped = f"stopped by Ctrl-C. {GOES_ON}"
                except BaseException as error:
                    with contextlib.suppress(Exception):  # what went wrong first is what is told
                        if isinstance(error, AutopruneError):
                            ledger.abandon()
                        self._write_records(study)
                    raise
                ledger.conclude(self.stopped)
            records = self._write_records(study)
        return [] if records is None else list(front(records))

    @contextlib.contextmanager
    def books(self) -> Iterator[Ledger]:
        """Open the study for somebody else to drive, and hold its directory meanwhile.

        Raises:
            RunDirectoryError: The directory belongs to another study, or another search runs in it.
            StorageError: The storage fails.
        """
        with self._opened() as study:
            surveyed = self._survey(study, lambda _: None)
            table = self._probe(study, surveyed, lambda _: None)
            with closing(self._ledger(study, surveyed, table)) as ledger:
                yield ledger
            self._write_records(study)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[optuna.Study]:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (
            exclusive(self.directory),
            storage.opened_study(
                self.spec.storage, self.directory, self.spec.objectives, identity(self._shown_spec, self.runner)
            ) as study,
            storage.storage_errors(storage.shown_url(self.spec.storage, self.directory)),
        ):
            write_whole(self.directory / "study.yaml", self.spec.to_yaml())
            yield study

    @contextlib.contextmanager
    def _hired(self) -> Iterator[Executor]:
        """Open the executor, and close it at the end."""
        if self._executor.measures:  # the scores that baselines need go to the workers with everything else
            opening(self.proposals, self.runner.graph, self.runner.book, self.spec.search.trials)
        with closing(self._executor.open(ExecutorRequest(self.runner, self.directory))) as executor:
            yield executor

    def _ledger(
        self, study: optuna.Study, surveyed: Surveyed, table: DamageTable | None, hands: Hands | None = None
    ) -> Ledger:
        return Ledger(study, self.runner, surveyed, self.directory, self._shown_spec, table, hands)

    def _say_what_is_modelled(self, surveyed: Surveyed, say: Callable[[str], None]) -> None:
        """Say at the start where greybox has no costs to compute with."""
        if self.spec.search.sampler == "greybox":
            why = why_unknown(surveyed.narrowed.proposals, self.runner.costs, self.spec.objectives)
            if why:
                say(f"greybox leaves the proposals to tpe, for costs are not known before a trial: {why}")

    def _probe(
        self, study: optuna.Study, surveyed: Surveyed, say: Callable[[str], None], hands: Hands | None = None
    ) -> DamageTable | None:
        """Try single choices, once in a study."""
        if not wants_probes(self.runner):
            return None
        return damage_table(study, self.runner, surveyed.narrowed.proposals, say, hands)

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

    def _survey(self, study: optuna.Study, say: Callable[[str], None], executor: Executor | None = None) -> Surveyed:
        """Ask the device what pays, once in a study: the storage keeps the answer.

        A study of an older version goes on with the space that it began with.
        """
        known = storage.survey_of(study)
        metered = None if executor is None else executor.has_meter
        profiled = self.directory / "profile.json"
        surveyed = take_survey(self.runner, self.proposals, known, say, executor, metered, profiled)
        if known is None and (theirs := storage.survey_of(study)) is not None:
            return take_survey(
                self.runner, self.proposals, theirs, say
            )  # another driver was quicker: one space for all
        if known is None:
            study.set_user_attr(storage.SURVEY, surveyed.survey.to_data())
        return surveyed

    def _write_records(self, study: optuna.Study) -> RunRecords | None:
        records = read_study(study)
        if records is not None:
            write_records(records, self.directory / "records.jsonl")
        return records

    def _score_front(self, study: optuna.Study, hands: Hands) -> None:
        """Score the final front on test data, each trial once however often the command is run."""
        records = read_study(study)
        assert records is not None
        for number, error in sorted(score_on_test(study, hands, self.runner.task, front(records)).items()):
            self.stopped = f"Task.test failed on the network of trial {number} ({one_line(error)}). {GOES_ON}"

    def _measure_front_again(
        self, study: optuna.Study, hands: Hands, dense: TrialRecord | None, say: Callable[[str], None]
    ) -> None:
        """Measure the final front once more: what two measurements of one network differ by."""
        records = read_study(study)
        assert records is not None
        failed = measure_again(study, hands, dense, front(records), self.spec.latency.measured_again)
        for number, error in sorted(failed.items()):
            say(f"The latency of trial {number} could not be measured once more ({one_line(error)}).")
