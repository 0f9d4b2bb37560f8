"""What a cluster can do to a search, one fault a study: writes a table of what came of it.

    OMP_NUM_THREADS=1 .venv/bin/python -m tests.benchmarks.cluster_faults -o reports/cluster/faults.md

Takes about three minutes on two quiet cores. Needs the extra ``ray``.
"""

# ruff: noqa: E402 - Ray reads the environment when it is imported
import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

TESTS = Path(__file__).parent.parent
os.environ.update(
    RAY_USAGE_STATS_ENABLED="0",
    RAY_worker_niceness="0",
    PYTHONPATH=os.pathsep.join((str(TESTS), str(TESTS / "search"))),
)
sys.path[:0] = [str(TESTS), str(TESTS / "search")]

import optuna
from faulty_task import FAULTS
from ray.cluster_utils import Cluster

from autoprune.cost.host import machine_title
from autoprune.errors import AutopruneError
from autoprune.search import storage
from autoprune.search.ray import executor, targets
from autoprune.search.study import Study
from autoprune.spec.study import StudySpec
from autoprune.trial.task import load_task

TRIALS = 10
WHAT = {
    "none": "nothing",
    "kill": "`kill -9` of a worker in a trial",
    "sleep": "a trial that sleeps past its timeout of 20 s",
    "allocate": "a trial that allocates without end (limit 1 GB)",
    "nan": "a score of NaN",
    "kill-meter": "`kill -9` of the meter in a measurement",
    "node": "removal of a node with a worker",
    "driver": "`kill -9` of the driver, then the same command",
    "target": "removal of the target's node for good",
}


def spec_of(address: str) -> StudySpec:
    return StudySpec.model_validate(
        {
            "schema": "autoprune/study/1",
            "task": "faulty_task:task",
            "space": "channels",
            "objectives": ["accuracy_drop", "macs"],
            "search": {"sampler": "random", "trials": TRIALS, "seed": 0},
            "recovery": {"batchnorm_samples": 32},
            "latency": {"half_width": 0.5, "budget_s": 0.2, "survey_s": 0},
            "executor": {"ray": {"address": address, "target": "board", "timeout": "20s", "memory": "1GB"}},
        }
    )


def attempt(cluster: Cluster, nodes: dict[str, object], fault: str, directory: Path) -> tuple[float, str]:
    """Run one study with one fault; return its seconds and what the command said at the end."""
    spec, began = spec_of(cluster.address), time.perf_counter()
    if fault == "driver":
        directory.joinpath("ray.yaml").write_text(spec.to_yaml())
        command = [sys.executable, "-m", "autoprune", "search", str(directory / "ray.yaml"), "-o", str(directory)]
        with (directory / "log").open("w") as log:
            driver = subprocess.Popen(command, stdout=log, stderr=log, cwd=TESTS)
            while driver.poll() is None and f"trial 4/{TRIALS}" not in (directory / "log").read_text():
                time.sleep(0.05)
            driver.send_signal(signal.SIGKILL)
            driver.wait()

    def on_trial(progress) -> None:
        (directory / "trials-began").touch()
        if progress.finished >= 3 and fault in nodes:
            cluster.remove_node(nodes.pop(fault))

    study = Study(load_task(spec.task, directory), spec, directory)
    try:
        study.run(on_trial)
    except AutopruneError as error:
        return time.perf_counter() - began, f"{type(error).__name__}: {error}"
    return time.perf_counter() - began, study.stopped


def row_of(fault: str, directory: Path, seconds: float, said: str) -> str:
    trials = storage.load_existing(None, directory).get_trials()
    running = sum(t.state == optuna.trial.TrialState.RUNNING for t in trials)
    records = [r for t in trials if (r := storage.record_of(t)) is not None and r.state != "pruned"]
    tried = [r.config.signature for r in records if r.state == "complete"]
    notes = [f"{event} ({r.worker.attempts} starts)" for r in records if r.worker for event in r.worker.events]
    notes += [f"failed: {r.error.strip().splitlines()[-1]}" for r in records if r.state == "failed"]
    text = "; ".join([*notes, *([said] if said else [])]).replace("|", "/") or "-"
    return (
        f"| {WHAT[fault]} | {len(records)} of {TRIALS} | {running} | {len(tried) - len(set(tried))} | {seconds:.0f} "
        f"| {text} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    executor.TICK_S = targets.TICK_S = 0.5
    quick = {"enable_worker_prestart": False, "prestart_worker_first_driver": False}
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": quick}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=1)
    nodes = {
        "node": cluster.add_node(num_cpus=1),
        "target": cluster.add_node(num_cpus=1, resources={"autoprune_target:board": 1}),
    }
    rows = []
    for fault in WHAT:
        with tempfile.TemporaryDirectory() as folder:
            directory = Path(folder)
            if fault in FAULTS:
                (directory / fault).touch()
            seconds, said = attempt(cluster, nodes, fault, directory)
            rows.append(row_of(fault, directory, seconds, said))
            print(rows[-1], flush=True)
    cluster.shutdown()
    table = "\n".join(rows)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(f"""# What clusters do to a search

Made by `OMP_NUM_THREADS=1 .venv/bin/python -m tests.benchmarks.cluster_faults -o reports/cluster/faults.md`
on {machine_title()}: a head, two workers with one core each, and a node with the target;
one study of {TRIALS} trials each.

| what happened | settled | left running | tried twice | seconds | what the records, or the command, say |
|---|---|---|---|---|---|
{table}
""")


if __name__ == "__main__":
    main()
