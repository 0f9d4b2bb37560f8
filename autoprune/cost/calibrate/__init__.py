"""Calibration: measure this machine, fit the roofline's rates to it, and write a profile with its known error."""

from autoprune.cost.calibrate.fitting import Fit, Samples, fit_roofline
from autoprune.cost.calibrate.measuring import Measured, measure
from autoprune.cost.calibrate.writing import calibrate, calibrated_profile, default_path

__all__ = ["Fit", "Measured", "Samples", "calibrate", "calibrated_profile", "default_path", "fit_roofline", "measure"]
