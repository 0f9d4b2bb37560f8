"""What 'autoprune status' says of a detached search: it runs, failed, was stopped, or its cluster is gone."""

import os
import socket
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from autoprune.cli import command
from autoprune.errors import SpecError
from autoprune.search.ray import submit as submitting
from autoprune.search.ray.jobs import fate_of, keep_job, kept_job
from autoprune.spec.job import DetachedJob
from autoprune.spec.study import StudySpec, load_study

ray = pytest.importorskip("ray")
LOGS = "2026 INFO starting\nautoprune: error: task 'a:b' does not import (no a); install it\n\n"


class Server:
    """A job server of one job, in the place of Ray's client; it listens on a real port."""

    def __init__(self, monkeypatch):
        self.state, self.raises, self.jobs = "RUNNING", None, []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        monkeypatch.setattr("ray.job_submission.JobSubmissionClient", lambda address: self)

    def get_job_info(self, name):
        if self.raises is not None:
            raise self.raises
        return SimpleNamespace(status=self.state)

    def get_job_logs(self, name):
        return LOGS

    def submit_job(self, **job):
        self.jobs.append(job)
        return "raysubmit_1"

    def close(self):
        self._socket.close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    made = Server(monkeypatch)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("PENDING", "waits to be started"),
        ("RUNNING", "runs"),
        ("SUCCEEDED", "has ended"),
        ("STOPPED", "was stopped; the same command goes on"),
        (
            "FAILED",
            "failed: autoprune: error: task 'a:b' does not import (no a); install it ('ray job logs j --address",
        ),
    ],
)
def test_each_state_of_a_job_is_a_sentence(server, state, said):
    server.state = state
    told = fate_of(DetachedJob(name="j", dashboard=server.address))
    assert told.startswith(f"job j on {server.address} {said}")
    assert (state == "FAILED") == ("shows all" in told)


def test_what_keeps_a_job_from_being_asked_is_told(server, monkeypatch):
    job = DetachedJob(name="j", dashboard=server.address)
    server.raises = RuntimeError("Request failed with status code 404: Job j does not exist")
    assert "is not known there, the cluster was started anew; the same command goes on" in fate_of(job)
    server.raises = RuntimeError("Request failed with status code 500")
    assert "cannot be asked (RuntimeError: Request failed with status code 500)" in fate_of(job)
    server.raises = ray.exceptions.AuthenticationError("no token")
    assert fate_of(job).endswith("asks for a token; copy ~/.ray/auth_token of its head to here")
    server.close()
    assert "its cluster is gone or out of reach" in fate_of(job)
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    assert fate_of(job).endswith("cannot be asked, for Ray is not installed here")


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        ({}, None),
        ({"RAY_AUTH_TOKEN": "t"}, "token"),
        ({"RAY_AUTH_TOKEN": "t", "RAY_AUTH_MODE": "disabled"}, "disabled"),
        ({"RAY_AUTH_TOKEN_PATH": "kept"}, "token"),
        ({"HOME": "home"}, "token"),
    ],
)
def test_a_token_that_is_kept_here_is_shown(server, monkeypatch, tmp_path, given, mode):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept").touch()
    (tmp_path / "home" / ".ray").mkdir(parents=True)
    (tmp_path / "home" / ".ray" / "auth_token").touch()
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in ({"HOME": "nowhere"} | given).items():
        monkeypatch.setenv(name, value)
    assert "runs" in fate_of(DetachedJob(name="j", dashboard=server.address))
    assert os.environ.get("RAY_AUTH_MODE") == mode


def test_a_job_that_has_not_begun_its_study_has_a_status(server, tmp_path):
    assert kept_job(tmp_path) is None
    keep_job(DetachedJob(name="j", dashboard=server.address), tmp_path)
    assert kept_job(tmp_path) == DetachedJob(name="j", dashboard=server.address)
    said = CliRunner().invoke(command, ["status", str(tmp_path)])
    assert (said.exit_code, said.output) == (0, f"job j on {server.address} runs\nno trial has been asked for yet\n")
    (tmp_path / "job.json").write_text("{")
    with pytest.raises(SpecError, match=r"job\.json is damaged"):
        kept_job(tmp_path)


@pytest.mark.parametrize(
    ("env", "joint", "python"),
    [({}, " && ", None), ({"working_dir": "."}, " 2>/dev/null; ", None), ({"pip": ["toolz"]}, " && ", "python")],
)
def test_what_is_sent_with_a_job_is_asked_for_once(server, tmp_path, monkeypatch, env, joint, python):
    """Ray refuses a driver that asks for what its job has already; packages are those of the job's own Python."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(submitting, "_job_server", lambda options: server.address)
    study = {"schema": "autoprune/study/1", "task": "a:b", "space": "channels"}
    spec = StudySpec.model_validate(study | {"executor": {"ray": {"address": "1.2.3.4:5", "runtime_env": env}}})
    job = submitting.submit(spec, tmp_path / "run")
    assert kept_job(tmp_path / "run") == job
    (sent,) = server.jobs
    assert sent["runtime_env"] == env
    entry = sent["entrypoint"]
    assert entry.startswith(f"cd {tmp_path}{joint}{python or submitting.sys.executable} -m autoprune search ")
    there = load_study(tmp_path / "run" / "detached.yaml").executor.ray
    assert there.address == "auto"
    assert not there.runtime_env.working_dir
    assert not there.runtime_env.pip
