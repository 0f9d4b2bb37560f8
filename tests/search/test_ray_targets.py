"""Where the work of a study is done on a Ray cluster: targets, errands, a shared GPU, environments, detached jobs."""

import gc
import json
import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from autoprune.cli import command
from autoprune.results.other_devices import device_fronts
from autoprune.results.report import write_report
from autoprune.search import damage, storage, survey
from autoprune.search.executors import EXECUTORS, ExecutorRequest, Job
from autoprune.search.ray import submit
from autoprune.search.study import Study
from autoprune.spec.config import LayerChoice
from autoprune.spec.front import front
from autoprune.spec.study import StudySpec, resolve_study
from autoprune.testing import check_executor
from autoprune.trial.runner import TrialRunner
from autoprune.trial.task import load_task

ray = pytest.importorskip("ray")
# Ray leaves sockets of its own open; they are collected before this module ends.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]

TESTS = Path(__file__).parent.parent
FURTHER = "raspberry-pi-4"
TAKES_JOBS = os.environ.get("AUTOPRUNE_TEST_DETACH") == "1"
"""Ray's job agent needs port 52365 of the machine, which another cluster may hold: tried where that is known free."""

TASK = """
import os
import time
from dataclasses import replace
from pathlib import Path
import small_task

def task():
    plain = small_task.task()
    dense = sum(p.numel() for p in plain.model.parameters())

    def less():
        return float(os.environ["LESS"]) + float(Path("bias.txt").read_text())

    def evaluate(model):
        meet = os.environ.get("MEET")
        if meet and sum(p.numel() for p in model.parameters()) < dense:
            (Path(meet) / str(os.getpid())).write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "none"))
            while len(list(Path(meet).iterdir())) < 2:
                time.sleep(0.05)
        return plain.evaluate(model) - less()

    return replace(plain, evaluate=evaluate, test=lambda model: plain.test(model) - less())
"""
"""A task that can be scored only where its file of data lies and a variable is set.

Where MEET names a folder, trials wait in it for one another: two workers must be there.
"""


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as found:
        found.setenv("RAY_USAGE_STATS_ENABLED", "0")
        found.setenv("RAY_worker_niceness", "0")
        found.setenv("PYTHONPATH", str(TESTS))
        yield found


@pytest.fixture(scope="module")
def cluster(patch):
    """A head, a worker's node that declares a GPU, and two nodes with targets."""
    from ray.cluster_utils import Cluster

    quick = {"enable_worker_prestart": False, "prestart_worker_first_driver": False}
    head = {"num_cpus": 0, "include_dashboard": TAKES_JOBS, "_system_config": quick}
    made = Cluster(initialize_head=True, head_node_args=head)
    made.add_node(num_cpus=2, num_gpus=1)
    made.add_node(num_cpus=1, resources={"autoprune_target:board": 1})
    made.other = made.add_node(num_cpus=1, resources={"autoprune_target:other": 1})
    yield made
    ray.shutdown()
    made.shutdown()
    gc.collect()


def spec_of(task, trials, executor, **changes):
    rule = {"granularity": ["channel", "weight"], "criterion": ["magnitude_l1", "random"]}
    rule["sparsity"] = {"low": 0.0, "high": 0.8, "step": 0.1}
    return StudySpec.model_validate(
        {
            "task": task,
            "space": {"schema": "autoprune/space/1", "name": "s", "rules": [rule]},
            "objectives": ["accuracy_drop", "size_bytes"],  # size is asked for: no pattern leaves the space
            "search": {"sampler": "greybox", "trials": trials, "seed": 0},
            "recovery": {"batchnorm_samples": 32},
            "latency": {"half_width": 0.5, "budget_s": 0.2, "survey_s": 0.1},
            "devices": [FURTHER],
            "executor": executor,
        }
        | changes
    )


