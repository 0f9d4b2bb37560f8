"""Which meter serves a device: what its profile lists, and a command for any board."""

from __future__ import annotations

from autoprune.cost.meters.protocol import RUNTIMES, Meter
from autoprune.errors import UsageError
from autoprune.spec.hardware import DeviceProfile
from autoprune.spec.study import LatencySpec


def meter_for(spec: LatencySpec, profile: DeviceProfile) -> Meter | None:
    """Return what measures latency on a device, or None where the device is not at hand and its latency is modelled.

    Raises:
        UnknownNameError: No such runtime.
        UsageError: The device is measured by other runtimes, or this machine lacks what the runtime needs.
    """
    entry = RUNTIMES.get(spec.runtime)
    if not profile.meters:
        return None
    if spec.runtime not in profile.meters:
        raise UsageError(
            f"device {profile.name!r} is measured by {', '.join(profile.meters)}, not by runtime "
            f"{spec.runtime!r}; set latency.runtime to one of them"
        )
    return entry(spec)
