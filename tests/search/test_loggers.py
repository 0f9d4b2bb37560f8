"""Trials told to TensorBoard and MLflow, read back by these; and a logger that fails."""

import os
import sys

import pytest
from click.testing import CliRunner
from small_task import task  # noqa: F401 - the task file that the studies name

from autoprune import cli
from autoprune.errors import UnknownNameError, UsageError
from autoprune.search.loggers import LOGGERS, LoggedRun, LoggerEntry
from autoprune.search.loggers.guard import Loggers
from autoprune.search.loggers.to_mlflow import MlflowLogger
from autoprune.search.loggers.to_tensorboard import TensorboardLogger
from autoprune.spec.front import front
from autoprune.spec.record import read_records
from autoprune.spec.study import StudySpec
from autoprune.testing import check_logger

TASK = os.path.join(os.path.dirname(os.path.dirname(__file__)), "small_task.py")
STUDY = f"""
schema: autoprune/study/1
task: {TASK}:task
device: eyeriss
space: channels
objectives: [accuracy_drop, macs]
search: {{sampler: random, trials: 5, seed: 0}}
recovery: {{batchnorm_samples: 0}}
"""


def logged(folder):
    return LoggedRun(folder / "run", StudySpec(task="a.b:<c>", space="channels"))


def search(folder, *more):
    (folder / "study.yaml").write_text(STUDY)
    arguments = ["search", str(folder / "study.yaml"), "-o", str(folder / "run"), *more]
    done = CliRunner().invoke(cli.command, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    return done, read_records(folder / "run" / "records.jsonl")


def scalars(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_tensorboard_conforms(tmp_path):
    check_logger(lambda: TensorboardLogger(tmp_path / "events", logged(tmp_path)))
    found = scalars(tmp_path / "events")
    assert found["values/macs"] == {0: 5.0, 1: 9.0}
    assert found["trial/test_score"] == {0: pytest.approx(0.85)}
    assert found["study/hypervolume"] == {0: 0.25}


@pytest.mark.filterwarnings("default")  # mlflow's own use of SQLAlchemy
@pytest.mark.parametrize("store", ["sqlite", "folder"])
def test_mlflow_conforms(tmp_path, store, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)  # where a local store puts what it needs
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = f"sqlite:///{tmp_path}/m.db" if store == "sqlite" else str(tmp_path / "mlruns")
    check_logger(lambda: MlflowLogger(uri, logged(tmp_path)))
    client = mlflow.MlflowClient(tracking_uri=uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "autoprune a.b:<c>"]
    runs = list(client.search_runs([experiment.experiment_id]))
    parent = next(run for run in runs if "autoprune.trial" not in run.data.tags)
    children = {int(r.data.tags["autoprune.trial"]): r for r in runs if "autoprune.trial" in r.data.tags}
    assert set(children) == {0, 1, 2}, "each trial is one run, whatever was started again"
    assert {r.data.tags["mlflow.parentRunId"] for r in children.values()} == {parent.info.run_id}
    assert children[0].data.metrics == {
        "macs": 5,
        "accuracy_drop": -0.1,
        "seconds": 0,
        "score": 0.9,
        "test_score": 0.85,
    }
    assert children[0].data.params == {"stem.conv": "channel magnitude_l2 0.5"}
    assert [children[n].info.status for n in (0, 1, 2)] == ["FINISHED", "FINISHED", "FAILED"]
    assert children[2].data.tags["autoprune.error"] == "ValueError: no <data>"
    assert parent.data.metrics["hypervolume"] == 0.25
    assert parent.data.params["task"] == "a.b:<c>"


@pytest.mark.slow
def test_a_search_is_logged_and_goes_on_in_the_same_log(tmp_path):
    log = ("--log", f"tensorboard:{tmp_path / 'events'}")
    search(tmp_path, "--trials", "3")
    search(tmp_path, "--trials", "4", *log)
    _, records = search(tmp_path, *log)
    found = scalars(tmp_path / "events")
    for name in ("accuracy_drop", "macs"):
        wanted = {t.number: t.values[name] for t in records.trials if name in t.values}
        assert found[f"values/{name}"] == pytest.approx(wanted)
    assert set(found["trial/seconds"]) == {t.number for t in records.trials}
    assert set(found["trial/test_score"]) == {t.number for t in front(records)} | {0}


@pytest.mark.slow
def test_a_logger_that_fails_is_told_once_and_the_search_goes_on(tmp_path, monkeypatch, capfd):
    told = []

    class Broken:
        def known(self):
            return frozenset()

        def log(self, trial, standing):
            told.append(trial.number)
            raise ConnectionError("no server\nat all")

        def close(self, records):
            raise AssertionError("it was left out")

    monkeypatch.setitem(LOGGERS._items, "broken", LoggerEntry(lambda where, run: Broken(), "fails"))
    done, records = search(tmp_path, "--log", "broken:x")
    assert len(records.trials) >= 5
    assert told == [0]
    said = " ".join((done.output + capfd.readouterr().err).split())
    assert said.count("--log broken:x failed (ConnectionError: no server at all) and is left out") == 1


def test_a_logger_that_cannot_be_opened_is_told_and_left_out(tmp_path):
    (tmp_path / "file").write_text("")
    said = []
    logs = Loggers([f"tensorboard:{tmp_path / 'file' / 'events'}"], logged(tmp_path), said.append)
    logs.close(None)
    assert len(said) == 1
    assert "is left out from here on; the search goes on" in said[0]


@pytest.mark.parametrize(
    ("place", "error", "sentence"),
    [
        ("tensorbord:x", UnknownNameError, "unknown logger 'tensorbord'; did you mean 'tensorboard'?"),
        ("tensorboard", UsageError, "give KEY:WHERE"),
        ("mlflow:", UsageError, "give KEY:WHERE"),
    ],
)
def test_a_place_that_is_none_is_one_sentence(tmp_path, place, error, sentence):
    with pytest.raises(error) as told:
        Loggers([place], logged(tmp_path), print)
    assert sentence in str(told.value)


@pytest.mark.parametrize("package", ["mlflow", "tensorboard"])
def test_a_package_that_is_missing_is_one_sentence(tmp_path, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=rf"not installed; pip install 'autoprune\[{package}\]'"):
        Loggers([f"{package}:{tmp_path}/x"], logged(tmp_path), print)
