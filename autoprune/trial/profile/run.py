"""One profile, from a task and a study to its document."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from autoprune.cost.host import detect
from autoprune.cost.macs import count_macs
from autoprune.cost.meters import rebatch
from autoprune.cost.storage import size_bytes
from autoprune.cost.workload import workload_of
from autoprune.spec.hardware import load_device
from autoprune.spec.profile import Payoff, ProfileRecord, Staircase
from autoprune.spec.study import StudySpec, resolve_study
from autoprune.trial.profile.alone import AloneMeter
from autoprune.trial.profile.bottlenecks import bottlenecks
from autoprune.trial.profile.costs import measure_shares, summarise_device
from autoprune.trial.profile.payoffs import Trials
from autoprune.trial.runner import TrialRunner
from autoprune.trial.task import Task


def profile_study(task: Task, spec: StudySpec, devices: Sequence[str] = (), study: str = "study.yaml") -> ProfileRecord:
    """Profile the dense network of a task on a study's device.

    Args:
        task: Its model is copied.
        spec: The study: device, runtime, batch, and the space whose patterns are tried.
        devices: Further devices, which are modelled.
        study: Path of the study, for the sentence that says what to do next.

    Returns:
        The document; :func:`autoprune.results.profile.write_profile` renders it.

    Raises:
        UsageError: The task, a device or the runtime cannot be used.
        MeterError: The device gave no usable number.
    """
    spec = resolve_study(spec)
    others = [(name, detect(load_device(name))) for name in devices]
    runner = TrialRunner(task, spec)
    model, graph = runner.model, runner.graph
    inputs = rebatch(task.args, task.kwargs, spec.latency.batch)
    workload = workload_of(model, inputs.args, inputs.kwargs)
    macs = count_macs(model, inputs.args, inputs.kwargs)
    space = spec.space
    assert not isinstance(space, str)
    prunable = [name for name, layer in graph.layers.items() if space.resolve(name, layer.type_name) is not None]
    notes = [graph.untraced] if graph.untraced else []
    meter = AloneMeter(spec.latency) if runner.meter is not None else None
    measured = measure_shares(model, inputs, workload, meter) if meter is not None else None
    if measured is not None:
        runner.check_unit(measured.latency_ms)
    if measured is not None and measured.skipped:
        notes.append(f"not measured alone, so part of the rest: {', '.join(measured.skipped)}")
    runtime = spec.latency.runtime
    here = summarise_device(model, workload, prunable, spec.device, runner.profile, runtime, measured)
    trials = Trials(runner, inputs, meter)
    slow = bottlenecks(trials, here)
    return ProfileRecord(
        task=spec.task,
        study=study,
        space=space.name,
        batch=spec.latency.batch,
        macs=macs.total,
        params=sum(parameter.numel() for parameter in model.parameters()),
        size_bytes=size_bytes(model),
        uncounted_ops=dict(macs.uncounted_ops),
        device=here,
        others=tuple(
            summarise_device(model, workload, prunable, name, profile, None, None) for name, profile in others
        ),
        payoffs=_payoffs(trials, slow, prunable),
        staircases=_staircases(trials, slow, spec.latency.half_width),
        notes=tuple(notes),
        runtime=runtime,
        threads=spec.latency.threads,
        dtype=spec.latency.dtype,
        versions={name: version(name) for name in ("autoprune", "torch", "fvcore", "numpy")},
    )


def _payoffs(trials: Trials, slow: Sequence[str], prunable: Sequence[str]) -> tuple[Payoff, ...]:
    return (*trials.on_network(prunable), *(tried for layer in slow for tried in trials.on_layer(layer)))


def _staircases(trials: Trials, slow: Sequence[str], half_width: float) -> tuple[Staircase, ...]:
    found = (trials.staircase(layer, half_width) for layer in slow)
    return tuple(stairs for stairs in found if stairs is not None and len(stairs.points) > 1)
