"""The study's storage: opening it, telling whether it is ours, and keeping records in it.

Optuna's storage is the only truth. A trial's record is one user attribute, written before the trial is told, so that a
trial whose process died between the two is finished from its record, not run again.
"""

from __future__ import annotations

import json
import sqlite3
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from autoprune.errors import RunDirectoryError, SpecError, StorageError, one_line
from autoprune.search.sole import SoleWriter
from autoprune.spec.document import parse_document
from autoprune.spec.record import LatencyRecord, StudyRecord, TrialRecord
from autoprune.spec.survey import Survey

STUDY_NAME = "autoprune"
IDENTITY = "autoprune:identity"
STUDY = "autoprune:study"
RECORD = "autoprune:record"
SURVEY = "autoprune:survey"
TEST_SCORE = "autoprune:test_score:"
"""Begins the key of one trial's test score: two drivers that score a front overwrite nothing of each other's."""
TEST_SCORES = "autoprune:test_scores"
"""All test scores in one, as older versions kept them."""
AGAIN = "autoprune:latency_again:"
"""Begins the key of one trial's second measurement of latency."""
ORIGIN = "autoprune:origin"

MOST_RACES = 3
"""How often a storage of several drivers is opened again after a failure."""
CLIMBING = "autoprune:climbing"
"""The record so far of a trial that climbs rungs; once it is settled, :data:`RECORD` holds all of them."""


@contextmanager
def opened_study(
    url: str | None, directory: Path, objectives: tuple[str, ...], identity: Mapping[str, Any]
) -> Iterator[optuna.Study]:
    """Open or create the Optuna study of a run directory, and close it at the end.

    Closed, SQLite takes its log into ``study.db``: the file holds all of the study. Left to the garbage collector it
    would do so at any later moment.

    Args:
        url: Optuna storage URL; None for ``study.db`` in the directory.
        directory: The run directory.
        objectives: Metric names, all minimised.
        identity: What makes two runs the same study.

    Raises:
        RunDirectoryError: ``study.db`` is damaged or not ours, or holds a study with another identity.
        StorageError: The storage cannot be reached or written.
    """
    if url is None:
        check_sqlite(directory / "study.db")
    storage, study = _connected(url, directory, objectives, identity)
    try:
        yield study
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _connected(
    url: str | None, directory: Path, objectives: tuple[str, ...], identity: Mapping[str, Any]
) -> tuple[RDBStorage, optuna.Study]:
    for more in range(MOST_RACES if url is not None else 0, -1, -1):
        try:
            with storage_errors(shown_url(url, directory)):
                storage = _connect(url, directory)
            return storage, _own_study(storage, url, directory, objectives, identity)
        except StorageError:
            if not more:
                raise
            time.sleep(0.5)  # another driver makes the same tables, or the same study, at the same moment
    raise AssertionError("the last try returns or raises")


def _own_study(
    storage: RDBStorage, url: str | None, directory: Path, objectives: tuple[str, ...], identity: Mapping[str, Any]
) -> optuna.Study:
    with storage_errors(shown_url(url, directory)):
        study = optuna.create_study(
            storage=SoleWriter(optuna.storages.get_storage(storage)) if url is None else storage,
            study_name=STUDY_NAME,
            directions=["minimize"] * len(objectives),
            load_if_exists=True,
        )
        known = study.user_attrs.get(IDENTITY)
        if known is None:
            if study.get_trials(deepcopy=False) or len(study.directions) != len(objectives):
                raise _not_ours(url, directory)
            if (directory / "records.jsonl").exists():
                raise RunDirectoryError(
                    f"{directory} holds the records of a search, and its storage is gone; restore "
                    f"{shown_url(url, directory)}, or use another directory"
                )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names(list(objectives))
            study.set_user_attr(IDENTITY, dict(identity))
        elif known != identity:
            raise RunDirectoryError(
                f"{directory} belongs to another study ({_difference(known, identity)}); "
                "use another directory, or the study.yaml it was started with"
            )
    return study


