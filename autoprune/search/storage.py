"""The study's storage: opening it, telling whether it is ours, and keeping records in it.

Optuna's storage is the only truth. A trial's record is one user attribute, written before the trial is told, so that a
trial whose process died between the two is finished from its record, not run again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from autoprune.errors import RunDirectoryError, StorageError
from autoprune.spec.document import parse_document
from autoprune.spec.record import StudyRecord, TrialRecord

STUDY_NAME = "autoprune"
IDENTITY = "autoprune:identity"
STUDY = "autoprune:study"
RECORD = "autoprune:record"
TEST_SCORES = "autoprune:test_scores"
ORIGIN = "autoprune:origin"


def open_study(
    url: str | None, directory: Path, objectives: tuple[str, ...], identity: Mapping[str, Any]
) -> optuna.Study:
    """Open or create the Optuna study of a run directory.

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
        url = f"sqlite:///{directory / 'study.db'}"
    with storage_errors(url):
        arguments = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
        study = optuna.create_study(
            storage=RDBStorage(url, engine_kwargs=arguments),
            study_name=STUDY_NAME,
            directions=["minimize"] * len(objectives),
            load_if_exists=True,
        )
        known = study.user_attrs.get(IDENTITY)
        if known is None:
            if study.get_trials(deepcopy=False):
                raise RunDirectoryError(
                    f"{url} holds an Optuna study that autoprune did not make; use another directory"
                )
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
        url = f"sqlite:///{path}"
    with storage_errors(url):
        try:
            return optuna.load_study(study_name=STUDY_NAME, storage=url)
        except KeyError:
            raise RunDirectoryError(f"{url} holds no study of autoprune; give the directory of a search") from None


def check_sqlite(path: Path) -> None:
    """Check that a SQLite file is whole and ours, if it exists.

    Raises:
        RunDirectoryError: It is truncated, damaged, or something else.
    """
    if not path.exists():
        return
    remedy = "move it away to start anew, or restore it from a copy"
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)) as connection:
            problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")}
            if problem != "ok":
                raise RunDirectoryError(f"{path} is damaged ({problem}); {remedy}")
            if "studies" not in tables:
                raise RunDirectoryError(f"{path} is no study of autoprune (it holds no studies); {remedy}")
            names = {row[0] for row in connection.execute("SELECT study_name FROM studies")}
            if names and STUDY_NAME not in names:
                raise RunDirectoryError(
                    f"{path} holds the Optuna study {sorted(names)[0]!r}, not one of autoprune; {remedy}"
                )
    except sqlite3.DatabaseError as error:
        raise RunDirectoryError(f"{path} is damaged or no SQLite file ({error}); {remedy}") from error


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
        text = str(getattr(cause, "orig", None) or cause).strip().splitlines()[0]
        full = "disk is full" in text or "disk I/O" in text
        remedy = "free some space" if full else "check that it can be reached and written"
        raise StorageError(
            f"the study's storage {where} failed ({text}); {remedy}, then run the same command again: "
            "finished trials are kept"
        ) from error


def record_of(trial: FrozenTrial) -> TrialRecord | None:
    """Return the record in a trial; None where it has none."""
    data = trial.user_attrs.get(RECORD)
    return None if data is None else parse_document(TrialRecord, data, f"trial {trial.number} in the storage")


def study_record(study: optuna.Study) -> StudyRecord | None:
    """Return what holds for the whole study; None before the dense model was measured."""
    data = study.user_attrs.get(STUDY)
    return None if data is None else parse_document(StudyRecord, data, "the study in the storage")


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial counts towards the trials asked for: it was run to its record, and is no repeat.

    A trial without a record was lost with its process, and its parameters were queued again.
    """
    return trial.state.is_finished() and RECORD in trial.user_attrs and trial.state != TrialState.PRUNED


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
