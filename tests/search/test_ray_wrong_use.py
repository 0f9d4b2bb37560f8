"""What is wrong with a search on Ray before any cluster is joined: one sentence each."""

import sys

import pytest
from click.testing import CliRunner

from autoprune.cli import command
from autoprune.errors import ClusterError, SpecError, UsageError
from autoprune.search.ray import cluster
from autoprune.search.ray.seats import why_lost
from autoprune.search.ray.submit import submit
from autoprune.spec.document import parse_document
from autoprune.spec.executor import RaySpec, executor_key, ray_options
from autoprune.spec.study import StudySpec

STUDY = {"schema": "autoprune/study/1", "task": "a:b", "space": "channels"}


def spec_of(executor):
    return parse_document(StudySpec, STUDY | {"executor": executor}, "study.yaml")


def test_ray_that_is_not_installed_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"Ray, which is not installed; pip install 'autoprune\[ray\]'"):
        cluster.import_ray()


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("127.0.0.1:1", r"there is no Ray cluster at '127.0.0.1:1' \(.*refused\); start one"),
        ("somewhere", "the Ray address is 'somewhere'; give auto, local or HOST:PORT"),
    ],
)
def test_no_cluster_at_the_address(address, sentence):
    pytest.importorskip("ray")
    with pytest.raises(ClusterError, match=sentence):
        cluster.join(RaySpec(address=address))


def test_a_working_directory_that_is_none():
    with pytest.raises(ClusterError, match="working_dir is 'no/such', and there is no such folder"):
        cluster.runtime_env(RaySpec.model_validate({"runtime_env": {"working_dir": "no/such"}}))


def test_what_workers_need_is_handed_to_ray_whole(tmp_path):
    from ray.runtime_env import RuntimeEnv

    asked = {"working_dir": str(tmp_path), "pip": ["scikit-learn==1.9"], "env_vars": {"DATA": "/data"}}
    found = cluster.runtime_env(RaySpec.model_validate({"runtime_env": asked}))
    assert found == asked
    assert RuntimeEnv(**found).pip_config()["packages"] == ["scikit-learn==1.9"], "as Ray reads it"
    assert cluster.runtime_env(RaySpec()) == {}


def test_a_cluster_that_is_not_there_is_told_before_the_task_is_loaded(tmp_path):
    pytest.importorskip("ray")
    study = spec_of({"ray": {"address": "127.0.0.1:1"}}).model_copy(update={"task": "no.such.module:task"})
    (tmp_path / "study.yaml").write_text(study.to_yaml())
    told = CliRunner().invoke(command, ["search", str(tmp_path / "study.yaml"), "-o", str(tmp_path / "run")])
    assert isinstance(told.exception, ClusterError), "and not that the task does not import"
    assert not (tmp_path / "run").exists()


def test_only_a_study_on_ray_is_detached(tmp_path):
    with pytest.raises(UsageError, match="add --executor ray"):
        submit(spec_of("local"), tmp_path)
    with pytest.raises(UsageError, match="needs a cluster that goes on"):
        submit(spec_of({"ray": "local"}), tmp_path)


def test_an_executor_is_a_key_or_ray_with_options():
    assert executor_key(spec_of("local").executor) == "local"
    assert ray_options(spec_of("ray").executor) == RaySpec()
    assert ray_options(spec_of({"ray": "auto"}).executor).address == "auto"
    options = ray_options(spec_of({"ray": {"cpus": 4.5, "memory": "4GB", "timeout": "10m"}}).executor)
    assert (options.threads, options.memory_bytes, options.timeout_s) == (4, 4 * 10**9, 600)
    assert RaySpec(cpus=0.5).threads == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"memory": "4"}, "a size is a number with MB, GB or TB"),
        ({"timeout": "soon"}, "a time is a number with s, m or h"),
        ({"cpu": 2}, r"unknown key 'executor\.ray\.cpu'"),
        ({"workers": 0}, "greater than or equal to 1"),
    ],
)
def test_options_of_ray_are_strict(options, sentence):
    with pytest.raises(SpecError, match=sentence):
        spec_of({"ray": options})


def test_where_a_study_runs_is_no_part_of_it():
    assert spec_of({"ray": {"workers": 4}}).identity() == spec_of("local").identity()
    assert spec_of("local").identity()["executor"] == "local", "as in the studies of older versions"


def test_what_a_node_offers():
    node = cluster.Node("1", "a", {"CPU": 4.0, "GPU": 1.0})
    assert node.fits({"CPU": 1}) == 4
    assert node.fits({"CPU": 1, "GPU": 0.3}) == 3
    assert node.fits({"CPU": 1, "board": 1}) == 0
    assert node.less(CPU=3.0).resources == {"CPU": 1.0, "GPU": 1.0}


def test_gpus_and_custom_resources_of_a_trial_go_by_rays_names():
    options = RaySpec.model_validate({"cpus": 2, "gpus": 0.25, "resources": {"licence": 1}, "memory": "2GB"})
    assert cluster.wanted_by_trial(options) == {"CPU": 2.0, "GPU": 0.25, "licence": 1.0, "memory": 2e9}


def test_why_an_actor_was_lost_in_a_few_words():
    class ActorDiedError(Exception):
        pass

    class OutOfMemoryError(Exception):
        pass

    assert why_lost(ActorDiedError("The actor died because its node has died.")) == "its node left the cluster"
    killed = ActorDiedError("The actor died unexpectedly. Root causes: (1) SIGKILL by the OOM killer: out of memory")
    assert why_lost(killed) == "its process died"
    assert why_lost(OutOfMemoryError("Task was killed")) == "its node ran out of memory"
