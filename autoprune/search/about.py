"""What a study is: what makes two runs the same one, and what holds for all of its trials."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from autoprune.cost.host import machine_title
from autoprune.search.survey import Surveyed
from autoprune.spec.front import DROP
from autoprune.spec.objectives import SCORE
from autoprune.spec.record import GroupRecord, StudyRecord, TrialRecord
from autoprune.spec.space import SpaceSpec
from autoprune.spec.study import StudySpec
from autoprune.trial.runner import RUNS_INT8, TrialRunner, runs_int8


def identity(spec: StudySpec, runner: TrialRunner) -> dict[str, Any]:
    """Return what makes two runs the same study: what is asked, of which network, with which weights."""
    facts = {
        **spec.identity(),
        "fingerprint": runner.graph.fingerprint,
        "checkpoint": checkpoint_hash(runner.model),
    }
    return dict(json.loads(json.dumps(facts)))


def checkpoint_hash(model: nn.Module) -> str:
    """Return a short hash of a model's weights, from at most about a thousand entries of each tensor."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        if isinstance(value, torch.Tensor):
            flat = value.detach().reshape(-1)
            sample = flat[:: max(1, flat.numel() // 1000)].cpu().contiguous()
            digest.update(name.encode() + bytes(sample.view(torch.uint8).numpy()))
    return digest.hexdigest()[:16]


def bound_notes(spec: StudySpec, runner: TrialRunner, dense: TrialRecord) -> tuple[str, ...]:
    """Return what a user should know of bounds on the score: what a percentage comes to, and a bound above dense."""
    notes = []
    for bound, limit in zip(spec.bounds, runner.limits(dense), strict=True):
        if bound.metric != SCORE:
            continue
        score = dense.score or 0.0
        if bound.relative:
            notes.append(f"the constraint on the score comes to {limit} ({bound.value:.4g} of the dense {score:.4g})")
        if limit.excess(score) > 0:
            notes.append(
                f"the dense model itself does not meet the constraint {limit}: it has {score:.4g}, so only a pruned "
                "one that gains can"
            )
    return tuple(notes)


def about_study(
    spec: StudySpec, runner: TrialRunner, dense: TrialRecord, surveyed: Surveyed, warnings: Sequence[str] = ()
) -> StudyRecord:
    """Return what holds for a whole study, once its dense model was measured.

    Args:
        spec: The study, as it may be shown.
        runner: What runs its trials.
        dense: Record of the dense model: it fixes the hypervolume's reference point.
        surveyed: What was found out before the first trial.
        warnings: What the dense model showed.
    """
    graph = runner.graph
    pinned: dict[str, list[str]] = {}
    for pin in graph.pinned:
        pinned.setdefault(pin.reason, []).append(pin.layer)
    limits = {limit.metric: limit for limit in runner.limits(dense)}
    score = dense.score or 0.0
    drops = [limits[DROP].value] if DROP in limits else []
    drops += [abs(score - limits[SCORE].value)] if SCORE in limits and limits[SCORE].excess(score) <= 0 else []
    reference = {
        name: min(drops, default=abs(score)) if name == DROP else dense.values[name] for name in spec.objectives
    }
    said = [
        str(runner.proof),
        *([graph.untraced] if graph.untraced else []),
        *surveyed.narrowed.proposals.notes,
        *surveyed.narrowed.notes,
        *warnings,
    ]
    if graph.stages:
        blocks = [block.name for stage in graph.stages.values() for block in stage.blocks]
        said.append(f"residual blocks that the identity may replace (granularity depth): {', '.join(blocks)}")
    if dense.latency is None or not dense.latency.pairs:
        title = runner.profile.title
        said.append(
            runner.modelled_because or f"latency is modelled: {title} is not measured from here, so it only ranks"
        )
    said += _said_of_int8(spec, runner)
    measured = [name for name, values in (dense.devices or {}).items() if values.measured]
    modelled = [name for name in runner.devices if name not in measured]
    if measured:
        said.append(
            f"latency on {', '.join(measured)} is measured there too; energy there is modelled, so it only ranks"
        )
    if modelled:
        said.append(f"latency and energy on {', '.join(modelled)} are modelled, so they only rank")
    return StudyRecord(
        spec=spec,
        device_title=runner.profile.title,
        fingerprint=graph.fingerprint,
        dense_score=score,
        higher_is_better=runner.task.higher_is_better,
        groups={name: GroupRecord(layers=group.layers, units=group.units) for name, group in graph.groups.items()},
        pinned={reason: tuple(dict.fromkeys(layers)) for reason, layers in pinned.items()},
        reference=reference,
        versions={name: version(name) for name in ("autoprune", "torch", "optuna", "fvcore", "numpy")},
        machine=f"{machine_title()}, {platform.system()} {platform.release()}, Python {platform.python_version()}",
        notes=tuple(said),
        devices={name: profile.title for name, profile in runner.devices.items()} or None,
        dense=surveyed.survey.dense,
        payoffs=surveyed.survey.payoffs or None,
        staircases=surveyed.survey.staircases or None,
        dropped=surveyed.narrowed.dropped or None,
        predictor=surveyed.forecast.record(),
    )


def _said_of_int8(spec: StudySpec, runner: TrialRunner) -> list[str]:
    if not (isinstance(spec.space, SpaceSpec) and "int8" in spec.space.precision):
        return []
    said = []
    if runner.meter is not None and not runs_int8(spec.latency):
        said.append(
            f"latency of int8 networks is modelled, for runtime {spec.latency.runtime} does not run them: it ranks "
            f"(latency.runtime {RUNS_INT8[0]} measures it)"
        )
    for name, profile in {spec.device: runner.profile, **runner.devices}.items():
        if "int8" not in profile.compute.peak_macs_per_s:
            said.append(
                f"the profile of {name} has no figures for int8: its products count as float32, its bytes do not"
            )
    return said
