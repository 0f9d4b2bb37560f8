"""The command as a user runs it: killed, stopped by Ctrl-C, on a full disk, and run again; its front applied anew."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import torch
from small_task import images, small_net, task

import autoprune
from autoprune.cost.macs import count_macs
from autoprune.cost.storage import size_bytes
from autoprune.results.report import write_report
from autoprune.search import storage
from autoprune.search.stored import read_study
from autoprune.search.study import Study
from autoprune.spec.front import front

pytestmark = pytest.mark.slow
TESTS = Path(__file__).parent.parent
TRIALS = 16
LONGEST_S = 600
"""A process that takes longer hangs, on whatever machine."""

STUDY = f"""
schema: autoprune/study/1
task: small_task.py:task
device: eyeriss
space: space.yaml
objectives: [accuracy_drop, macs, size_bytes]
search: {{sampler: random, trials: {TRIALS}, seed: 0}}
recovery: {{batchnorm_samples: 0}}
"""
SPACE = """
schema: autoprune/space/1
name: small
rules:
  - granularity: [channel, weight, 2:4]
    criterion: [magnitude_l1, taylor]
    sparsity: {low: 0.0, high: 0.5, step: 0.1}
"""


@pytest.fixture
def folder(tmp_path):
    shutil.copy(TESTS / "small_task.py", tmp_path)
    (tmp_path / "space.yaml").write_text(SPACE)
    (tmp_path / "study.yaml").write_text(STUDY)
    return tmp_path


def start(folder, sleep=0.0, limit=None, hangs=0):
    misbehaves = {"SMALL_TASK_SLEEP": str(sleep), "SMALL_TASK_HANGS": str(hangs)}
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | misbehaves
    command = [sys.executable, "-m", "autoprune", "search", "study.yaml", "-o", "run"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

    def prepare():
        # A runner in the background ignores Ctrl-C and hands that down; a user's terminal does not.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if limit is not None:
            limit()

    return subprocess.Popen(command, cwd=folder, env=environment, preexec_fn=prepare, **pipes)


def finish(folder, limit=None):
    process = start(folder, limit=limit)
    said = process.communicate(timeout=LONGEST_S)[1]
    return process.returncode, said


def trials_of(run):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = storage.load_existing(None, run)
    return [] if study is None else study.get_trials()


def finished(run):
    """Return number to record of every trial that was recorded and told."""
    known = {t.number: storage.record_of(t) for t in trials_of(run) if t.state.is_finished()}
    return {number: record.to_data() for number, record in known.items() if record is not None}


def proposals(run):
    records = read_study(storage.load_existing(None, run)).trials
    return sorted(t.config.signature for t in records if t.state != "pruned")


def run_here(folder, run):
    """Run the same study without a process of its own, and return it."""
    study = Study(task(), folder / "study.yaml", folder / run)
    study.run()
    return study


def wait_for(condition, process):
    end = time.perf_counter() + LONGEST_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.perf_counter() < end
        time.sleep(0.02)


def test_a_search_that_is_killed_goes_on_where_it_was(folder):
    run_here(folder, "whole")
    drawn = random.Random(0)
    kept = {}
    for kills in (1, 5):
        process = start(folder, sleep=0.15)
        wait_for(
            lambda wanted=kills: (folder / "run" / "study.db").exists() and recorded(folder / "run") >= wanted, process
        )
        time.sleep(drawn.uniform(0, 0.3))
        process.kill()
        process.communicate()
        now = finished(folder / "run")
        assert kept.items() <= now.items(), "a kill lost or changed a finished trial"
        kept = now
    assert len(kept) >= 5
    code, said = finish(folder)
    assert code == 0, said
    done = finished(folder / "run")
    assert kept.items() <= done.items()
    assert sum(record["state"] != "pruned" for record in done.values()) == TRIALS
    assert all(trial.state.is_finished() for trial in trials_of(folder / "run"))
    assert len({trial.number for trial in trials_of(folder / "run")}) == len(trials_of(folder / "run"))
    assert len(set(proposals(folder / "run"))) == TRIALS, "a trial was run twice"
    assert proposals(folder / "run") == proposals(folder / "whole")
    assert len((folder / "run" / "records.jsonl").read_text().splitlines()) == len(done) + 1


def recorded(run):
    """Count records without waiting for a database that is just being made."""
    try:
        return len(finished(run))
    except autoprune.AutopruneError:
        return 0


def test_ctrl_c_and_ten_failures_end_a_search_with_a_report_and_the_same_command_goes_on(folder, monkeypatch):
    process = start(folder, hangs=4)  # three trials end, and the fourth waits for Ctrl-C
    wait_for(lambda: (folder / "run" / "study.db").exists() and recorded(folder / "run") == 3, process)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=LONGEST_S)[1]
    assert process.returncode == 0, said
    assert "stopped by Ctrl-C. The same command goes on." in said
    assert (folder / "run" / "report" / "index.html").is_file()
    kept = finished(folder / "run")
    assert len(kept) == 3
    assert all(trial.state.name != "RUNNING" for trial in trials_of(folder / "run"))

    flag = folder / "broken"
    flag.touch()
    monkeypatch.setenv("SMALL_TASK_BREAKS", str(flag))
    code, said = finish(folder)
    assert code == 1
    assert "10 trials in a row failed, the last with ValueError: the data is away; mend the cause" in said
    assert "Traceback" not in said
    assert "ValueError: the data is away" in (folder / "run" / "report" / "report.md").read_text()

    flag.unlink()
    code, said = finish(folder)
    assert code == 0, said
    assert kept.items() <= finished(folder / "run").items()


def test_ctrl_c_while_the_task_is_loaded_is_one_sentence(folder):
    (folder / "small_task.py").write_text("import pathlib, time\npathlib.Path('loading').touch()\ntime.sleep(60)\n")
    process = start(folder)
    wait_for(lambda: (folder / "loading").exists(), process)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=LONGEST_S)[1]
    assert process.returncode == 1
    assert said.strip().splitlines()[-1] == "autoprune: interrupted"


def test_a_full_disk_is_one_sentence_and_the_same_command_completes(folder):
    kept = {}
    for limit in (30_000, 190_000):  # too little for the database, then for the report

        def small_disk(limit=limit):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        code, said = finish(folder, limit=small_disk)
        last = said.strip().splitlines()[-1]
        assert code == 1, said
        assert last.startswith("autoprune: error: ")
        assert "free some space, then run" in last
        assert "Traceback" not in said
        kept = finished(folder / "run") if limit > 100_000 else {}
    code, said = finish(folder)
    assert code == 0, said
    assert kept.items() <= finished(folder / "run").items()
    assert sum(record["state"] != "pruned" for record in finished(folder / "run").values()) == TRIALS
    assert not list((folder / "run").rglob("*.part"))


def test_every_trial_of_the_front_can_be_applied_anew_and_is_what_was_recorded(folder):
    known = task()
    records = run_here(folder, "run").records()
    write_report(records, folder / "run" / "report")
    chosen = [trial for trial in front(records) if trial.origin != "dense"]
    granularities = {choice.granularity for trial in chosen for _, choice in trial.config.choices()}
    assert {"channel", "weight", "2:4"} <= granularities
    for trial in chosen:
        config = autoprune.load_config(folder / "run" / "report" / "configs" / f"{trial.number:03d}.yaml")
        smaller = autoprune.apply(
            known.model, config, known.example_inputs, batches=known.batches, loss=known.loss, finetune=known.finetune
        )
        assert count_macs(smaller, known.args).total == trial.values["macs"]
        assert size_bytes(smaller) == trial.values["size_bytes"]
        assert sum(p.numel() for p in smaller.parameters()) == trial.values["params"]
        with torch.no_grad():
            assert known.evaluate(smaller) == trial.score
            assert known.test(smaller) == trial.test_score
    path = folder / "run" / "report" / "configs" / f"{trial.number:03d}.yaml"
    command = [
        sys.executable,
        "-m",
        "autoprune",
        "apply",
        str(path),
        "--task",
        "small_task.py:task",
        "-o",
        "p.safetensors",
    ]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    assert torch.equal(
        autoprune.load_pruned(small_net(), folder / "p.safetensors")(images(8, 5)), smaller(images(8, 5))
    )
