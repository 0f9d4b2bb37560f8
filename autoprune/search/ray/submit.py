"""``--detach``: a search as a Ray job, which goes on when the terminal is closed."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from autoprune.errors import ClusterError, UsageError, one_line
from autoprune.search.ray import cluster
from autoprune.spec.executor import OnRay, executor_key, ray_options
from autoprune.spec.record import write_whole
from autoprune.spec.study import StudySpec


@dataclass(frozen=True)
class Job:
    """A job that was handed over.

    Attributes:
        name: Ray's name of it ("ray job logs NAME").
        dashboard: Address of the cluster's job server.
    """

    name: str
    dashboard: str


def submit(spec: StudySpec, directory: Path) -> Job:
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
    ray = cluster.import_ray()
    options = ray_options(spec.executor)
    if options.address == "local":
        raise UsageError("--detach needs a cluster that goes on; give its address with --ray-address")
    cluster.join(options)
    dashboard = ray.nodes() and ray._private.worker.global_worker.node.address_info.get("webui_url")
    ray.shutdown()
    if not dashboard:
        raise ClusterError("the cluster runs without its dashboard, which takes jobs; start the head with it")
    directory.mkdir(parents=True, exist_ok=True)
    path = directory.resolve() / "detached.yaml"
    here = options.model_copy(update={"address": "auto"})
    write_whole(path, spec.model_copy(update={"executor": OnRay(ray=here)}).to_yaml())
    command = [sys.executable, "-m", "autoprune", "search", str(path), "-o", str(directory.resolve())]
    from ray.job_submission import JobSubmissionClient

    try:
        client = JobSubmissionClient(f"http://{dashboard}")
        name = client.submit_job(
            entrypoint=f"cd {shlex.quote(str(Path.cwd()))} && {shlex.join(command)}",
            runtime_env=cluster.runtime_env(options),
        )
    except (ConnectionError, RuntimeError) as error:
        raise ClusterError(
            f"the cluster at {dashboard} takes no job ({one_line(error)}); check its dashboard"
        ) from error
    return Job(str(name), str(dashboard))
