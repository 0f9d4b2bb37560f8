"""A real study that asks its device first: what is kept, what is predicted, and that it is asked once."""

from __future__ import annotations

import sys
from itertools import islice

import numpy as np
import pytest
import torch
from small_task import task
from torch import nn

from autoprune.errors import ExportError, MeterError
from autoprune.pruning.plan import make_plan
from autoprune.pruning.surgery import prune
from autoprune.search import survey as survey_module
from autoprune.search.forecast import Forecast
from autoprune.search.study import Study
from autoprune.search.survey import random_configs, survey_seconds, take_survey
from autoprune.spec.config import PruningConfig
from autoprune.spec.document import parse_document
from autoprune.spec.profile import read_profile
from autoprune.spec.study import StudySpec
from autoprune.spec.survey import LatencySample, Survey
from autoprune.trial.profile.run import profile_study
from autoprune.trial.survey import Surveyor
from autoprune.trial.task import Task

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
    said, samples = [], Surveyor.samples
    # Four networks, however long this machine takes for what comes before them.
    monkeypatch.setattr(Surveyor, "samples", lambda self, draws, *_: samples(self, draws, 0.0, 4, np.inf))
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
    assert surveyed == 4
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


def test_thresholds_are_predicted_by_what_they_removed(tmp_path):
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
    lost = record.model_copy(update={"layers": {}})  # as of a network whose layers cannot be told
    forecast.learn(record, lost)
    basis = forecast.record().basis
    assert basis.startswith("4 random networks")
    assert basis.endswith(", and 1 trial; not predicted: 1 whose costs do not follow from counts")


BLOCKS = {
    "schema": "autoprune/space/1",
    "name": "blocks",
    "precision": ["fp32", "int8"],
    "rules": [
        {
            "granularity": ["channel", "depth"],
            "criterion": ["magnitude_l1"],
            "sparsity": {"low": 0, "high": 0.8, "step": 0.2},
        }
    ],
}


class Block(nn.Module):
    """Adds two convolutions of its input to it."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(8, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 8, 3, padding=1)

    def forward(self, x):
        return x + self.second(self.first(x).relu())


def block_study(directory):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *(Block() for _ in range(4)), nn.Flatten(), nn.Linear(128, 5))
    x = torch.randn(2, 3, 4, 4)
    blocks = Task(model=net.eval(), example_inputs=x[:1], evaluate=lambda _: 1.0, batches=[x])
    latency = LATENCY | {"runtime": "onnxruntime"}
    return Study(blocks, StudySpec.model_validate({"task": "a:b", "space": BLOCKS, "latency": latency}), directory)


def seconds(config, gone):
    """Time of a machine: each block that runs takes 1 and its share of inner channels, in int8 two fifths of it."""
    inner = {name: 1 - choice.sparsity for name, choice in config.choices() if choice.granularity == "channel"}
    blocks = [str(n) for n in range(1, 5) if str(n) not in gone]
    return (1 + sum(1 + inner.get(f"{name}.first", 1.0) for name in blocks)) * {"fp32": 1.0, "int8": 0.4}[
        config.precision
    ]


def test_blocks_that_go_and_int8_are_predicted_from_networks_that_were_measured_so(tmp_path):
    run = block_study(tmp_path)
    runner, proposals = run.runner, run.proposals
    samples, whole = [], seconds(runner.dense_config, ())
    for config in islice(random_configs(proposals, 0, ("fp32", "int8")), 160):
        plan = make_plan(config, runner.graph, runner.book)
        kept = tuple(runner.costs.model.asked.plan(plan).kept[0].tolist())
        ratio = seconds(config, plan.skipped) / whole
        gone = tuple(plan.skipped)
        samples.append(LatencySample(kept=kept, ratio=ratio, spread=0.01, precision=config.precision, gone=gone))
    assert {len(sample.gone) for sample in samples} >= {0, 1, 2, 3}
    forecast = Forecast(runner, Survey(samples=samples))
    assert {precision: each.measurements for precision, each in forecast.predictors.items()} == {"fp32": 81, "int8": 79}
    quality = forecast.record()
    assert quality.measurements == 160
    assert quality.within_10 > 0.95
    dense = runner.run_dense(0)
    for precision in ("fp32", "int8"):
        depth = {"granularity": "depth", "criterion": "magnitude_l1", "sparsity": 0.5}
        half = {"granularity": "channel", "criterion": "magnitude_l1", "sparsity": 0.5}
        asked = {**runner.dense_config.to_data(), "precision": precision, "layers": {"1": depth, "2.first": half}}
        config = parse_document(PruningConfig, asked, "a config")
        plan = make_plan(config, runner.graph, runner.book)
        costs = runner.costs.of_built(prune(runner.model, plan), plan, precision)
        record = dense.model_copy(update={"config": config, "layers": costs.layers, "origin": "asked"})
        told = forecast.foretold(record, dense)
        expected = seconds(config, plan.skipped) / whole
        assert len(plan.skipped) == 2
        assert told.prediction.source.endswith("networks" if precision == "fp32" else "networks in int8")
        assert told.prediction.ms == pytest.approx(expected * dense.latency.ms, rel=0.03)
        for name in ("first", "second"):
            assert all((told.layers[f"{n}.{name}"].predicted_ms == 0) == (str(n) in plan.skipped) for n in range(1, 5))


def test_a_network_in_int8_is_measured_before_the_first_trial(tmp_path):
    run = block_study(tmp_path)
    draws = random_configs(run.proposals, 0, ("int8",))
    (sample,) = Surveyor(run.runner, 1.0).samples(draws, 0.0, 1, np.inf)
    assert sample.precision == "int8"
    assert sample.ratio > 0


def test_a_network_that_cannot_be_made_int8_is_left_out(tmp_path, monkeypatch):
    run = block_study(tmp_path)

    def refused(network, precision, data):
        if precision == "int8":
            raise ExportError("ONNX Runtime cannot quantise the model")
        return network

    monkeypatch.setattr("autoprune.trial.survey.timed_as", refused)
    draws = islice(random_configs(run.proposals, 0, ("int8", "fp32")), 4)  # three of the first, then one
    (sample,) = Surveyor(run.runner, 1.0).samples(draws, np.inf)
    assert sample.precision == "fp32"


def test_a_command_that_prints_seconds_is_told_so(tmp_path):
    def run(ms):
        command = {"run": f"{sys.executable} -S -c 'print({ms})' {{model}}", "export": "safetensors", "retries": 0}
        latency = {"runtime": "command", "half_width": 0.9, "budget_s": 0.01, "command": command}
        return study(tmp_path, latency=latency)

    assert run(0.5).runner.run_dense(0).latency.ms == pytest.approx(0.5)
    seconds = run(1e-9)
    told = r"takes 1e-09 ms, and local-cpu needs .* let the command print milliseconds"
    with pytest.raises(MeterError, match=told):
        seconds.runner.run_dense(0)
    with pytest.raises(MeterError, match=told):
        profile_study(task(), seconds.spec)


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
