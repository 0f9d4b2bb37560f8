"""Modelled latency, for a device that cannot be measured from here.

``t = sum over operators of t_launch + max(MACs_padded / (peak u), bytes_level / bandwidth_level ...) / speedup``

Channels are padded to the device's steps, so latency falls in a staircase: on an x86 CPU 63 to 49 channels cost what 64
do. A model orders candidates; where the device is at hand, the measurement replaces it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from autoprune.cost.extents import Floats, Ints
from autoprune.cost.table import OpTable, table_of
from autoprune.cost.traffic import Traffic
from autoprune.cost.traits import OpTraits, layer_kind
from autoprune.cost.workload import Workload
from autoprune.spec.hardware import DeviceProfile, Figure
from autoprune.spec.record import LatencyRecord

Pace = Literal["value", "quick", "slow"]
"""Of a figure: its best value, or an end of its range."""


@dataclass(frozen=True)
class OpLatency:
    """Modelled time of one operator, s.

    Attributes:
        name: As in the workload.
        seconds: Whole; 0 for an operator that runs inside another.
        launch_s: To start it.
        compute_s: If only arithmetic took time.
        memory_s: If only the slowest memory level did.
        bound: What it waits for.
    """

    name: str
    seconds: float
    launch_s: float
    compute_s: float
    memory_s: float
    bound: str


@dataclass(frozen=True)
class LatencyPrediction:
    """Modelled latency of one run.

    Attributes:
        seconds: Whole.
        ops: One entry per operator of the workload.
        meter: What gave the number.
        corners: The whole at each corner of what is known of the device (:class:`Corners`), s.
    """

    seconds: float
    ops: tuple[OpLatency, ...]
    meter: str
    corners: tuple[float, ...]

    def to_record(self, dense: LatencyPrediction) -> LatencyRecord:
        """Return the record of a trial, relative to the dense prediction: no pairs, and the ratios that may be."""
        ratio = self.seconds / dense.seconds
        low, high = ratio_range(self.corners, dense.corners)
        return LatencyRecord(
            ms=1e3 * self.seconds,
            ratio=ratio,
            ratio_low=min(low, ratio),
            ratio_high=max(high, ratio),
            candidate_ms=1e3 * self.seconds,
            candidate_p90_ms=1e3 * self.seconds,
            dense_ms=1e3 * dense.seconds,
            pairs=0,
            converged=True,
            meter=self.meter,
        )


@dataclass(frozen=True)
class Times:
    """Modelled times of many versions, s; shape (n, ops), and ``launch`` (ops,). 0 for what runs inside another."""

    seconds: Floats
    launch: Floats
    compute: Floats
    memory: Floats
    slowest: NDArray[np.int64]


def predict_latency(workload: Workload, traffic: Traffic, profile: DeviceProfile) -> LatencyPrediction:
    """Predict the latency of one run.

    Args:
        workload: What is executed.
        traffic: Its traffic on this device.
        profile: The device.

    Returns:
        Seconds, whole and per operator. Not modelled: kernels that overlap, clocks that fall with heat.
    """
    table, dense_bytes, speedup, fused = _inputs(workload, traffic)
    times = Roofline(table.traits, profile).times(table, dense_bytes, speedup, fused)
    ops = tuple(_op_latency(n, op.name, times, traffic, profile) for n, op in enumerate(workload.ops))
    corners = Corners(table.traits, profile).seconds(table, dense_bytes, speedup, fused)
    return LatencyPrediction(
        seconds=sum(op.seconds for op in ops),
        ops=ops,
        meter=roofline_meter(profile, workload.batch, workload.dtype),
        corners=tuple(corners[0].tolist()),
    )


def roofline_meter(profile: DeviceProfile, batch: int, dtype: str) -> str:
    """Return what gave the number, and how far to trust it.

    Without a calibration the rates are priors with ranges of about a factor of two.
    """
    trust = "uncalibrated, right within about a factor of 2: ranking only"
    if profile.calibration is not None and profile.calibration.loo_mape is not None:
        trust = f"calibrated on layers, of which one left out is wrong by {profile.calibration.loo_mape:.0%} on average"
    return f"modelled: roofline of {profile.name}, batch {batch}, {dtype}; {trust}"


def latency_interval(workload: Workload, traffic: Traffic, profile: DeviceProfile) -> tuple[float, float]:
    """Return the shortest and the longest time of one run that the model allows, s.

    Args:
        workload: What is executed.
        traffic: Its traffic on this device.
        profile: The device.
    """
    corners = predict_latency(workload, traffic, profile).corners
    return min(corners), max(corners)


def ratio_range(candidate: Sequence[float], dense: Sequence[float]) -> tuple[float, float]:
    """Return the least and the greatest ratio of two networks whose times at the same corners are given, s."""
    ratios = [one / other for one, other in zip(candidate, dense, strict=True)]
    return min(ratios), max(ratios)


def _inputs(workload: Workload, traffic: Traffic) -> tuple[OpTable, Floats, Floats, NDArray[np.bool_]]:
    dense_bytes = np.array([op.dense_level_bytes for op in traffic.ops]).reshape(1, len(workload.ops), -1)
    speedup = np.array([[op.savings.speedup for op in traffic.ops]])
    return table_of(workload), dense_bytes, speedup, np.array([op.fused for op in traffic.ops], np.bool_)


class Roofline:
    """Times on one device of versions of a network that run the same operators.

    Args:
        traits: The operators.
        profile: The device.
        pace: Best value of each figure of the profile, or the quicker or slower end of its range.
    """

    def __init__(self, traits: OpTraits, profile: DeviceProfile, pace: Pace = "value") -> None:
        def rate_of(figure: Figure) -> float:
            return {"value": figure.value, "quick": figure.high, "slow": figure.low}[pace]

        def time_of(figure: Figure) -> float:
            return {"value": figure.value, "quick": figure.low, "slow": figure.high}[pace]

        peaks = {dtype: rate_of(profile.peak(dtype)) for dtype in {op.dtype for op in traits.ops}}
        rates = [(profile.kinds or {}).get(layer_kind(op)) for op in traits.ops]
        common, launch = profile.compute.utilisation, profile.runtime.launch_us
        used = [rate_of(own.utilisation or common if own else common) for own in rates]
        self._rate = np.array([peaks[op.dtype] for op in traits.ops]) * used
        self._bandwidths = np.array(
            [rate_of(level.measured_bandwidth or level.bandwidth) for level in profile.memory[1:]]
        )
        self._launch_s = np.array([time_of(own.launch_us if own else launch) for own in rates]) * 1e-6
        self._traits = traits
        known = {str(dtype): step for dtype, step in profile.compute.channel_step.items()}
        steps = [known.get(op.dtype) for op in traits.ops]
        self._stepped = any(steps)
        self._step_in, self._step_out = (
            np.array([getattr(step, side) if step else 1 for step in steps], np.int64) for side in ("c_in", "c_out")
        )

    def times(self, table: OpTable, dense_bytes: Floats, speedup: Floats, fused: NDArray[np.bool_]) -> Times:
        """Predict the time of every operator of many versions.

        Args:
            table: The operators.
            dense_bytes: Bytes over each edge with zeros stored, shape (n, ops, levels - 1).
            speedup: Dense time over sparse time, shape (n, ops).
            fused: Which operators run inside an earlier one, shape (ops,).
        """
        compute = self.padded_macs(table) / self._rate
        # A published speedup is that of the whole operator against the dense one, so it divides the dense time.
        # Dividing the compressed bytes again would count the zeros twice.
        waits = dense_bytes / self._bandwidths
        memory = waits.max(axis=2)
        launch = np.where(fused, 0.0, self._launch_s)
        seconds = np.where(fused, 0.0, launch + np.maximum(compute, memory) / speedup)
        return Times(seconds, launch, np.where(fused, 0.0, compute), np.where(fused, 0.0, memory), waits.argmax(axis=2))

    def padded_macs(self, table: OpTable) -> Floats:
        """Return MACs with the channels rounded up to the device's steps, shape (n, ops).

        Both channel counts of a group are rounded; of a depthwise convolution, whose groups are what runs side by
        side, the number of channels is.
        """
        macs = table.macs.astype(np.float64)
        if not self._stepped:
            return macs
        c_in, c_out = table.c_in // table.groups, table.c_out // table.groups
        across = (c_in == 1) & (table.groups > 1)
        padded = macs * (_up(c_in, self._step_in) / np.maximum(c_in, 1))
        padded = padded * (_up(c_out, self._step_out) / np.maximum(c_out, 1))
        if across.any():
            depthwise = macs * _up(table.c_out, self._step_out) / np.maximum(table.c_out, 1)
            padded = np.where(across, depthwise, padded)
        unchanged = (macs == 0) | self._traits.of_kind("attention", "recurrent")
        return np.where(unchanged, macs, padded)


class Corners:
    """Times of whole networks where what is known of the device is off: two networks there share its figures.

    Arithmetic, memory and launches each at the quicker or the slower end of their figures' ranges, which makes eight
    corners; the ratio of two networks lies between those at the corners, closer than their times, for what both wait
    for cancels. Of a calibrated device the ends are its leave-one-out error, as a factor. No range stands for a figure
    that is known.

    Args:
        traits: The operators.
        profile: The device.
    """

    def __init__(self, traits: OpTraits, profile: DeviceProfile) -> None:
        error = profile.calibration.loo_mape if profile.calibration is not None else None
        ends: tuple[Pace, Pace] = ("quick", "slow") if error is None else ("value", "value")
        self._ends = tuple(Roofline(traits, profile, end) for end in ends)
        self._factors = (1.0, 1.0) if error is None else (1 / (1 + error), 1 + error)

    def seconds(self, table: OpTable, dense_bytes: Floats, speedup: Floats, fused: NDArray[np.bool_]) -> Floats:
        """Return the time of every version at every corner, shape (n, 8).

        Args:
            table: As for :meth:`Roofline.times`, and so is the rest.
            dense_bytes: Bytes over each edge with zeros stored.
            speedup: Dense time over sparse time.
            fused: Which operators run inside an earlier one.
        """
        ends = [
            (factor, roofline.times(table, dense_bytes, speedup, fused))
            for roofline, factor in zip(self._ends, self._factors, strict=True)
        ]
        found = [
            (a * launch.launch + np.maximum(b * compute.compute, c * memory.memory) / speedup).sum(axis=1)
            for (a, launch), (b, compute), (c, memory) in product(ends, repeat=3)
        ]
        return np.stack(found, axis=1)


def _op_latency(n: int, name: str, times: Times, traffic: Traffic, profile: DeviceProfile) -> OpLatency:
    if traffic.ops[n].fused:
        return OpLatency(name, 0.0, 0.0, 0.0, 0.0, "fused")
    compute, memory = float(times.compute[0, n]), float(times.memory[0, n])
    launch = float(times.launch[n])
    work = max(compute, memory) / traffic.ops[n].savings.speedup
    slowest = profile.memory[1 + int(times.slowest[0, n])].name
    bound = "launch" if launch > work else "compute" if compute >= memory else slowest
    return OpLatency(name, float(times.seconds[0, n]), launch, compute, memory, bound)


def _up(channels: Ints, step: Ints) -> Ints:
    return -(-channels // step) * step
