"""The storage of a run: whole, ours, and the same study; anything else is one sentence, and nothing is touched."""

import sqlite3
import subprocess
import sys
from contextlib import closing

import optuna
import pytest

from autoprune.errors import RunDirectoryError, SpecError, StorageError
from autoprune.search import storage

OBJECTIVES = ("accuracy_drop", "macs")
IDENTITY = {"task": "a:b", "search": {"seed": 0}}


def open_study(*arguments):
    with storage.opened_study(*arguments) as study:
        return study  # it goes on with a new connection


def foreign(path, name, directions):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(storage=f"sqlite:///{path}", study_name=name, directions=directions)
    study.add_trial(optuna.trial.create_trial(values=[0.0] * len(directions)))


def test_a_study_is_opened_again(tmp_path):
    open_study(None, tmp_path, OBJECTIVES, IDENTITY).set_user_attr("x", 1)
    assert open_study(None, tmp_path, OBJECTIVES, IDENTITY).user_attrs["x"] == 1
    assert storage.load_existing(None, tmp_path).user_attrs["x"] == 1


def test_another_study_is_told_by_its_first_difference(tmp_path):
    open_study(None, tmp_path, OBJECTIVES, IDENTITY)
    with pytest.raises(RunDirectoryError, match=r"another study \(search.seed is 0 there and 5 here\)"):
        open_study(None, tmp_path, OBJECTIVES, IDENTITY | {"search": {"seed": 5}})
    with pytest.raises(RunDirectoryError, match=r"\(device is null there and \"x\" here\)"):
        open_study(None, tmp_path, OBJECTIVES, IDENTITY | {"device": "x"})


@pytest.mark.parametrize("name", ["od d", "a?b=c", "a#b", "100%20", "{SCHEMA_VERSION}", "{", "ä&$'"])
def test_a_directory_may_bear_any_name(tmp_path, name):
    directory = tmp_path / name
    directory.mkdir()
    open_study(None, directory, OBJECTIVES, IDENTITY)
    assert (directory / "study.db").stat().st_size > 0
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert storage.load_existing(None, directory) is not None


@pytest.mark.parametrize("keep", [10, 50, 5000, 30000])
def test_a_truncated_file_is_told_and_left_alone(tmp_path, keep):
    open_study(None, tmp_path, OBJECTIVES, IDENTITY)
    path = tmp_path / "study.db"
    path.write_bytes(path.read_bytes()[:keep])
    before = path.read_bytes()
    for use in (open_study, lambda *_: storage.load_existing(None, tmp_path)):
        with pytest.raises(RunDirectoryError, match=r"study\.db is damaged.*restore it from a copy") as caught:
            use(None, tmp_path, OBJECTIVES, IDENTITY)
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"hello\n", b"\0" * 4096, b"PK\x03\x04" * 500])
def test_what_is_no_database_is_told(tmp_path, content):
    (tmp_path / "study.db").write_bytes(content)
    with pytest.raises(RunDirectoryError, match="damaged or no SQLite file"):
        open_study(None, tmp_path, OBJECTIVES, IDENTITY)


def test_an_empty_file_is_a_start_unless_records_are_there(tmp_path):
    path = tmp_path / "study.db"
    path.touch()
    (tmp_path / "records.jsonl").touch()
    with pytest.raises(RunDirectoryError, match=r"study\.db is empty, and .* holds the records"):
        open_study(None, tmp_path, OBJECTIVES, IDENTITY)
    (tmp_path / "records.jsonl").unlink()
    open_study(None, tmp_path, OBJECTIVES, IDENTITY)


def test_records_without_their_storage_are_not_written_over(tmp_path):
    (tmp_path / "records.jsonl").write_text("{}")
    with pytest.raises(RunDirectoryError, match="holds the records of a search, and its storage is gone"):
        open_study(None, tmp_path, OBJECTIVES, IDENTITY)


def test_a_transaction_that_was_killed_is_no_damage(tmp_path):
    open_study(None, tmp_path, OBJECTIVES, IDENTITY)
    killed = f"""
import os, sqlite3
connection = sqlite3.connect({str(tmp_path / "study.db")!r}, isolation_level=None)
connection.execute("PRAGMA cache_size=1")
connection.execute("BEGIN")
for i in range(200):
    row = (str(i), "0" * 2000)
    connection.execute("INSERT INTO study_user_attributes (study_id, key, value_json) VALUES (1, ?, ?)", row)
os._exit(9)
"""
    subprocess.run([sys.executable, "-c", killed], check=False)
    assert any(path.stat().st_size for path in tmp_path.glob("study.db-*")), (
        "what was not committed lies beside the file"
    )
    study = open_study(None, tmp_path, OBJECTIVES, IDENTITY)
    assert set(study.user_attrs) == {storage.IDENTITY}


def test_a_foreign_database_is_told(tmp_path):
    with closing(sqlite3.connect(tmp_path / "study.db")) as connection:
        connection.execute("create table cats (name)")
        connection.commit()
    with pytest.raises(RunDirectoryError, match="is no study of autoprune"):
        open_study(None, tmp_path, OBJECTIVES, IDENTITY)


@pytest.mark.parametrize(
    ("name", "directions", "sentence"),
    [
        ("other", ["minimize"], "holds the Optuna study 'other', not one of autoprune"),
        ("autoprune", ["minimize", "minimize"], "an Optuna study that autoprune did not make"),
        ("autoprune", ["maximize"], "an Optuna study that autoprune did not make"),
    ],
)
def test_a_study_of_somebody_else_is_told(tmp_path, name, directions, sentence):
    foreign(tmp_path / "study.db", name, directions)
    with pytest.raises(RunDirectoryError, match=sentence):
        open_study(None, tmp_path, OBJECTIVES, IDENTITY)
    with pytest.raises(RunDirectoryError, match=sentence):
        storage.load_existing(None, tmp_path)


@pytest.mark.parametrize("url", ["foo", "nosuch://u:secret@host/x", "postgresql+nosuch://u:secret@host/x"])
def test_a_url_that_is_none_is_wrong_use_and_hides_its_password(tmp_path, url):
    with pytest.raises(SpecError, match="give an Optuna storage URL") as caught:
        open_study(url, tmp_path, OBJECTIVES, IDENTITY)
    assert "secret" not in str(caught.value)


def test_a_storage_that_cannot_be_reached_is_a_failure_of_the_run(tmp_path):
    with pytest.raises(StorageError, match="unable to open database file"):
        open_study(f"sqlite:///{tmp_path / 'no' / 'x.db'}", tmp_path, OBJECTIVES, IDENTITY)


def test_a_reader_makes_no_tables_in_a_database_that_a_search_is_just_making(tmp_path):
    path = tmp_path / "study.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE studies (study_id INTEGER, study_name TEXT)")
        connection.commit()
        assert storage.load_existing(None, tmp_path) is None
        assert [row[0] for row in connection.execute("SELECT name FROM sqlite_master")] == ["studies"]
