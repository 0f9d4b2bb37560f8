"""From measurements and a fit to a profile that ``device:`` may name."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from autoprune.cost.calibrate.energy import EnergyFit, fit_energy, measure_energy, updated_with
from autoprune.cost.calibrate.fitting import Fit, fit_roofline
from autoprune.cost.calibrate.measuring import Measured, measure
from autoprune.cost.energy_meters import ENERGY_METERS, EnergyMeter, find_energy_meter
from autoprune.cost.host import detect
from autoprune.errors import UsageError
from autoprune.spec.document import parse_document
from autoprune.spec.hardware import (
    Calibration,
    DeviceProfile,
    Dtype,
    EnergyCalibration,
    Figure,
    KindRates,
    LayerKind,
)

_RUNTIME = "torch"
_SHORTEST_LAUNCH_US = 0.05
"""What a profile takes for a time in us; less looks like seconds."""


ENERGY_SHARE = 0.4
"""Of the budget, where an energy meter is at hand."""


@dataclass(frozen=True)
class Calibrated:
    """A calibration.

    Attributes:
        profile: What ``device:`` may name.
        measured: Times.
        fit: Of the latency model.
        energy: Fit of the energy model; None where nothing counts energy here.
    """

    profile: DeviceProfile
    measured: Measured
    fit: Fit
    energy: EnergyFit | None


def calibrate(
    profile: DeviceProfile,
    name: str,
    budget_s: float = 300.0,
    layers: int = 84,
    threads: int = 1,
    seed: int = 0,
    energy_meter: EnergyMeter | None = None,
) -> Calibrated:
    """Measure this machine and fit the profile to it.

    Args:
        profile: Prior; its ranges bound the fit.
        name: Of the new profile.
        budget_s: Wall time of all measurements.
        layers: Random layers of seven kinds, 35 to 200 are sensible.
        threads: Threads of torch; the profile holds for these.
        seed: Of the random layers.
        energy_meter: What counts energy; None: the first that can read here, if any can.

    Raises:
        UsageError: The device is not this machine.
        MeterError: The budget is too small.
    """
    if _RUNTIME not in profile.meters:
        raise UsageError(
            f"device {profile.name!r} cannot be measured from here, its latency is modelled; calibrate 'local-cpu', "
            "or run this command on the device"
        )
    profile = detect(profile)
    meter = energy_meter or find_energy_meter(None, "cpu")
    share = 0.0 if meter is None else ENERGY_SHARE
    measured = measure(profile, (1 - share) * budget_s, layers, threads, seed)
    fit = fit_roofline(measured.samples, *prior_of(profile, measured))
    energy = None
    if meter is not None:
        energy = fit_energy(measure_energy(profile, meter, share * budget_s, threads, seed), profile, meter.name)
    return Calibrated(calibrated_profile(profile, name, measured, fit, energy), measured, fit, energy)


def why_no_energy() -> str:
    """Return why no energy meter of the processor can read here, in sentences."""
    return "; ".join(kind.missing() for _, kind in ENERGY_METERS if kind.covers == "cpu")


def calibrated_profile(
    profile: DeviceProfile, name: str, measured: Measured, fit: Fit, energy: EnergyFit | None = None
) -> DeviceProfile:
    """Return the profile with fitted rates, and fitted energies where they were counted, checked like any other."""
    if energy is not None:
        profile = profile.model_copy(update=updated_with(profile, energy))
    n, threads = len(measured.samples.seconds), measured.threads
    on = f"{threads} thread{'s' * (threads != 1)} of torch"
    fitted = f"fitted to {n} layers, {on}"
    gemm = measured.gemm_macs_per_s
    peaks: dict[Dtype, Figure] = dict(profile.compute.peak_macs_per_s)
    for dtype in profile.compute.peak_macs_per_s:
        if dtype in gemm:
            peaks[dtype] = _measured(gemm[dtype], f"large GEMM, {on}")
    fastest = max(fit.macs_per_s, *(each.macs_per_s or 0.0 for each in fit.kinds.values()), 0.0)
    if fastest > peaks["float32"].value:  # a GEMM that was disturbed, or layers in float32 that no GEMM matches
        peaks["float32"] = _measured(fastest, f"{fitted}; a large GEMM reached {gemm.get('float32', 0):.3g}")
    compute = profile.compute.model_copy(
        update={
            "cores": _measured(threads, "threads that were calibrated"),
            "peak_macs_per_s": peaks,
            "utilisation": _measured(fit.macs_per_s / peaks["float32"].value, fitted),
        }
    )
    memory = list(profile.memory)
    for place, bandwidth in enumerate(fit.bandwidths, start=1):
        copied = measured.stream_bytes_per_s if place == len(memory) - 1 else measured.resident_bytes_per_s
        figure = _measured(bandwidth, f"{fitted}; a copy reached {copied:.3g}")
        memory[place] = memory[place].model_copy(update={"bandwidth": figure, "measured_bandwidth": None})
    inner = memory[0].bandwidth
    if inner.value < fit.bandwidths[0]:
        memory[0] = memory[0].model_copy(update={"bandwidth": memory[1].bandwidth})
    runtime = profile.runtime.model_copy(update={"launch_us": _measured(1e6 * fit.launch_s, fitted)})
    made = profile.model_copy(
        update={
            "name": name,
            "detect": False,
            "compute": compute,
            "memory": tuple(memory),
            "runtime": runtime,
            "kinds": _kind_rates(fit, peaks["float32"].value, on) or None,
            "calibration": Calibration(
                date=datetime.now(UTC).date().isoformat(),
                samples=n,
                loo_mape=fit.loo_mape,
                loo_max=fit.loo_max,
                loo_spearman=fit.loo_spearman,
                macs_only_mape=fit.macs_only_mape,
                bytes_only_mape=fit.bytes_only_mape,
                one_rate_mape=fit.one_rate_mape,
                threads=threads,
                energy=_energy_record(energy),
                busy=measured.busy or None,
            ),
        }
    )
    return parse_document(DeviceProfile, made.to_data(), f"the calibrated profile {name!r}")


def _kind_rates(fit: Fit, peak: float, on: str) -> dict[LayerKind, KindRates]:
    found: dict[LayerKind, KindRates] = {}
    for kind, each in fit.kinds.items():
        source = f"fitted to {each.samples} layers of this kind, {on}"
        use = None if each.macs_per_s is None else _measured(each.macs_per_s / peak, source)
        launch = _measured(max(1e6 * each.launch_s, _SHORTEST_LAUNCH_US), source)
        found[kind] = KindRates(launch_us=launch, utilisation=use, samples=each.samples, loo_mape=each.loo_mape)
    return found


def _energy_record(fit: EnergyFit | None) -> EnergyCalibration:
    if fit is None:
        return EnergyCalibration(reason=why_no_energy() or "no energy was counted")
    return EnergyCalibration(
        meter=fit.meter,
        samples=fit.samples,
        loo_mape=fit.loo_mape,
        macs_only_mape=fit.macs_only_mape,
        time_only_mape=fit.time_only_mape,
    )


def default_path(profile: DeviceProfile) -> Path:
    """Return where a calibrated profile goes unless told otherwise."""
    return Path(f"{profile.name}-calibrated.yaml")


def prior_of(profile: DeviceProfile, measured: Measured) -> tuple[list[float], list[tuple[float, float]]]:
    """Return start and bounds of (launch, rate, bandwidths): microbenchmarks, inside or beside the profile's ranges."""
    share = measured.threads / profile.compute.cores.value
    use, peak, launch = profile.compute.utilisation, profile.peak("float32"), profile.runtime.launch_us
    gemm = measured.gemm_macs_per_s.get("float32", share * peak.value)
    prior = [measured.launch_s, use.value * gemm]
    bounds = [
        (1e-6 * launch.low, max(1e-6 * launch.high, 3 * measured.launch_s)),
        (use.low * min(gemm, share * peak.low), max(gemm, use.high * share * peak.high)),
    ]
    copies = [measured.resident_bytes_per_s] * (len(profile.memory) - 2) + [measured.stream_bytes_per_s]
    for level, copied in zip(profile.memory[1:], copies, strict=True):
        prior.append(copied)
        # A measurement beside the profile's range widens it: one thread may not reach what the whole device does.
        bounds.append((min(level.bandwidth.low, copied / 2), max(level.bandwidth.high, copied)))
    return prior, bounds


def _measured(value: float, source: str) -> Figure:
    return Figure(value=float(f"{value:.6g}"), source=source, confidence="measured")
