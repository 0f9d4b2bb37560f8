"""The front is measured once more after a search: which trials, once each, and what becomes of a failure."""

from __future__ import annotations

import pytest
from small_task import task

from autoprune.errors import MeterError
from autoprune.search.study import Study
from autoprune.spec.front import front
from autoprune.spec.study import StudySpec
from autoprune.trial.runner import TrialRunner


def study(directory, trials=6, again=None, **changes):
    latency = {"half_width": 0.5, "budget_s": 0.02, "survey_s": 0}
    spec = {
        "task": "small_task.py:task",
        "space": "cnn-mixed",
        "objectives": ("accuracy_drop", "macs"),  # the same front, whatever a sample says
        "search": {"sampler": "random", "trials": trials},
        "recovery": {"batchnorm_samples": 0},
        "latency": latency if again is None else latency | {"again": again},
    }
    return Study(task(), StudySpec.model_validate(spec | changes), directory)


def measured_again(run):
    return {trial.number: trial.again for trial in run.records().trials if trial.again is not None}


def test_the_front_is_measured_once_more_and_once_only(tmp_path, monkeypatch):
    first = study(tmp_path)
    first.run()
    wanted = {t.number for t in front(first.records()) if t.origin != "dense"}
    found = measured_again(first)
    assert len(wanted) > 1
    assert set(found) == wanted
    for trial in first.records().trials:
        if trial.number in found:
            again, dense = found[trial.number], first.records().trials[0].latency
            assert again.pairs >= 2
            assert again.ms == pytest.approx(again.ratio * dense.ms), "comparable with every other trial"
            assert trial.values["latency_ms"] == trial.latency.ms, "the values are those of the first measurement"
    monkeypatch.setattr(TrialRunner, "latency_again", lambda *_: pytest.fail("measured a third time"))
    study(tmp_path, again=4).run()  # how many is no part of what a study is
    assert measured_again(study(tmp_path)) == found


def test_a_few_are_spread_over_the_latencies_of_the_front(tmp_path):
    run = study(tmp_path, trials=24, again=2)
    run.run()
    latencies = {t.number: t.values["latency_ms"] for t in front(run.records()) if t.origin != "dense"}
    assert len(latencies) > 2
    assert set(measured_again(run)) == {min(latencies, key=latencies.get), max(latencies, key=latencies.get)}


@pytest.mark.parametrize("changes", [{"again": 0}, {"device": "eyeriss"}])
def test_nothing_is_measured_again_where_nobody_asks_or_nothing_measures(tmp_path, changes):
    run = study(tmp_path, **changes)
    run.run()
    assert not measured_again(run)


def test_a_second_measurement_that_fails_is_told_and_tried_when_the_command_runs_again(tmp_path, monkeypatch):
    def fails(*_):
        raise MeterError("the board is gone")

    said = []
    with monkeypatch.context() as patch:
        patch.setattr(TrialRunner, "latency_again", fails)
        run = study(tmp_path)
        assert run.run(say=said.append), "the front is there all the same"
    why = "could not be measured once more (MeterError: the board is gone)"
    failed = [sentence for sentence in said if why in sentence]
    assert len(failed) == len([t for t in front(run.records()) if t.origin != "dense"])
    assert not measured_again(run)
    run = study(tmp_path)
    run.run()
    assert len(measured_again(run)) == len(failed)
