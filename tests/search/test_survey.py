"""A real study that asks its device first: what is kept, what is predicted, and that it is asked once."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from small_task import task

from autoprune.errors import MeterError
from autoprune.search import survey as survey_module
from autoprune.search.forecast import Forecast
from autoprune.search.study import Study
from autoprune.search.survey import random_configs, survey_seconds, take_survey
from autoprune.spec.config import PruningConfig
from autoprune.spec.document import parse_document
from autoprune.spec.profile import read_profile
from autoprune.spec.study import StudySpec
from autoprune.spec.survey import Survey
from autoprune.trial.profile.run import profile_study
from autoprune.trial.survey import Surveyor

LATENCY = {"half_width": 0.2, "budget_s": 0.05, "survey_s": 1.0}


def study(directory, trials=5, **changes):
    spec = {
        "task": "small_task.py:task",
        "space": "cnn-mixed",
        "objectives": ("accuracy_drop", "latency_ms"),
        "search": {"sampler": "random", "trials": trials},
        "recovery": {"batchnorm_samples": 0},
        "latency": LATENCY,
    }
    return Study(task(), StudySpec.model_validate(spec | changes), directory)


def test_trials_are_predicted_before_they_are_measured_and_a_resumed_study_asks_nothing_again(tmp_path, monkeypatch):
    said = []
    study(tmp_path).run(say=said.append)
    assert said[0] == "Measuring what pays on this device, for about 1 s (latency.survey_s) ..."
    assert any(sentence.startswith("Latency is predicted from") for sentence in said)
    monkeypatch.setattr(survey_module, "_survey", lambda *_: pytest.fail("measured a second time"))
    resumed = study(tmp_path, trials=8)
    resumed.run(say=lambda sentence: pytest.fail(sentence))
    records = resumed.records()
    about = records.study
    assert {payoff.granularity for payoff in about.payoffs} == {"weight", "2:4"}
    gone = {choice.granularity for choice in about.dropped or ()}
    assert sum(layer.macs for layer in about.dense.layers) > 0
    trials = [trial for trial in records.trials if trial.state == "complete" and trial.origin != "dense"]
    assert len(trials) >= 6
    for trial in trials:
        assert trial.prediction.low_ms < trial.prediction.ms < trial.prediction.high_ms
        assert not gone & {choice.granularity for _, choice in trial.config.choices()}
        for layer in trial.layers.values():
            assert layer.predicted_ms > 0
            assert layer.dram_bytes >= 0
    surveyed = int(trials[0].prediction.source.split()[2])
    counts = [int(trial.prediction.source.split()[2]) for trial in trials]
    assert counts == list(range(surveyed, surveyed + len(trials)))  # each learns from all before
    assert about.predictor.measurements == surveyed + len(trials)


def test_a_modelled_device_is_asked_by_its_models_and_predicts_nothing(tmp_path):
    said = []
    run = study(tmp_path, device="eyeriss")
    run.run(say=said.append)
    records = run.records()
    assert not any(sentence.startswith(("Measuring", "Latency is predicted")) for sentence in said)
    assert not any(payoff.measured for payoff in records.study.payoffs)
    assert "2:4 gives no speed here (modelled 1.00x the time, on the whole network): left out" in said[0]
    assert "2:4" in {choice.granularity for choice in records.study.dropped}
    assert records.study.predictor is None
    assert all(trial.prediction is None for trial in records.trials)


def test_a_short_study_spends_nothing_on_it_unless_widths_depend_on_it(tmp_path):
    def seconds(trials, **latency):
        made = study(tmp_path, trials=trials, latency=LATENCY | {"survey_s": None} | latency)
        return survey_seconds(made.spec, made.proposals)

    assert seconds(19) == 0
    assert seconds(40) == pytest.approx(8)
    assert seconds(1000) == 30
    assert seconds(1000, survey_s=3) == 3


def test_more_time_is_given_until_there_are_enough_networks_and_not_for_ever(tmp_path):
    run = study(tmp_path)
    surveyor = Surveyor(run.runner, 1.0)

    def measured(until, **bounds):
        return len(surveyor.samples(random_configs(run.proposals, 0), until, **bounds))

    assert measured(until=0.0) == 0
    assert measured(until=0.0, least=3, latest=np.inf) == 3
    assert measured(until=0.0, least=3, latest=0.0) == 0


def test_thresholds_are_predicted_by_what_they_removed_and_the_rest_is_counted_with_its_reason(tmp_path):
    run = study(tmp_path)
    runner = run.runner
    dense = runner.run_dense(0)
    surveyed = Surveyor(runner, 1.0).samples(random_configs(run.proposals, 0), 0.0, 4, np.inf)
    forecast = Forecast(runner, Survey(samples=surveyed))
    name = next(iter(runner.graph.groups))
    threshold = {"granularity": "channel", "criterion": "magnitude_l1", "threshold": {"std": 0.5}}
    given = {"schema": "autoprune/config/1", "model": runner.dense_config.to_data()["model"]}
    config = parse_document(PruningConfig, {**given, "layers": {name: threshold}}, "a config")
    record = runner.run(config, 1, "asked", dense)
    left = record.layers[name].channels
    units = runner.graph.groups[name].units
    assert 0 < left < units == record.layers[name].dense_channels
    plain = {"granularity": "channel", "criterion": "magnitude_l1", "sparsity": 1 - left / units}
    same = parse_document(PruningConfig, {**given, "layers": {name: plain}}, "a config")
    told = forecast.foretold(record, dense).prediction
    assert told is not None
    assert told == forecast.foretold(record.model_copy(update={"config": same}), dense).prediction
    forecast.learn(record, record.model_copy(update={"config": same.model_copy(update={"precision": "int8"})}))
    basis = forecast.record().basis
    assert basis.startswith("4 random networks")
    assert ", and 1 trial; not predicted: 1 in int8 (other kernels" in basis


def test_a_command_that_prints_seconds_is_told_so(tmp_path):
    def run(ms):
        command = {"run": f"{sys.executable} -S -c 'print({ms})' {{model}}", "export": "safetensors", "retries": 0}
        latency = {"runtime": "command", "half_width": 0.9, "budget_s": 0.01, "command": command}
        return study(tmp_path, latency=latency).runner.run_dense(0)

    assert run(0.5).latency.ms == pytest.approx(0.5)
    with pytest.raises(MeterError, match=r"takes 1e-09 ms, and local-cpu needs .* let the command print milliseconds"):
        run(1e-9)


def test_modules_that_a_profile_of_this_study_measured_are_not_modelled(tmp_path):
    run = study(tmp_path, latency=LATENCY | {"survey_s": 0.2})
    (tmp_path / "profile.json").write_text(profile_study(task(), run.spec).to_json())
    said = []
    taken = take_survey(run.runner, run.proposals, None, said.append, profiled=tmp_path / "profile.json").survey
    assert taken.dense.measured
    assert taken.dense == read_profile(tmp_path / "profile.json").device
    assert any("profile.json" in sentence for sentence in said)
    # Of another batch, which is another time.
    other = study(tmp_path, latency=LATENCY | {"survey_s": 0.2, "batch": 3})
    taken = take_survey(other.runner, other.proposals, None, profiled=tmp_path / "profile.json").survey
    assert not taken.dense.measured
    # With another number of threads.
    other = study(tmp_path, latency=LATENCY | {"survey_s": 0.2, "threads": 2})
    taken = take_survey(other.runner, other.proposals, None, profiled=tmp_path / "profile.json").survey
    assert not taken.dense.measured
