"""Which meter serves a device: what its profile lists, a command or a recording for any, and none where it is away."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from autoprune.cost.energy_meters import find_energy_meter
from autoprune.cost.meters.interleaved import InterleavedMeter
from autoprune.cost.meters.protocol import RUNTIMES, Meter
from autoprune.cost.meters.recording import RecordingMeter
from autoprune.errors import UsageError
from autoprune.spec.hardware import DeviceProfile
from autoprune.spec.latency import LatencySpec


@dataclass(frozen=True)
class Choice:
    """What measures latency on a device.

    Attributes:
        meter: None where latency is modelled.
        modelled_because: Why, in a sentence; empty where there is a meter.
    """

    meter: Meter | None
    modelled_because: str = ""


def choose_meter(spec: LatencySpec, profile: DeviceProfile) -> Choice:
    """Return what measures latency on a device, or why it is modelled.

    Raises:
        UnknownNameError: No such runtime.
        UsageError: The device is measured by other runtimes, or this machine lacks what the runtime needs.
    """
    entry = RUNTIMES.get(spec.runtime)
    anywhere = getattr(entry, "any_device", False)
    if not anywhere and (away := _away(profile, spec.runtime)):
        return Choice(None, f"latency is modelled: {away}, so it only ranks")
    if not anywhere and spec.runtime not in profile.meters:
        raise UsageError(
            f"device {profile.name!r} is measured by {', '.join(profile.meters)}, not by runtime "
            f"{spec.runtime!r}; set latency.runtime to one of them"
        )
    return Choice(meter_here(spec, profile))


def meter_here(spec: LatencySpec, profile: DeviceProfile) -> Meter:
    """Return what measures a device that is known to be at hand, with what counts energy and what keeps a recording.

    Raises:
        UnknownNameError: No such runtime.
        UsageError: This machine lacks what the runtime or the study's ``latency`` section needs.
    """
    meter = RUNTIMES.get(spec.runtime)(spec)
    if isinstance(meter, InterleavedMeter):
        cores = os.cpu_count() or spec.threads
        if spec.threads > cores:
            raise UsageError(
                f"latency.threads is {spec.threads} and this machine has {cores} cores, so threads would wait for one "
                f"another; set at most {cores}"
            )
        meter.energy = find_energy_meter(spec.energy_meter, "gpu" if profile.gpu else "cpu")
    elif spec.energy_meter not in (None, "none"):
        raise UsageError(
            f"latency.energy_meter is {spec.energy_meter!r} and runtime {spec.runtime} runs networks where no meter of "
            "this machine counts; leave it out"
        )
    return meter if spec.record is None else RecordingMeter(meter, spec)


def meter_for(spec: LatencySpec, profile: DeviceProfile) -> Meter | None:
    """Return the meter of :func:`choose_meter`."""
    return choose_meter(spec, profile).meter


def _away(profile: DeviceProfile, runtime: str) -> str:
    """Return why a device cannot be measured from here, as the rest of a sentence; empty where it can."""
    if not profile.meters:
        return f"{profile.title} is not measured from here"
    if profile.gpu is None:
        return ""
    if not torch.cuda.is_available():
        return f"{profile.title} is not here, for torch sees no GPU"
    found = torch.cuda.get_device_name()
    if found != profile.gpu:
        return f"{profile.title} is not here, and the GPU that is here calls itself {found}"
    if runtime not in profile.meters:
        return f"runtime {runtime} does not measure {profile.title} (latency.runtime: {profile.meters[0]} would)"
    return ""
