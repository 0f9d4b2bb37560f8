"""RAPL: the energy counters of Intel and AMD processors, as Linux shows them under /sys/class/powercap.

Each zone has ``energy_uj``, which counts microjoules up to ``max_energy_range_uj`` and starts again at zero: at 200 W
within five minutes on a common processor (kernel.org, Documentation/power/powercap). Reading it needs root since 2020
(CVE-2020-8694).
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from autoprune.errors import MeterError, UsageError

ZONES = Path("/sys/class/powercap")


@dataclass
class _Counter:
    """One zone: microjoules read so far, whatever wrapped meanwhile."""

    path: Path
    name: str
    range_uj: int
    last_uj: int
    total_uj: int = 0

    def read(self) -> int:
        now = _number(self.path / "energy_uj")
        # A counter that went back wrapped once: it is read far more often than it wraps.
        self.total_uj += now - self.last_uj if now >= self.last_uj else now + self.range_uj + 1 - self.last_uj
        self.last_uj = now
        return self.total_uj


class RaplMeter:
    """RAPL counters of the processor's packages and their memory, by Linux's powercap files.

    Raises:
        UsageError: There are none, or they may not be read.
    """

    covers: ClassVar[str] = "cpu"
    window_s: ClassVar[float] = 0.5  # the counters are updated every millisecond

    def __init__(self, zones: Path | None = None) -> None:
        if lacking := self.missing(zones):
            raise UsageError(lacking)
        self._counters = [
            _Counter(zone, name, _number(zone / "max_energy_range_uj"), _number(zone / "energy_uj"))
            for zone, name in _counted(zones or ZONES)
        ]

    @classmethod
    def missing(cls, zones: Path | None = None) -> str:
        """Return why no counter can be read, and what to do."""
        zones = zones or ZONES
        found = _counted(zones) if zones.is_dir() else []
        if not found:
            where = (
                f"{platform.system() or 'this system'} has no {zones}" if not zones.is_dir() else f"{zones} is empty"
            )
            return (
                f"energy meter 'rapl': {where}, so this processor's energy counters cannot be read (virtual machines "
                "rarely have them); run on the bare machine under Linux, or leave energy to the model"
            )
        for zone, name in found:
            try:
                _number(zone / "energy_uj")
            except MeterError:
                if os.access(zone / "energy_uj", os.R_OK):
                    return f"energy meter 'rapl': {zone}/energy_uj ({name}) gives no number; leave energy to the model"
                return (
                    f"energy meter 'rapl': {zone}/energy_uj ({name}) may not be read by this user; allow it with 'sudo "
                    f"chmod o+r {zones}/*/energy_uj', which lasts until the next start, or run as root"
                )
        return ""

    @property
    def name(self) -> str:
        """The zones that are counted."""
        return f"RAPL {', '.join(counter.name for counter in self._counters)}"

    def read_j(self) -> float:
        """Return the joules of all zones since this was built.

        Raises:
            MeterError: A counter can no longer be read.
        """
        return sum(counter.read() for counter in self._counters) * 1e-6


def _counted(zones: Path) -> list[tuple[Path, str]]:
    """Return the zones to add up: every package, and the memory of each; ``psys``, which holds both, only alone.

    Zones are folders "intel-rapl:0" (a package) and "intel-rapl:0:0" (a part of it), side by side here; AMD's have the
    same names. The "intel-rapl-mmio" ones show the same counters once more.
    """
    named = [
        (zone, name)
        for zone in sorted(zones.glob("intel-rapl:*"))
        if (zone / "energy_uj").exists() and (name := _text(zone / "name"))
    ]
    packages = [(zone, name) for zone, name in named if name.startswith("package")]
    memory = [(zone, name) for zone, name in named if name == "dram"]
    return packages + memory if packages else [(zone, name) for zone, name in named if name == "psys"]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise MeterError(
            f"the energy counter {path} can no longer be read ({error}); set latency.energy_meter: none"
        ) from error