@pytest.fixture(scope="module")
def searches(cluster, patch, tmp_path_factory):
    """Run one study on this machine, and on the cluster, where a target is lost in its course."""
    work = tmp_path_factory.mktemp("work")
    (work / "where_data_lies.py").write_text(TASK)
    (work / "bias.txt").write_text("0.25")
    patch.syspath_prepend(str(work))
    patch.chdir(work)
    patch.setenv("LESS", "0.125")
    local = Study(load_task("where_data_lies:task"), spec_of("where_data_lies:task", 8, "local"), work / "local")
    local.run()
    patch.chdir(TESTS)  # from here on nothing can be scored in this process
    patch.delenv("LESS")
    patch.setattr(survey, "_survey", lambda *_: pytest.fail("surveyed in the driver"))
    patch.setattr(damage, "_probe", lambda *_: pytest.fail("probed in the driver"))
    patch.setattr(TrialRunner, "test_score", lambda *_: pytest.fail("tested in the driver"))
    patch.setattr(TrialRunner, "latency_again", lambda *_: pytest.fail("measured again in the driver"))
    patch.setattr("autoprune.search.ray.targets.MOST_AWAY_S", 1.0)
    meet = tmp_path_factory.mktemp("meet")

    def on_trial(progress):
        if progress.finished == 3 and cluster.other is not None:
            cluster.remove_node(cluster.other)
            cluster.other = None

    options = {"address": cluster.address, "target": "board", "targets": {FURTHER: "other"}, "gpus": 0.5, "wait": "2s"}
    options["runtime_env"] = {"working_dir": str(work), "env_vars": {"LESS": "0.125", "MEET": str(meet)}}
    remote = Study(
        load_task("where_data_lies:task"), spec_of("where_data_lies:task", 8, {"ray": options}), work / "remote"
    )
    remote.run(on_trial)
    return local, remote, meet


def complete(study):
    return [record for record in study.records().trials if record.state == "complete"]


def test_a_study_is_scored_and_probed_and_tested_where_its_data_is(searches):
    local, remote, _ = searches
    here, there = local.records(), remote.records()
    assert there.study.dense_score == here.study.dense_score == pytest.approx(1 - 0.375)
    assert [probe.model_copy(update={"drop": 0.0}) for probe in there.study.damage] == [
        probe.model_copy(update={"drop": 0.0}) for probe in here.study.damage
    ]
    assert [p.drop for p in there.study.damage] == pytest.approx([p.drop for p in here.study.damage], abs=1e-5)
    tested = {r.config.signature: r.test_score for r in there.trials if r.test_score is not None}
    again = {r.config.signature: r.test_score for r in here.trials if r.test_score is not None}
    assert there.trials[0].test_score == here.trials[0].test_score == pytest.approx(1 - 0.375)
    assert len(tested) > 1
    assert all(tested[signature] == again[signature] for signature in tested.keys() & again.keys())


def test_a_study_surveys_on_its_target(searches):
    _, remote, _ = searches
    payoffs = remote.records().study.payoffs
    assert {payoff.granularity for payoff in payoffs} == {"weight"}
    assert all(payoff.measured for payoff in payoffs)


def test_the_front_is_measured_once_more_on_its_target(searches):
    _, remote, _ = searches
    records = remote.records()
    again = {trial.number: trial.again for trial in records.trials if trial.again is not None}
    assert set(again) == {trial.number for trial in front(records) if trial.origin != "dense"}
    assert all(latency.pairs and latency.meter.startswith("measured: torch") for latency in again.values())


