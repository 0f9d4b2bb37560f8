"""What has become of the Ray job of a detached search."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from autoprune.errors import SpecError, UsageError, one_line
from autoprune.search.ray import cluster
from autoprune.spec.document import parse_document
from autoprune.spec.job import DetachedJob
from autoprune.spec.record import write_whole

PATIENCE_S = 5.0
"""Seconds in which a job server that is there answers."""

_ENDED = {"SUCCEEDED": "has ended", "STOPPED": "was stopped", "FAILED": "failed"}


def keep_job(job: DetachedJob, directory: Path) -> None:
    """Keep the job of a search beside it."""
    write_whole(directory / "job.json", job.to_json())


def kept_job(directory: Path) -> DetachedJob | None:
    """Return the job of a search; None where it was never detached.

    Raises:
        SpecError: ``job.json`` is damaged.
    """
    path = directory / "job.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise SpecError(f"{path} is damaged ({error}); remove it") from error
    return parse_document(DetachedJob, data, str(path))


def fate_of(job: DetachedJob) -> str:
    """Ask the cluster what has become of a job; return a sentence without its full stop."""
    who = f"job {job.name} on {job.dashboard}"
    again = "the same command goes on"
    _take_token_along()
    try:
        ray = cluster.import_ray()
    except UsageError:
        return f"{who} cannot be asked, for Ray is not installed here"
    try:
        host, _, port = job.dashboard.rpartition(":")
        socket.create_connection((host, int(port)), timeout=PATIENCE_S).close()
        from ray.job_submission import JobSubmissionClient

        client = JobSubmissionClient(f"http://{job.dashboard}")
        state = str(client.get_job_info(job.name).status)
        said = client.get_job_logs(job.name) if state == "FAILED" else ""
    except (OSError, ValueError) as error:  # nobody listens there
        return f"{who} cannot be asked, its cluster is gone or out of reach ({one_line(error, 120)}); {again}"
    except ray.exceptions.AuthenticationError:
        return f"{who} asks for a token; copy ~/.ray/auth_token of its head to here"
    except RuntimeError as error:
        if "does not exist" in str(error):
            return f"{who} is not known there, the cluster was started anew; {again}"
        return f"{who} cannot be asked ({one_line(error, 200)})"
    if state == "PENDING":
        return f"{who} waits to be started"
    if state == "RUNNING":
        return f"{who} runs"
    if state != "FAILED":
        return f"{who} {_ENDED.get(state, state.lower())}" + (f"; {again}" if state == "STOPPED" else "")
    last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "it left no word")
    return f"{who} failed: {last} ('ray job logs {job.name} --address http://{job.dashboard}' shows all)"


def _take_token_along() -> None:
    """Let Ray show the token that it keeps on this machine, as ``ray.init`` does; it reads this when it is imported."""
    kept = os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token")
    if "RAY_AUTH_TOKEN" in os.environ or Path(kept).is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
