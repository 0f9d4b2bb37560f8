"""Executors: the suite that plug-ins run, on the one that is always there."""

import subprocess
import sys

import pytest
from stub_study import StubRunner, make

from autoprune.errors import UnknownNameError
from autoprune.search import study as study_module
from autoprune.search.executors import EXECUTORS, ExecutorRequest, Job
from autoprune.testing import check_executor


def test_the_local_executor_conforms(tmp_path, monkeypatch):
    monkeypatch.setattr(study_module, "TrialRunner", StubRunner)
    study = make(tmp_path)
    dense = study.runner.run_dense(0)
    configs = [study.proposals.config(study.proposals.uniform(sparsity)) for sparsity in (0.2, 0.4, 0.6)]

    def behave(runs):
        if runs == 3:
            raise ValueError("boom")

    study.runner.behave = behave
    jobs = [Job(number, config, "uniform", dense) for number, config in enumerate(configs, 1)]
    executor = EXECUTORS.get("local").open(ExecutorRequest(study.runner, tmp_path))
    check_executor(executor, jobs[:2], jobs[2])


def test_executors_are_listed_by_key():
    assert EXECUTORS.names()[:2] == ["local", "ray"]


def test_an_executor_that_is_mistyped_is_told_before_anything_runs(tmp_path):
    with pytest.raises(UnknownNameError, match="unknown executor 'rai'; did you mean 'ray'"):
        make(tmp_path, executor="rai")


def test_a_search_on_this_machine_needs_no_ray():
    code = "import sys, autoprune.search.study, autoprune.testing; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
