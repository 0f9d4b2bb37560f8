"""The dense network on one device, module by module: by the models, and by measurement where the device is at hand."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from torch import nn

from autoprune.cost.energy import estimate_energy
from autoprune.cost.meters import ModelInputs
from autoprune.cost.roofline import LatencyPrediction, latency_interval, predict_latency
from autoprune.cost.traffic import Traffic, traffic_of
from autoprune.cost.workload import Workload
from autoprune.spec.hardware import DeviceProfile
from autoprune.spec.profile import Bound, DeviceSummary, LayerCosts, LayerShare, Ratio
from autoprune.trial.profile.alone import AloneMeter, modules_alone, record_inputs, signature


@dataclass(frozen=True)
class MeasuredShares:
    """Modules of a network measured alone.

    Attributes:
        latency_ms: Of the whole network, median over all measurements.
        meter: What measured.
        shares: Module name to its share of the whole.
        like: Module name to the module that was measured in its place.
        skipped: Modules that cannot be measured alone.
    """

    latency_ms: float
    meter: str
    shares: Mapping[str, Ratio]
    like: Mapping[str, str]
    skipped: tuple[str, ...]


def measure_shares(model: nn.Module, inputs: ModelInputs, workload: Workload, meter: AloneMeter) -> MeasuredShares:
    """Measure each module that can run alone against the whole network, interleaved.

    Torch's own modules of the same shapes are measured once. A module that runs several times counts each run.

    Raises:
        MeterError: The runtime gave no usable number.
    """
    whole = meter.measure(model, inputs, model, inputs)
    names = modules_alone(workload)
    calls = record_inputs(model, inputs, names)
    modules = dict(model.named_modules())
    first: dict[str, str] = {}
    shares: dict[str, Ratio] = {}
    like: dict[str, str] = {}
    skipped: list[str] = []
    times = [whole.dense_ms] if whole is not None else []
    description = whole.meter if whole is not None else ""
    for name in names:
        key = signature(modules[name], calls[name])
        if key is not None and key in first:
            like[name], shares[name] = first[key], shares[first[key]]
            continue
        parts = [meter.measure(model, inputs, modules[name], call) for call in calls[name]]
        if any(part is None for part in parts) or not parts:
            skipped.append(name)
            continue
        found = [part for part in parts if part is not None]
        times += [part.dense_ms for part in found]
        description = description or found[0].meter
        shares[name] = Ratio(
            value=sum(part.ratio for part in found),
            low=sum(part.low for part in found),
            high=sum(part.high for part in found),
        )
        if key is not None:
            first[key] = name
    return MeasuredShares(sorted(times)[len(times) // 2], description, shares, like, tuple(skipped))


def summarise_device(
    model: nn.Module,
    workload: Workload,
    prunable: Collection[str],
    asked: str,
    profile: DeviceProfile,
    runtime: str | None,
    measured: MeasuredShares | None,
) -> DeviceSummary:
    """Put together what is known of each module on one device.

    Args:
        model: Dense.
        workload: Its operators.
        prunable: Names of modules that the space speaks of.
        asked: Key or path of the device.
        profile: The device.
        runtime: Only its entries of ``sparse_support`` count.
        measured: What was measured there; None where everything is modelled.
    """
    traffic = traffic_of(workload, profile, runtime)
    predicted = predict_latency(workload, traffic, profile)
    quick, slow = latency_interval(workload, traffic, profile)
    latency_ms = measured.latency_ms if measured is not None else 1e3 * predicted.seconds
    known = sum(ratio.value for ratio in measured.shares.values()) if measured is not None else 0.0
    scale = latency_ms / max(known, 1.0)
    energy = estimate_energy(workload, traffic, profile, latency_ms * 1e-3)
    layers = tuple(
        _layer(model, name, workload, traffic, predicted, name in prunable, profile, measured, scale)
        for name in dict.fromkeys(op.module for op in workload.ops)
    )
    steps = {str(dtype): step.c_out for dtype, step in profile.compute.channel_step.items()}
    return DeviceSummary(
        device=asked,
        title=profile.title,
        meter=measured.meter if measured is not None else predicted.meter,
        measured=measured is not None,
        latency_ms=latency_ms,
        modelled_ms=1e3 * predicted.seconds,
        modelled_low_ms=1e3 * quick,
        modelled_high_ms=1e3 * slow,
        rest_ms=max(0.0, latency_ms - known * scale) if measured is not None else 0.0,
        energy_mj=1e3 * energy.total_j,
        energy_low_mj=1e3 * energy.low_j,
        energy_high_mj=1e3 * energy.high_j,
        energy_basis=energy.basis,
        dram_bytes=traffic.dram_bytes,
        peak_macs_per_s=profile.peak(workload.dtype).value * profile.compute.utilisation.value,
        bandwidth=profile.dram.sustained_bandwidth,
        channel_step=steps.get(workload.dtype, 1),
        layers=layers,
    )


def _layer(
    model: nn.Module,
    name: str,
    workload: Workload,
    traffic: Traffic,
    predicted: LatencyPrediction,
    prunable: bool,
    profile: DeviceProfile,
    measured: MeasuredShares | None,
    scale_ms: float,
) -> LayerCosts:
    places = [place for place, op in enumerate(workload.ops) if op.module == name]
    ops = [workload.ops[place] for place in places]
    moved = [traffic.ops[place] for place in places]
    times = [predicted.ops[place] for place in places]
    module = model.get_submodule(name)
    share = measured.shares.get(name) if measured is not None else None
    alone = None
    if share is not None and measured is not None:
        alone = LayerShare(share=share, ms=share.value * scale_ms, like=measured.like.get(name))
    modelled_s = sum(time.seconds for time in times)
    part = replace(
        traffic,
        ops=tuple(moved),
        level_bytes=tuple(sum(op.level_bytes[level] for op in moved) for level in range(len(traffic.level_bytes))),
    )
    seconds = alone.ms * 1e-3 if alone is not None else modelled_s
    energy = estimate_energy(replace(workload, ops=tuple(ops)), part, profile, seconds).total_j if seconds else 0.0
    sums: dict[Bound, float] = {
        "launch": sum(time.launch_s for time in times),
        "compute": sum(time.compute_s for time in times),
        "memory": sum(time.memory_s for time in times),
    }
    return LayerCosts(
        name=name,
        type_name=type(module).__name__,
        prunable=prunable,
        calls=len(ops),
        macs=sum(op.macs for op in ops),
        params=sum(
            parameter.numel() for parameter in module.parameters(recurse=not _has_running_parts(name, workload))
        ),
        weight_bytes=sum(op.weight_bytes for op in ops),
        activation_bytes=sum(op.input_bytes + op.output_bytes for op in ops),
        dram_bytes=sum(op.dram_bytes for op in moved),
        measured=alone,
        modelled_ms=1e3 * modelled_s,
        launch_ms=1e3 * sums["launch"],
        compute_ms=1e3 * sums["compute"],
        memory_ms=1e3 * sums["memory"],
        bound=max(sums, key=sums.__getitem__) if any(sums.values()) else "fused",
        energy_mj=1e3 * energy,
    )


def _has_running_parts(name: str, workload: Workload) -> bool:
    prefix = f"{name}." if name else ""
    return any(op.module.startswith(prefix) and op.module != name for op in workload.ops)