def test_each_trial_is_measured_on_every_target_until_one_is_lost(searches, tmp_path):
    _, remote, _ = searches
    records = remote.records()
    trials = complete(remote)
    assert len(trials) == 8
    assert all(trial.latency.pairs and trial.latency.meter.startswith("measured: torch") for trial in trials)
    measured = [trial for trial in trials if trial.devices is not None]
    assert len(measured) >= 3
    assert trials[0] in measured
    dense = trials[0].devices[FURTHER]
    for trial in measured:
        found = trial.devices[FURTHER]
        assert found.measured
        assert found.meter.startswith("measured: torch")
        assert found.ratio_low <= found.ratio <= found.ratio_high
        assert found.latency_ms == pytest.approx(
            found.ratio * dense.latency_ms if trial is not trials[0] else dense.latency_ms
        )
    rest = [trial for trial in trials if trial.devices is None]
    assert trials[-1] in rest
    for trial in rest:
        assert any(event.startswith(f"not measured on {FURTHER}: ") for event in trial.worker.events)
        assert trial.latency.pairs, "the study's own device is measured all the same"
    (front,) = device_fronts(records)
    assert front.measured
    assert {trial.number for trial in front.front} <= {trial.number for trial in measured}
    assert f"latency on {FURTHER} is measured there too" in " ".join(records.study.notes)
    assert "| measured |" in write_report(records, tmp_path / "report").markdown.read_text()


def test_workers_share_a_gpu_by_fraction(searches):
    _, remote, meet = searches
    seen = {int(path.name): path.read_text() for path in meet.iterdir()}
    assert list(seen.values()) == ["0", "0"], "half a GPU each: two workers see the same one"
    assert {trial.worker.pid for trial in complete(remote)[1:]} <= seen.keys()


def test_the_executor_conforms(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr("autoprune.search.ray.targets.MOST_AWAY_S", 60.0)
    spec = spec_of("small_task:task", 4, {"ray": {"address": cluster.address, "workers": 1}}, device="eyeriss")
    study = Study(load_task("small_task:task"), resolve_study(spec), tmp_path)
    dense = study.runner.run_dense(0)
    configs = [study.proposals.config(study.proposals.uniform(sparsity)) for sparsity in (0.2, 0.4)]
    broken = configs[0].model_copy(
        update={"layers": {"no such": (LayerChoice(granularity="weight", criterion="random", sparsity=0.5),)}}
    )
    jobs = [Job(number, config, "uniform", dense) for number, config in enumerate([*configs, broken], 1)]
    check_executor(EXECUTORS.get("ray").open(ExecutorRequest(study.runner, tmp_path)), jobs[:2], jobs[2])


@pytest.mark.skipif(not TAKES_JOBS, reason="needs port 52365 for itself; AUTOPRUNE_TEST_DETACH=1 runs it")
def test_a_detached_search_runs_as_a_job_of_the_cluster_and_tells_how_far_it_is(cluster, tmp_path, monkeypatch):
    from ray.job_submission import JobSubmissionClient

    monkeypatch.setattr(submit, "PATIENCE_S", 240.0)
    executor = {"ray": {"address": cluster.address, "workers": 1}}
    spec = spec_of("small_task:task", 3, executor, device="eyeriss", devices=None)
    (tmp_path / "study.yaml").write_text(spec.to_yaml())
    directory = tmp_path / "run"
    invoke = CliRunner().invoke
    told = invoke(command, ["search", str(tmp_path / "study.yaml"), "-o", str(directory), "--detach"])
    assert told.exit_code == 0, told.output
    _, name, *_, dashboard = told.output.split(". 'autoprune status")[0].split()
    client = JobSubmissionClient(f"http://{dashboard}")
    deadline = time.monotonic() + 300
    while not client.get_job_status(name).is_terminal():
        assert time.monotonic() < deadline, client.get_job_logs(name)
        time.sleep(0.2)
    assert client.get_job_status(name) == "SUCCEEDED", client.get_job_logs(name)
    said = invoke(command, ["status", str(directory)])
    assert said.exit_code == 0
    assert said.output.startswith("3/3 trials (3 complete), 0 in flight")
    assert json.loads((directory / "report" / "front.json").read_text())["front"]
    trials = storage.load_existing(None, directory).get_trials()
    workers = {storage.record_of(trial).worker.pid for trial in trials}
    assert os.getpid() not in workers
