"""Where trials run, as ``study.yaml`` says it: ``executor: local`` or ``executor: {ray: auto}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, field_validator

from autoprune.spec.amounts import duration_s, size_in_bytes
from autoprune.spec.document import Document

TARGET = "autoprune_target:"
"""Prefix of the custom resource that a node with a target device offers."""

LOCAL = "local"
RAY = "ray"


class RuntimeEnvSpec(Document):
    """What workers need beside what their node has; handed to Ray as its ``runtime_env``.

    Attributes:
        working_dir: Folder that is sent to every node and is the working directory there.
        pip: Packages that are installed there first.
        env_vars: Variables of the environment.
    """

    working_dir: str | None = None
    pip: tuple[str, ...] = ()
    env_vars: dict[str, str] = Field(default_factory=dict)


class TargetSpec(Document):
    """Where a further device of a study is measured.

    Attributes:
        target: Its node offers the custom resource ``autoprune_target:NAME``.
        runtime: What executes networks there, in the place of ``latency.runtime``.
        threads: CPU threads of the runtime, in the place of ``latency.threads``.
    """

    target: str
    runtime: str | None = None
    threads: Annotated[int, Field(ge=1)] | None = None


class RaySpec(Document):
    """How trials run on a Ray cluster.

    Attributes:
        address: Of the cluster: "auto" (the one that this machine belongs to), "HOST:PORT", or "local", which starts
            Ray on this machine for the time of the search.
        workers: Trials at once; left out: as many as the nodes take.
        cpus: CPU cores of one trial; its threads follow from them.
        gpus: GPUs of one trial; a fraction shares one.
        resources: Custom resources of one trial.
        memory: What one trial may allocate beside what its worker holds at the start ("4GB").
        retries: How often a trial is started again after its worker, node or meter was lost.
        timeout: Wall time of one trial after which it is stopped and counts as failed ("10m").
        target: Name of the target device: latency is measured on the node that offers the custom resource
            ``autoprune_target:NAME``. Left out: on the machine of the search, where the device's profile has a meter.
        targets: Further devices of the study (as under ``devices``) to the targets that measure them: every trial is
            measured on each, and has a front there. A name, or a mapping of :class:`TargetSpec`.
        wait: How long to wait for nodes that offer what is asked, as an autoscaler starts them.
        runtime_env: What workers need beside what their node has.
    """

    address: str = "auto"
    workers: Annotated[int, Field(ge=1)] | None = None
    cpus: Annotated[float, Field(gt=0)] = 1.0
    gpus: Annotated[float, Field(ge=0)] = 0.0
    resources: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    memory: str | None = None
    retries: Annotated[int, Field(ge=0)] = 2
    timeout: str | None = None
    target: str | None = None
    targets: dict[str, str | TargetSpec] = Field(default_factory=dict)
    wait: str = "15s"
    runtime_env: RuntimeEnvSpec = RuntimeEnvSpec()

    @field_validator("timeout", "wait")
    @classmethod
    def _duration(cls, value: str | None) -> str | None:
        if value is not None:
            duration_s(value)
        return value

    @field_validator("memory")
    @classmethod
    def _size(cls, value: str | None) -> str | None:
        if value is not None:
            size_in_bytes(value)
        return value

    @property
    def further(self) -> dict[str, TargetSpec]:
        """The further devices that are measured."""
        return {
            device: TargetSpec(target=found) if isinstance(found, str) else found
            for device, found in self.targets.items()
        }

    @property
    def threads(self) -> int:
        """CPU threads that a worker computes with: never more than the cores it was given."""
        return max(1, int(self.cpus))

    @property
    def timeout_s(self) -> float | None:
        """The timeout in seconds."""
        return None if self.timeout is None else duration_s(self.timeout)

    @property
    def wait_s(self) -> float:
        """The time to wait for nodes, in seconds."""
        return duration_s(self.wait)

    @property
    def memory_bytes(self) -> int | None:
        """The memory limit in bytes."""
        return None if self.memory is None else size_in_bytes(self.memory)


class OnRay(Document):
    """``executor: {ray: ...}``: an address, or a mapping of :class:`RaySpec`."""

    ray: str | RaySpec


ExecutorSpec = str | OnRay
"""A registry key, or Ray with options."""


def executor_key(executor: ExecutorSpec) -> str:
    """Return the registry key of an executor."""
    return executor if isinstance(executor, str) else RAY


def ray_options(executor: ExecutorSpec) -> RaySpec:
    """Return the options of Ray; the defaults where the study names Ray alone or another executor."""
    if not isinstance(executor, OnRay):
        return RaySpec()
    return RaySpec(address=executor.ray) if isinstance(executor.ray, str) else executor.ray


def on_ray(executor: ExecutorSpec, changes: Mapping[str, Any]) -> OnRay:
    """Return Ray with the options of the study and some of them changed."""
    return OnRay(ray=ray_options(executor).model_copy(update=dict(changes)))
