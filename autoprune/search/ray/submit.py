"""``--detach``: a search as a Ray job, which goes on when the terminal is closed."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Any

from autoprune.errors import ClusterError, UsageError, one_line
from autoprune.search.ray import cluster
from autoprune.search.ray.jobs import keep_job
from autoprune.spec.executor import OnRay, RaySpec, RuntimeEnvSpec, executor_key, ray_options
from autoprune.spec.job import DetachedJob
from autoprune.spec.record import write_whole
from autoprune.spec.study import StudySpec

PATIENCE_S = 20.0
"""Seconds for a job server to take a job; one that has just been started needs a few."""


def submit(spec: StudySpec, directory: Path) -> DetachedJob:
    """Hand a search to the cluster.

    The job runs on the cluster's head with the same command, so that running it again goes on. The run directory must
    be one that the head sees at the same path.

    Args:
        spec: The study; its executor is Ray.
        directory: The run directory.

    Raises:
        UsageError: The study runs elsewhere, or Ray is missing.
        ClusterError: There is no cluster, or none that takes jobs.
    """
    if executor_key(spec.executor) != "ray":
        raise UsageError("--detach hands the search to a Ray cluster; add --executor ray")
    options = ray_options(spec.executor)
    if options.address == "local":
        raise UsageError("--detach needs a cluster that goes on; give its address with --ray-address")
    dashboard = _job_server(options)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory.resolve() / "detached.yaml"
    here = options.model_copy(update={"address": "auto", "runtime_env": RuntimeEnvSpec()})  # the job has it for all
    write_whole(path, spec.model_copy(update={"executor": OnRay(ray=here)}).to_yaml())
    python = "python" if options.runtime_env.pip else sys.executable  # that of the environment with the packages
    command = shlex.join([python, "-m", "autoprune", "search", str(path), "-o", str(directory.resolve())])
    folder = f"cd {shlex.quote(str(Path.cwd()))}"
    # Without that folder on the head, what was sent there has to do.
    entry = f"{folder} 2>/dev/null; {command}" if options.runtime_env.working_dir else f"{folder} && {command}"
    name = _submitted(dashboard, entry, cluster.runtime_env(options))
    job = DetachedJob(name=name, dashboard=dashboard)
    keep_job(job, directory)
    return job


def _job_server(options: RaySpec) -> str:
    """Return the address of the cluster's job server."""
    ray = cluster.import_ray()
    cluster.join(options)
    found = ray.nodes() and ray._private.worker.global_worker.node.address_info.get("webui_url")
    ray.shutdown()
    if not found:
        raise ClusterError("the cluster runs without its dashboard, which takes jobs; start the head with it")
    return str(found)


def _submitted(dashboard: str, entry: str, runtime_env: dict[str, Any]) -> str:
    """Hand a command to the job server; one that has just been started may need some seconds until it takes jobs."""
    from ray.job_submission import JobSubmissionClient

    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            client = JobSubmissionClient(f"http://{dashboard}")
            return str(client.submit_job(entrypoint=entry, runtime_env=runtime_env))
        except (ConnectionError, RuntimeError) as error:
            starting = isinstance(error, ConnectionError) or "try again later" in str(error)
            if not starting or time.monotonic() > deadline:
                raise ClusterError(
                    f"the cluster at {dashboard} takes no job ({one_line(error)}); check its dashboard"
                ) from error
            time.sleep(0.5)
