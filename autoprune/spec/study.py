"""``study.yaml``: the task, the device, the space, what is minimised and within which bounds."""

from __future__ import annotations

import math
import os
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from autoprune.errors import SpecError, UnknownNameError
from autoprune.spec import library
from autoprune.spec.amounts import duration_s
from autoprune.spec.config import RecoverySpec
from autoprune.spec.document import Document, load_document
from autoprune.spec.executor import LOCAL, ExecutorSpec, on_ray, ray_options
from autoprune.spec.latency import LatencySpec
from autoprune.spec.objectives import Bound, check_objectives, parse_bound
from autoprune.spec.space import Names, Precisions, SpaceSpec

__all__ = ["LatencySpec", "SearchSpec", "StudySpec", "load_study", "resolve_study"]


class RungSpec(Document):
    """A cheaper try that comes before a trial is scored whole.

    Attributes:
        samples: Validation samples, by ``Task.evaluate_sample``; left out: all, by ``Task.evaluate``.
        finetune_steps: Optimiser steps of recovery, in the place of the study's own.
    """

    samples: Annotated[int, Field(ge=1)] | None = None
    finetune_steps: Annotated[int, Field(ge=0)] = 0

    @property
    def name(self) -> str:
        """In words: "200 samples", "50 steps on 200 samples", "all samples"."""
        samples = "all samples" if self.samples is None else f"{self.samples} samples"
        return f"{self.finetune_steps} steps on {samples}" if self.finetune_steps else samples


LAST_RUNG = "full"
"""Name of the last rung: the study's own recovery, scored on all validation data."""


class SearchSpec(Document):
    """How the space is searched.

    Attributes:
        sampler: Registry key.
        trials: Finished trials wanted, the dense model and the uniform ladder included.
        seed: Seed of the sampler, of the ``random`` criterion and of recovery.
        timeout: Wall time after which no trial is started ("90s", "30m", "2h").
        probe: Whether single choices are tried before the first trial, on a small batch: they tell ``greybox`` what to
            expect, give other samplers first trials spread over the front, and criteria that are clearly worse on a
            layer leave the space. Left out: with ``greybox``, where the task has batches and a loss.
        budget: Trial time after which no trial is started: the seconds that trials took are added up, over all workers
            and over earlier runs of the command.
        patience: Trials without a gain in hypervolume after which no trial is started; counted from the first gain on.
        warm_start: Run directories of earlier studies of the same architecture (another device, checkpoint or space):
            their best configs are tried first, and samplers may learn from all of their trials.
        rungs: Cheaper tries, each dearer than the one before; a trial climbs to the next one unless it is clearly
            worse, and is scored whole at the end. Left out: each trial is scored whole.
    """

    sampler: str = "tpe"
    trials: Annotated[int, Field(ge=1)] = 60
    seed: Annotated[int, Field(ge=0)] = 0
    timeout: str | None = None
    # No default but None below: a study of an older version stays the same study.
    probe: bool | None = None
    budget: str | None = None
    patience: Annotated[int, Field(ge=1)] | None = None
    warm_start: Annotated[Names, Field(min_length=1)] | None = None
    rungs: Annotated[tuple[RungSpec, ...], Field(min_length=1)] | None = None

    @field_validator("timeout", "budget")
    @classmethod
    def _duration(cls, value: str | None) -> str | None:
        if value is not None:
            duration_s(value)
        return value

    @property
    def timeout_s(self) -> float | None:
        """The timeout in seconds."""
        return None if self.timeout is None else duration_s(self.timeout)

    @property
    def budget_s(self) -> float | None:
        """The budget in seconds."""
        return None if self.budget is None else duration_s(self.budget)