def load_existing(url: str | None, directory: Path) -> optuna.Study | None:
    """Open the study of a run directory for reading; None where there is no storage.

    Raises:
        RunDirectoryError: ``study.db`` is damaged or not ours.
        StorageError: The storage cannot be reached.
    """
    if url is None:
        path = directory / "study.db"
        if not path.is_file():
            return None
        check_sqlite(path)
        if not _holds_study(path):
            return None  # a search is just making it: Optuna would make its tables here as well, and both would fail
    with storage_errors(shown_url(url, directory)):
        try:
            study = optuna.load_study(study_name=STUDY_NAME, storage=_connect(url, directory))
        except KeyError:
            raise RunDirectoryError(
                f"{shown_url(url, directory)} holds no study of autoprune; give the directory of a search"
            ) from None
        if IDENTITY not in study.user_attrs:
            raise _not_ours(url, directory)
    return study


def shown_url(url: str | None, directory: Path) -> str:
    """Return where the study is kept, for people: a password in a URL is hidden."""
    if url is None:
        return str(directory / "study.db")
    try:
        return make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return repr(url)


def _connect(url: str | None, directory: Path) -> RDBStorage:
    text = url or _sqlite_url(directory / "study.db")
    arguments = {"connect_args": {"timeout": 60}} if text.startswith("sqlite") else {}
    try:
        storage = RDBStorage(text, engine_kwargs=arguments)
        if text.startswith("sqlite"):
            event.listen(storage.engine, "connect", _write_ahead)
            if url is not None:
                event.listen(storage.engine, "connect", _no_implicit_begin)
                event.listen(storage.engine, "begin", _begin_for_writing)
            storage.engine.dispose()  # connections made before the listener
        return storage
    except (ArgumentError, ImportError) as error:
        raise SpecError(
            f"storage {shown_url(url, directory)} cannot be opened ({one_line(error)}); "
            "give an Optuna storage URL such as sqlite:///study.db, and install its driver"
        ) from error


def _write_ahead(connection: Any, _: Any) -> None:
    """Write ahead to a log: half the time per parameter, and a killed process still loses nothing it committed."""
    try:
        mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    except sqlite3.OperationalError:
        return  # somebody reads the file just now: the mode that it has serves as well, and the next one switches it
    if mode == "wal":
        connection.execute("PRAGMA synchronous=NORMAL")


def _no_implicit_begin(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy begins, not the sqlite3 module


def _begin_for_writing(connection: Any) -> None:
    """Let one driver at a time into a file that several share.

    SQLite knows no SELECT ... FOR UPDATE, by which Optuna gives a waiting trial to one process, and a new one a number
    of its own: two drivers that read before either writes would get the same.
    """
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _sqlite_url(path: Path) -> str:
    """Return a URL for a file whose name may hold what a URL, or Optuna's template of one, takes for its own."""
    text = URL.create("sqlite", database=str(path)).render_as_string()
    return text.replace("{", "{{").replace("}", "}}")


def _not_ours(url: str | None, directory: Path) -> RunDirectoryError:
    return RunDirectoryError(
        f"{shown_url(url, directory)} holds an Optuna study that autoprune did not make; use another directory"
    )


def check_sqlite(path: Path) -> None:
    """Check that a SQLite file is whole and ours, if it exists.

    Raises:
        RunDirectoryError: It is truncated, damaged, or something else.
    """
    if not path.exists():
        return
    remedy = "restore it from a copy, or use another directory to start anew"
    if path.is_file() and path.stat().st_size == 0:
        if (path.parent / "records.jsonl").exists():
            raise RunDirectoryError(f"{path} is empty, and {path.parent} holds the records of a search; {remedy}")
        return  # a process that died, or a disk that was full, while the file was made: nothing is lost
    try:
        # For writing: a process that was killed may have left a journal, which only a writer can roll back.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=60)) as connection:
            problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")}
            if problem != "ok":
                raise RunDirectoryError(f"{path} is damaged ({' '.join(problem.split())}); {remedy}")
            if "studies" not in tables:
                raise RunDirectoryError(f"{path} is no study of autoprune (it holds no studies); {remedy}")
            names = {row[0] for row in connection.execute("SELECT study_name FROM studies")}
            if names and STUDY_NAME not in names:
                raise RunDirectoryError(
                    f"{path} holds the Optuna study {sorted(names)[0]!r}, not one of autoprune; {remedy}"
                )
    except sqlite3.DatabaseError as error:
        raise RunDirectoryError(f"{path} is damaged or no SQLite file ({error}); {remedy}") from error


def _holds_study(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(path, timeout=60)) as connection:
            found = connection.execute("SELECT 1 FROM studies WHERE study_name = ?", (STUDY_NAME,)).fetchone()
            return found is not None
    except sqlite3.OperationalError:
        return False


@contextmanager
def storage_errors(where: str) -> Iterator[None]:
    """Turn what a storage raises into one sentence.

    Raises:
        StorageError: With the cause and the remedy.
    """
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, sqlite3.Error) as error:
        cause: BaseException = error.__cause__ or error
        text = " ".join(str(getattr(cause, "orig", None) or cause).split())
        full = "is full" in text or "disk I/O" in text
        remedy = "free some space" if full else "check that it can be reached and written"
        raise StorageError(
            f"the study's storage {where} failed ({text}); {remedy}, then run the same command again: "
            "finished trials are kept"
        ) from error


