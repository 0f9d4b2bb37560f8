"""What the machine at hand is: its processor, its cores, its last-level cache."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path

from autoprune.spec.hardware import DeviceProfile, Figure

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_CPUINFO = Path("/proc/cpuinfo")
_UNITS = {"K": 1024, "M": 1024**2, "G": 1024**3}


def machine_title() -> str:
    """Return the processor, the usable cores and the system, as in "Intel(R) Xeon(R) Processor, 2 cores, Linux"."""
    cores = core_count()
    return f"{_processor()}, {cores} core{'s' * (cores != 1)}, {platform.system() or 'unknown system'}"


def core_count() -> int:
    """Return the cores that this process may use, which in a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def last_level_cache_bytes() -> int | None:
    """Return the bytes of the largest data cache of core 0, or None where the system does not tell (Linux tells)."""
    sizes = []
    for index in _CACHES.glob("index*"):
        try:
            kind, size = ((index / name).read_text().strip() for name in ("type", "size"))
            if kind != "Instruction" and size[-1:] in _UNITS:
                sizes.append(int(size[:-1]) * _UNITS[size[-1]])
        except (OSError, ValueError):
            continue
    return max(sizes, default=None)


def detect(profile: DeviceProfile) -> DeviceProfile:
    """Put what this machine says of itself into a profile that asks for it (``detect: true``).

    Cores, last-level cache and title are replaced; the peaks and the power of idle and full load grow with the cores.
    What cannot be read, or does not fit between the neighbouring memory levels, stays.

    Args:
        profile: Any profile; one without ``detect`` is returned as it is.

    Returns:
        The profile to use; replaced figures have confidence "measured", scaled ones "derived".
    """
    if not profile.detect:
        return profile
    cores = core_count()
    factor = cores / profile.compute.cores.value
    scale = _scaler(factor, f"for {cores} cores")
    compute = profile.compute.model_copy(
        update={
            "cores": Figure(value=cores, source="the cores this process may use", confidence="measured"),
            "peak_macs_per_s": {dtype: scale(peak) for dtype, peak in profile.compute.peak_macs_per_s.items()},
        }
    )
    power = profile.power.model_copy(
        update={"idle_w": scale(profile.power.idle_w), "tdp_w": scale(profile.power.tdp_w)}
    )
    memory = list(profile.memory)
    cache = last_level_cache_bytes()
    last = len(memory) - 2
    below = memory[last - 1].bytes.value if last else 0
    if cache is not None and below <= cache <= memory[-1].bytes.value:
        size = Figure(value=cache, source="/sys/devices/system/cpu/cpu0/cache", confidence="measured")
        memory[last] = memory[last].model_copy(update={"bytes": size})
    return profile.model_copy(
        update={"title": machine_title(), "compute": compute, "power": power, "memory": tuple(memory)}
    )


def _scaler(factor: float, why: str) -> Callable[[Figure], Figure]:
    def scale(figure: Figure) -> Figure:
        ends = None if figure.range is None else (figure.range[0] * factor, figure.range[1] * factor)
        confidence = figure.confidence if figure.confidence == "estimate" else "derived"
        return Figure(value=figure.value * factor, source=f"{figure.source}; {why}", confidence=confidence, range=ends)

    return scale


def _processor() -> str:
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    # x86 says "model name"; the boards say "Model"; most other Arm kernels say neither.
    for key in ("model name", "Model", "Hardware"):
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() == key and value.strip():
                return value.strip()
    return platform.processor() or platform.machine() or "unknown processor"
