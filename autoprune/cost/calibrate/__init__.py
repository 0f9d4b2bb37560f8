"""Calibration: measure this machine, fit the roofline's rates to it, and write a profile with its known error."""

from autoprune.cost.calibrate.energy import EnergyFit, EnergySamples, fit_energy, measure_energy
from autoprune.cost.calibrate.fitting import Fit, KindFit, Samples, fit_roofline
from autoprune.cost.calibrate.measuring import Measured, measure
from autoprune.cost.calibrate.writing import Calibrated, calibrate, calibrated_profile, default_path, why_no_energy

__all__ = [
    "Calibrated",
    "EnergyFit",
    "EnergySamples",
    "Fit",
    "KindFit",
    "Measured",
    "Samples",
    "calibrate",
    "calibrated_profile",
    "default_path",
    "fit_energy",
    "fit_roofline",
    "measure",
    "measure_energy",
    "why_no_energy",
]
