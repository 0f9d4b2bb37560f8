"""Searches on a real Ray cluster: a head, two workers and a target node, and what clusters do to them."""

import gc
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import yaml
from faulty_task import FAULTS

from autoprune.errors import ClusterError
from autoprune.search import storage
from autoprune.search.ray.cluster import Node, check_versions, join, nodes
from autoprune.search.study import Study
from autoprune.spec.executor import RaySpec
from autoprune.spec.study import StudySpec
from autoprune.trial.task import load_task

pytest.importorskip("ray")
# Ray leaves sockets of its own open; they are collected before this module ends.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]

HERE = Path(__file__).parent
TESTS = HERE.parent


@pytest.fixture(scope="module")
def cluster():
    """A head without cores, two workers with one core each, and a node with a target device."""
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    patch.setenv("RAY_worker_niceness", "0")
    patch.setenv("PYTHONPATH", os.pathsep.join((str(TESTS), str(HERE))))
    from ray.cluster_utils import Cluster

    quick = {"enable_worker_prestart": False, "prestart_worker_first_driver": False}
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": quick}
    made = Cluster(initialize_head=True, head_node_args=head)
    made.workers = [made.add_node(num_cpus=1) for _ in range(2)]
    made.add_node(num_cpus=1, resources={"autoprune_target:board": 1})
    yield made
    import ray

    ray.shutdown()
    made.shutdown()
    gc.collect()
    patch.undo()


def spec_of(address, task="small_task:task", trials=6, **options):
    executor = "local" if address is None else {"ray": {"address": address, **options}}
    return StudySpec.model_validate_json(
        StudySpec.model_validate(
            {
                "schema": "autoprune/study/1",
                "task": task,
                "space": "channels",
                "objectives": ["accuracy_drop", "macs"],
                "search": {"sampler": "tpe", "trials": trials, "seed": 0},
                "recovery": {"batchnorm_samples": 32},
                "latency": {"half_width": 0.5, "budget_s": 0.2, "survey_s": 0},
                "executor": executor,
            }
        ).model_dump_json(by_alias=True)
    )


def run(spec, directory, on_trial=None):
    directory.mkdir(exist_ok=True)
    study = Study(load_task(spec.task, directory), spec, directory)
    study.run(on_trial)
    return study.records().trials


def check_settled(directory, wanted):
    """Whatever happened: as many trials as asked for, each once, none RUNNING."""
    trials = storage.load_existing(None, directory).get_trials()
    assert not [t.number for t in trials if t.state == optuna.trial.TrialState.RUNNING]
    records = [r for t in trials if (r := storage.record_of(t)) is not None]
    finished = [r for r in records if r.state != "pruned"]
    assert len(finished) == wanted
    tried = [r.config.signature for r in finished if r.state == "complete"]
    assert len(set(tried)) == len(tried)
    return finished


def test_one_worker_proposes_what_the_local_executor_does(cluster, tmp_path):
    local = run(spec_of(None), tmp_path / "local")
    remote = run(spec_of(cluster.address, workers=1, target="board"), tmp_path / "ray")
    assert [r.config.signature for r in remote] == [r.config.signature for r in local]
    assert [r.values["macs"] for r in remote] == [r.values["macs"] for r in local]
    assert [r.score for r in remote] == pytest.approx([r.score for r in local])
    assert {r.worker.threads for r in remote} == {1}
    assert len({r.worker.pid for r in remote}) == 1, "the worker lives on between trials"
    assert all("measured: torch" in r.latency.meter and r.latency.pairs for r in remote)
    assert all(r.worker.samples_per_s > 0 for r in remote)


def test_whatever_processes_do_all_trials_are_settled(cluster, tmp_path):
    """A worker and the meter are killed, a trial hangs, one allocates without end, one scores NaN."""
    directory = tmp_path / "faults"
    directory.mkdir()
    for fault in FAULTS:
        (directory / fault).touch()

    def on_trial(progress):
        if progress.finished >= 1:
            (directory / "trials-began").touch()

    spec = spec_of(cluster.address, "faulty_task:task", 14, target="board", timeout="20s", memory="1GB", retries=2)
    run(spec, directory, on_trial)
    finished = check_settled(directory, 14)
    assert not [fault for fault in FAULTS if (directory / fault).exists()], "every fault happened"
    failed = [r.error for r in finished if r.state == "failed"]
    assert any("did not end within 20s (executor.ray.timeout)" in error for error in failed)
    assert any("returned nan" in error for error in failed)
    assert any("memory" in error.lower() for error in failed)
    assert len(failed) == 3
    events = [(r.worker.attempts, event) for r in finished for event in r.worker.events]
    assert any(attempts > 1 and event.startswith("worker ") and "was lost" in event for attempts, event in events)
    assert any(attempts > 1 and event.startswith("meter ") and "was lost" in event for attempts, event in events)


