"""Energy of one run: power x time, arithmetic, and memory traffic.

``E = t (P_idle + P_active) + sum_dtype e_mac MACs_effective + sum_level e_level bits_level``

MACs and DRAM bytes alone do not predict energy (27 % leave-one-out error on Eyeriss, against 7.5 % for time x constant
power and 3.8 % for effective MACs plus measured time). So time is a term, and each estimate stands beside the two
baselines that it must beat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

from autoprune.cost.traffic import Traffic
from autoprune.cost.workload import Workload
from autoprune.errors import MeterError
from autoprune.spec.hardware import DeviceProfile
from autoprune.spec.record import EnergyRecord

_N = TypeVar("_N")

End = Literal["value", "low", "high"]
"""Of a figure: its best value, or an end of its range."""


class DenseReference(NamedTuple):
    """The dense model, to which the baselines are relative.

    Attributes:
        macs: Its MACs.
        latency_s: Its latency.
        energy_j: Its energy by this model.
    """

    macs: float
    latency_s: float
    energy_j: float


@dataclass(frozen=True)
class EnergyEstimate:
    """Modelled energy of one run, J.

    Attributes:
        total_j: Best estimate.
        low_j: With every figure of the profile at the lower end of its range.
        high_j: With every figure at the upper end.
        time_j: Power x time.
        compute_j: Arithmetic.
        memory_j: Traffic of all levels but the innermost.
        macs_only_j: Baseline: the dense energy scaled by MACs as executed.
        time_only_j: Baseline: the dense energy scaled by latency.
        dram_bytes: DRAM traffic.
        basis: How far to trust it.
    """

    total_j: float
    low_j: float
    high_j: float
    time_j: float
    compute_j: float
    memory_j: float
    macs_only_j: float
    time_only_j: float
    dram_bytes: float
    basis: str

    def to_record(self) -> EnergyRecord:
        """Return the record of a trial, in mJ."""
        return EnergyRecord(
            mj=1e3 * self.total_j,
            low_mj=1e3 * self.low_j,
            high_mj=1e3 * self.high_j,
            time_mj=1e3 * self.time_j,
            compute_mj=1e3 * self.compute_j,
            memory_mj=1e3 * self.memory_j,
            macs_only_mj=1e3 * self.macs_only_j,
            time_only_mj=1e3 * self.time_only_j,
            dram_bytes=self.dram_bytes,
            basis=self.basis,
        )


def estimate_energy(
    workload: Workload,
    traffic: Traffic,
    profile: DeviceProfile,
    latency_s: float,
    dense: DenseReference | tuple[float, float, float] | None = None,
) -> EnergyEstimate:
    """Estimate the energy of one run.

    Args:
        workload: What is executed.
        traffic: Its traffic on this device.
        profile: The device.
        latency_s: Seconds of one run, measured where that is possible.
        dense: (MACs, latency in s, energy in J) of the dense model; None where this is the dense model.

    Returns:
        The estimate, its corners over the ranges of the profile, and its baselines.

    Raises:
        MeterError: The latency is not a positive number.
    """
    macs = executed_macs(workload, traffic)
    return estimate_from(profile, latency_s, macs, traffic.level_bytes, workload.macs, dense)


def executed_macs(workload: Workload, traffic: Traffic) -> Mapping[str, float]:
    """Return dtype to the multiply-adds that the device of ``traffic`` executes."""
    macs = dict.fromkeys((op.dtype for op in workload.ops), 0.0)
    for op, moved in zip(workload.ops, traffic.ops, strict=True):
        macs[op.dtype] += moved.savings.effective_macs
    return macs


def estimate_from(
    profile: DeviceProfile,
    latency_s: float,
    executed: Mapping[str, float],
    level_bytes: Sequence[float],
    macs: float,
    dense: DenseReference | tuple[float, float, float] | None = None,
) -> EnergyEstimate:
    """Estimate the energy of one run from its totals.

    Args:
        profile: The device.
        latency_s: Seconds of one run.
        executed: Dtype to executed multiply-adds.
        level_bytes: Bytes over the inner edge of each memory level but the innermost.
        macs: Multiply-adds of all products, zeros included.
        dense: As for :func:`estimate_energy`.

    Raises:
        MeterError: The latency is not a positive number.
    """
    if not 0 < latency_s < float("inf"):
        raise MeterError(
            f"energy needs a positive latency and got {latency_s!r} s; measure or predict the latency first"
        )

    def parts(end: End) -> tuple[float, float, float]:
        return energy_parts(profile, latency_s, executed, level_bytes, end)

    time_j, compute_j, memory_j = parts("value")
    total = time_j + compute_j + memory_j
    reference = DenseReference(*dense) if dense else DenseReference(macs, latency_s, total)
    return EnergyEstimate(
        total_j=total,
        low_j=sum(parts("low")),
        high_j=sum(parts("high")),
        time_j=time_j,
        compute_j=compute_j,
        memory_j=memory_j,
        macs_only_j=reference.energy_j * (macs / reference.macs if reference.macs else 1.0),
        time_only_j=reference.energy_j * latency_s / reference.latency_s,
        dram_bytes=level_bytes[-1],
        basis=_basis(profile),
    )


def energy_parts(
    profile: DeviceProfile, latency_s: _N, macs: Mapping[str, _N], level_bytes: Sequence[_N], end: End = "value"
) -> tuple[_N, _N, _N]:
    """Return the energy of time, arithmetic and traffic, J; numbers, or arrays over many versions of a model.

    Args:
        profile: The device.
        latency_s: Seconds of one run.
        macs: Dtype to executed multiply-adds.
        level_bytes: Bytes over the inner edge of each level but the innermost.
        end: Best value of each figure of the profile, or an end of its range.
    """
    time: Any = latency_s * time_power_w(profile, end)
    compute: Any = sum(getattr(profile.mac_energy(dtype), end) * count * 1e-12 for dtype, count in macs.items())
    memory: Any = sum(
        getattr(level.energy_pj_per_bit, end) * 8 * moved * 1e-12
        for level, moved in zip(profile.memory[1:], level_bytes, strict=True)
    )
    return time, compute, memory


def time_power_w(profile: DeviceProfile, end: End = "value") -> Any:
    """Return the power that a device draws for as long as it runs, W."""
    return getattr(profile.power.idle_w, end) + getattr(profile.power.active_w, end)


def _basis(profile: DeviceProfile) -> str:
    fitted = profile.calibration
    if fitted is None:
        return "uncalibrated: ranking only"
    counted = fitted.energy
    if counted is not None and counted.loo_mape is not None:
        rivals = {"MACs alone": counted.macs_only_mape or 0.0, "power x time": counted.time_only_mape or 0.0}
        beside = ", ".join(f"{name} {error:.0%}" for name, error in rivals.items())
        best = min(rivals, key=lambda name: rivals[name])
        better = f"; {best} is no worse here" if rivals[best] <= counted.loo_mape else ""
        return (
            f"calibrated {fitted.date} on {counted.samples} layers by {counted.meter} (leave-one-out error "
            f"{counted.loo_mape:.0%}; {beside}{better})"
        )
    # The powers and the energies per MAC and bit stay priors: only times were fitted.
    return (
        f"ranking only: latency calibrated {fitted.date} on {fitted.samples} layers (leave-one-out error "
        f"{fitted.loo_mape:.0%}), energy uncalibrated"
    )
