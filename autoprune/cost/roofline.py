"""Modelled latency, for a device that cannot be measured from here.

``t = sum over operators of t_launch + max(MACs_padded / (peak u), bytes_level / bandwidth_level ...) / speedup``

Channels are padded to the device's steps, so latency falls in a staircase: on an x86 CPU 63 to 49 channels cost what 64
do. A model orders candidates; where the device is at hand, the measurement replaces it.
"""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.cost.traffic import OpTraffic, Traffic
from autoprune.cost.workload import Op, Workload
from autoprune.spec.hardware import ChannelStep, DeviceProfile
from autoprune.spec.record import LatencyRecord


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
    """

    seconds: float
    ops: tuple[OpLatency, ...]
    meter: str

    def to_record(self, dense: LatencyPrediction) -> LatencyRecord:
        """Return the record of a trial, relative to the dense prediction; a model has no spread and no pairs."""
        ratio = self.seconds / dense.seconds
        return LatencyRecord(
            ms=1e3 * self.seconds,
            ratio=ratio,
            ratio_low=ratio,
            ratio_high=ratio,
            candidate_ms=1e3 * self.seconds,
            candidate_p90_ms=1e3 * self.seconds,
            dense_ms=1e3 * dense.seconds,
            pairs=0,
            converged=True,
            meter=self.meter,
        )


def predict_latency(workload: Workload, traffic: Traffic, profile: DeviceProfile) -> LatencyPrediction:
    """Predict the latency of one run.

    Args:
        workload: What is executed.
        traffic: Its traffic on this device.
        profile: The device.

    Returns:
        Seconds, whole and per operator. Not modelled: kernels that overlap, clocks that fall with heat.
    """
    ops = tuple(_op_latency(op, moved, profile) for op, moved in zip(workload.ops, traffic.ops, strict=True))
    return LatencyPrediction(
        seconds=sum(op.seconds for op in ops),
        ops=ops,
        meter=f"modelled: roofline of {profile.name}, batch {workload.batch}, {workload.dtype}",
    )


def padded_macs(op: Op, step: ChannelStep | None) -> float:
    """Return MACs with the channels rounded up to the device's steps.

    Both channel counts of a group are rounded; of a depthwise convolution, whose groups are what runs side by side,
    the number of channels is.
    """
    if step is None or not op.macs or op.kind == "attention":
        return float(op.macs)
    c_in, c_out = op.c_in // op.groups, op.c_out // op.groups
    if c_in == 1 and op.groups > 1:
        return op.macs * _up(op.c_out, step.c_out) / op.c_out
    return op.macs * (_up(c_in, step.c_in) / c_in) * (_up(c_out, step.c_out) / c_out)


def _op_latency(op: Op, moved: OpTraffic, profile: DeviceProfile) -> OpLatency:
    if moved.fused:
        return OpLatency(op.name, 0.0, 0.0, 0.0, 0.0, "fused")
    steps = {str(dtype): step for dtype, step in profile.compute.channel_step.items()}
    rate = profile.peak(op.dtype).value * profile.compute.utilisation.value
    compute = padded_macs(op, steps.get(op.dtype)) / rate
    # A published speedup is that of the whole operator against the dense one, so it divides the dense time. Dividing
    # the compressed bytes again would count the zeros twice.
    memory, slowest = max(
        (count / level.sustained_bandwidth, level.name)
        for level, count in zip(profile.memory[1:], moved.dense_level_bytes, strict=True)
    )
    launch = profile.runtime.launch_us.value * 1e-6
    work = max(compute, memory) / moved.savings.speedup
    bound = "launch" if launch > work else "compute" if compute >= memory else slowest
    return OpLatency(op.name, launch + work, launch, compute, memory, bound)


def _up(channels: int, step: int) -> int:
    return -(-channels // step) * step
