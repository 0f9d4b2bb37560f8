"""A powercap tree as Linux shows it: zones are links to folders side by side, counters in microjoules that wrap."""

from __future__ import annotations

from pathlib import Path


class Powercap:
    """Zones whose counters move when :meth:`draw` says so.

    Args:
        folder: Stands for /sys/class/powercap.
        zones: Folder of a zone to (name, start of its counter, range of it), microjoules.
    """

    def __init__(self, folder: Path, zones: dict[str, tuple[str, int, int]]) -> None:
        devices = folder / "devices" / "virtual"
        self.folder = folder / "powercap"
        self.folder.mkdir()
        self._zones = zones
        self._at = {zone: start for zone, (_, start, _) in zones.items()}
        for control in ("intel-rapl", "intel-rapl-mmio"):  # the control types, which have no counter
            (self.folder / control).mkdir()
        for zone, (name, _, most) in zones.items():
            real = devices / zone
            real.mkdir(parents=True)
            (real / "name").write_text(f"{name}\n")
            (real / "max_energy_range_uj").write_text(f"{most}\n")
            (self.folder / zone).symlink_to(real)
        self.draw(0.0)

    def draw(self, joules: float) -> None:
        """Count so many joules in every zone."""
        for zone, (_, _, most) in self._zones.items():
            self._at[zone] = (self._at[zone] + round(joules * 1e6)) % (most + 1)
            (self.folder / zone / "energy_uj").write_text(f"{self._at[zone]}\n")


LAPTOP = {
    "intel-rapl:0": ("package-0", 5_000_000, 262_143_328_850),
    "intel-rapl:0:0": ("core", 4_000_000, 262_143_328_850),
    "intel-rapl:0:1": ("uncore", 0, 262_143_328_850),
    "intel-rapl:1": ("psys", 9_000_000, 262_143_328_850),
    "intel-rapl-mmio:0": ("package-0", 5_000_000, 262_143_328_850),
}
SERVER = {
    "intel-rapl:0": ("package-0", 65_532_000_000, 65_532_610_987),
    "intel-rapl:0:0": ("dram", 1, 65_712_999_613),
    "intel-rapl:1": ("package-1", 0, 65_532_610_987),
    "intel-rapl:1:0": ("dram", 65_712_999_000, 65_712_999_613),
}
