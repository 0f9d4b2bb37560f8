"""Energy meters: counters of what a device draws. Measured energy stands beside the model, never in its place."""

from __future__ import annotations

from autoprune.cost.energy_meters.nvml import NvmlMeter
from autoprune.cost.energy_meters.protocol import ENERGY_METERS, EnergyMeter, find_energy_meter
from autoprune.cost.energy_meters.rapl import RaplMeter
from autoprune.cost.energy_meters.windows import Window, measure_idle, measure_pair_energy, measure_window

__all__ = [
    "ENERGY_METERS",
    "EnergyMeter",
    "NvmlMeter",
    "RaplMeter",
    "Window",
    "find_energy_meter",
    "measure_idle",
    "measure_pair_energy",
    "measure_window",
]

ENERGY_METERS.add("rapl", RaplMeter)
ENERGY_METERS.add("nvml", NvmlMeter)