def test_what_ran_on_a_node_that_leaves_is_run_again(cluster, tmp_path):
    directory = tmp_path / "leaves"
    directory.mkdir()
    (directory / "wait-for-the-end").touch()
    gone = []

    def on_trial(progress):
        if (directory / "waits").exists() and not gone:  # a trial waits there, and ends with its node only
            node = (directory / "waits").read_text()
            gone.extend(worker for worker in cluster.workers if worker.node_id == node)
            cluster.workers.remove(gone[0])
            cluster.remove_node(gone[0], allow_graceful=False)

    run(spec_of(cluster.address, "faulty_task:task", 10, target="board", retries=2), directory, on_trial)
    cluster.workers.append(cluster.add_node(num_cpus=1))
    cluster.wait_for_nodes(timeout=300)  # until Ray has noticed: the next test shall not meet it
    finished = check_settled(directory, 10)
    assert [r.state for r in finished] == ["complete"] * 10
    (lost,) = [r for r in finished if r.worker.events]
    assert lost.worker.attempts == 2
    assert re.search(r"^worker .* was lost \(its (node left the cluster|process died)\)$", lost.worker.events[0])


def test_a_driver_that_is_killed_goes_on(cluster, tmp_path):
    spec = spec_of(cluster.address, trials=10, target="board")
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(spec.model_dump(mode="json", by_alias=True)))
    directory = tmp_path / "run"
    command = [sys.executable, "-m", "autoprune", "search", str(tmp_path / "study.yaml"), "-o", str(directory)]
    with (tmp_path / "log").open("w") as log:
        driver = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ, cwd=TESTS)
        deadline = time.monotonic() + 240
        while "trial 4/10" not in (tmp_path / "log").read_text():
            assert driver.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    kept = [r for t in storage.load_existing(None, directory).get_trials() if (r := storage.record_of(t)) is not None]
    assert len(kept) >= 4
    again = {r.number: r for r in run(spec, directory)}
    check_settled(directory, 10)
    untested = {number: r.model_copy(update={"test_score": None, "again": None}) for number, r in again.items()}
    assert all(untested[r.number] == r for r in kept), "nothing finished is lost or run again"


def test_ray_tune_drives_a_study_through_its_searcher(cluster, tmp_path):
    import ray
    from ray import tune

    from autoprune.search.ray.searcher import StudySearcher

    run(spec_of(None, trials=1), tmp_path)
    study = Study(load_task("small_task:task", tmp_path), spec_of(None, trials=6), tmp_path)
    searcher = StudySearcher(study)

    def trial(config):
        gone = sum(choice.get("sparsity", 0) for choice in config["pruning"]["layers"].values())
        if config["number"] == 2:
            raise ValueError("the data is away")
        macs = float("nan") if config["number"] == 3 else 1000.0 - gone
        tune.report({"accuracy_drop": gone / 10, "macs": macs, "score": 0.5})

    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    try:
        tuner = tune.Tuner(
            tune.with_resources(trial, {"cpu": 1}),
            tune_config=tune.TuneConfig(search_alg=searcher, num_samples=-1, max_concurrent_trials=1),
            run_config=tune.RunConfig(storage_path=str(tmp_path / "tune"), verbose=0),
        )
        tuner.fit()
    finally:
        ray.shutdown()
        searcher.close()
    by_number = {r.number: r for r in check_settled(tmp_path, 6)}
    assert by_number[2].state == "failed"
    assert "reported macs nan to Ray Tune" in by_number[3].error
    told = [r for r in by_number.values() if r.origin != "dense" and r.state == "complete"]
    assert all(r.score == 0.5 and r.values["macs"] <= 1000 for r in told)
    assert len(told) == 3


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"target": "bord"}, r"no node offers the target 'bord'.*offered: autoprune_target:board\); start Ray on the"),
        (
            {"cpus": 64},
            r"a trial asks for 64 CPU, and no node offers that; the most on one node is 1 CPU: ask for less",
        ),
        ({"gpus": 0.5}, r"a trial asks for 1 CPU, 0.5 GPU, and no node offers that"),
    ],
)
def test_what_the_cluster_does_not_offer_is_told_at_once(cluster, tmp_path, options, sentence):
    started = time.monotonic()
    with pytest.raises(ClusterError, match=sentence):
        run(spec_of(cluster.address, wait="1s", **options), tmp_path)
    assert time.monotonic() - started < 30
    assert not storage.load_existing(None, tmp_path).get_trials(states=(optuna.trial.TrialState.RUNNING,))


def test_what_a_cluster_offers_is_looked_at_before_a_task_is_loaded(cluster):
    import ray

    from autoprune.search.ray.cluster import check_cluster

    check_cluster(RaySpec(address=cluster.address, target="board"))
    with pytest.raises(ClusterError, match="no node offers the target 'bord'"):
        check_cluster(RaySpec(address=cluster.address, target="bord", wait="0s"))
    assert not ray.is_initialized(), "the cluster is left again"


def test_a_node_with_another_version_is_told(cluster, tmp_path):
    fake = tmp_path / "autoprune-9.9.dist-info"
    fake.mkdir()
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: autoprune\nVersion: 9.9\n")
    paths = os.pathsep.join((str(tmp_path), os.environ["PYTHONPATH"]))
    node = cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": paths})
    try:
        with pytest.raises(
            ClusterError, match=r"has autoprune 9\.9, and the search runs autoprune .*same version every"
        ):
            run(spec_of(cluster.address), tmp_path / "run")
    finally:
        cluster.remove_node(node)
        cluster.wait_for_nodes(timeout=300)


def test_a_node_that_has_left_since_is_no_reason_to_stop(cluster, caplog):
    import ray

    join(RaySpec(address=cluster.address))
    try:
        away = Node(id="ab" * 28, host="away", resources={})
        check_versions([*nodes(), away])
    finally:
        ray.shutdown()
    assert "node away has left the cluster" in caplog.text