def record_of(trial: FrozenTrial, key: str = RECORD) -> TrialRecord | None:
    """Return the record in a trial, settled or (:data:`CLIMBING`) so far; None where it has none."""
    data = trial.user_attrs.get(key)
    return None if data is None else parse_document(TrialRecord, data, f"trial {trial.number} in the storage")


def study_record(study: optuna.Study) -> StudyRecord | None:
    """Return what holds for the whole study; None before the dense model was measured."""
    data = study.user_attrs.get(STUDY)
    return None if data is None else parse_document(StudyRecord, data, "the study in the storage")


def test_scores(study: optuna.Study) -> dict[int, float]:
    """Return the scores on test data, by trial number."""
    attrs = study.user_attrs
    found = {int(number): float(score) for number, score in attrs.get(TEST_SCORES, {}).items()}
    single = {key.removeprefix(TEST_SCORE): score for key, score in attrs.items() if key.startswith(TEST_SCORE)}
    return found | {int(number): float(score) for number, score in single.items()}


def keep_test_score(study: optuna.Study, number: int, score: float) -> None:
    """Keep a trial's score on test data."""
    study.set_user_attr(f"{TEST_SCORE}{number}", score)


def latencies_again(study: optuna.Study) -> dict[int, LatencyRecord]:
    """Return the second measurements of latency, by trial number."""
    kept = {key.removeprefix(AGAIN): data for key, data in study.user_attrs.items() if key.startswith(AGAIN)}
    return {
        int(number): parse_document(LatencyRecord, data, f"the second measurement of trial {number} in the storage")
        for number, data in kept.items()
    }


def keep_latency_again(study: optuna.Study, number: int, latency: LatencyRecord) -> None:
    """Keep a trial's second measurement of latency."""
    study.set_user_attr(f"{AGAIN}{number}", latency.to_data())


def survey_of(study: optuna.Study) -> Survey | None:
    """Return what was measured before the first trial; None where that is to be done.

    A study that has trials and no survey is of an older version: its space stays as it was.
    """
    data = study.user_attrs.get(SURVEY)
    if data is not None:
        return parse_document(Survey, data, "the survey in the storage")
    return Survey() if proposals_made(study.get_trials(deepcopy=False)) else None


def proposals_made(trials: Sequence[FrozenTrial]) -> int:
    """Return how many proposals are settled or in flight. One that was lost with its process is proposed again."""
    return sum(RECORD in trial.user_attrs or trial.state == TrialState.RUNNING for trial in trials)


def _difference(known: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> str:
    for key in {**known, **wanted}:
        old, new = known.get(key), wanted.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            inner = _difference(old, new, f"{prefix}{key}.")
            if inner:
                return inner
        elif old != new:
            return f"{prefix}{key} is {_short(old)} there and {_short(new)} here"
    return ""


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