class StudySpec(Document):
    """One study, whole.

    Attributes:
        task: ``package.module:function`` or ``path/to/file.py:function``.
        device: Name in ``hw_models/`` or a path.
        devices: Further devices, names or paths: every trial is costed there too, by the models, or measured where
            ``executor.ray.targets`` names a target for the device.
        space: Name in ``search_spaces/``, a path, or the space itself.
        precision: In the place of the space's: ``[fp32, int8]`` lets every trial choose.
        objectives: Metrics to minimise together.
        constraints: Bounds on metrics and on the score: a number, or a percentage of dense (``latency_ms: 60%``,
            ``accuracy: at least 0.9``). Metrics are bounded from above, the score on its bad side.
        search: How the space is searched.
        recovery: What happens between pruning and scoring.
        latency: How latency is measured.
        storage: Any Optuna storage URL; left out: ``study.db`` in the run directory.
        executor: Where trials run.
    """

    schema_: Literal["autoprune/study/1"] = Field("autoprune/study/1", alias="schema")
    task: str
    device: str = "local-cpu"
    devices: tuple[str, ...] | None = None
    space: str | SpaceSpec
    precision: Precisions | None = None
    objectives: tuple[str, ...] = ("accuracy_drop", "macs", "latency_ms", "energy_mj")
    constraints: dict[str, float | str] = Field(default_factory=dict)
    search: SearchSpec = SearchSpec()
    recovery: RecoverySpec = RecoverySpec()
    latency: LatencySpec = LatencySpec()
    storage: str | None = None
    executor: ExecutorSpec = LOCAL

    @field_validator("objectives")
    @classmethod
    def _objectives(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return check_objectives(value)

    @field_validator("devices")
    @classmethod
    def _devices(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and len(set(value)) != len(value):
            raise ValueError("a device stands twice; name each once")
        return value or None

    @field_validator("constraints")
    @classmethod
    def _bounds(cls, value: dict[str, float | str]) -> dict[str, float | str]:
        bounded = [parse_bound(metric, text).metric for metric, text in value.items()]
        if len(set(bounded)) < len(bounded):
            raise ValueError("accuracy is the score, which is bounded twice; keep one of the two")
        return value

    @field_validator("task")
    @classmethod
    def _reference(cls, value: str) -> str:
        if not all(value.rpartition(":")[::2]):
            raise ValueError("a task is package.module:function or path/to/file.py:function")
        return value

    @model_validator(mode="after")
    def _targets_are_devices(self) -> StudySpec:
        for name in ray_options(self.executor).targets:
            if name not in (self.devices or ()):
                told = f"devices ({', '.join(self.devices or ()) or 'none'})"
                raise ValueError(
                    f"executor.ray.targets names {name!r}, which is not among {told}; name it there too, or take it "
                    "out (the study's own device is measured on executor.ray.target)"
                )
        return self

    @model_validator(mode="after")
    def _rungs_ascend(self) -> StudySpec:
        last = RungSpec(finetune_steps=self.recovery.finetune_steps)
        for rung, above in pairwise((*(self.search.rungs or ()), last)):
            lower, upper = ((r.finetune_steps, math.inf if r.samples is None else r.samples) for r in (rung, above))
            if lower == upper or lower[0] > upper[0] or lower[1] > upper[1]:
                final = " (the last one, recovery.finetune_steps and all samples)" if above is last else ""
                raise ValueError(
                    f"search.rungs must get dearer: {rung.name!r} comes before {above.name!r}{final}; "
                    "give each rung more samples or more finetune_steps than the one before, and none fewer"
                )
        return self

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The constraints, parsed."""
        return tuple(parse_bound(metric, text) for metric, text in self.constraints.items())

    def identity(self) -> dict[str, Any]:
        """Return what makes two runs the same study: all but how long it is searched, where, and what is recorded."""
        data = self.to_data()
        data["executor"] = LOCAL  # what the studies say that were written when there was no other
        for key in ("trials", "timeout", "budget", "patience"):
            data["search"].pop(key, None)
        data["latency"].pop("record", None)
        data["latency"].pop("again", None)
        return data


def load_study(path: Path | str) -> StudySpec:
    """Read ``study.yaml`` and resolve it: the space stands inside, file references hold from the working directory.

    Raises:
        SpecError: Names the file, the key, the value found and what is allowed.
        UnknownNameError: No such device or space.
    """
    path = Path(path)
    return resolve_study(load_document(StudySpec, path), path)


def resolve_study(spec: StudySpec, path: Path | None = None) -> StudySpec:
    """Return a study in which the space stands inside and file references hold from the working directory.

    The precisions of the study have then replaced those of the space.

    Args:
        spec: As it was written or built.
        path: The file it was written in: references are tried from its folder first, and messages name it.

    Raises:
        SpecError: A file that it names does not exist or breaks its schema.
        UnknownNameError: No such device or space.
    """
    update: dict[str, Any] = {}
    if isinstance(spec.space, str):
        update["space"] = load_document(SpaceSpec, _found(path, "space", "search_spaces", spec.space))
    if spec.precision is not None:
        space = update.get("space", spec.space)
        update |= {"space": space.model_copy(update={"precision": spec.precision}), "precision": None}
    update["device"] = _device(path, "device", spec.device)
    if spec.devices is not None:
        found = {name: _device(path, "devices", name) for name in spec.devices}
        update["devices"] = tuple(found.values())
        targets = ray_options(spec.executor).targets
        if targets:
            moved = {found[name]: target for name, target in targets.items()}
            update["executor"] = on_ray(spec.executor, {"targets": moved})
        if update["device"] in update["devices"]:
            where = f"{path}: " if path is not None else ""
            raise SpecError(f"{where}key 'devices' names {spec.device!r}, which is the device itself; take it out")
    file, _, function = spec.task.rpartition(":")
    if path is not None and file.endswith(".py") and not Path(file).is_file() and (path.parent / file).is_file():
        update["task"] = f"{os.path.normpath(path.parent / file)}:{function}"
    recording = spec.latency.recording
    if path is not None and recording is not None and not Path(recording).is_file():
        beside = os.path.normpath(path.parent / recording)
        update["latency"] = spec.latency.model_copy(update={"recording": beside})
    return spec.model_copy(update=update)


_KIND = {"hw_models": "device", "search_spaces": "space"}
"""What the documents of a data folder are, in a message."""


def _device(path: Path | None, key: str, name: str) -> str:
    found = _found(path, key, "hw_models", name)
    return str(found) if name.endswith((".yaml", ".yml")) else name


def _found(path: Path | None, key: str, folder: str, name: str) -> Path:
    try:
        return library.find(_KIND[folder], folder, name, path.parent if path is not None else None)
    except (UnknownNameError, SpecError) as error:
        where = f"{path}: " if path is not None else ""
        raise type(error)(f"{where}key {key!r}: {error}") from error
