"""Energy and modelled latency against hand arithmetic."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoprune.cost.energy import DenseReference, estimate_energy
from autoprune.cost.roofline import Roofline, predict_latency
from autoprune.cost.table import table_of
from autoprune.cost.traffic import traffic_of
from autoprune.cost.workload import Op, Workload
from autoprune.errors import MeterError
from autoprune.spec.hardware import Calibration, ChannelStep, DeviceProfile, load_device

sys.path.insert(0, str(Path(__file__).parent))
from eyeriss import ENERGY_MJ, MODELS, TIME, leave_one_out

FC = Op(
    *("gemm", "fc"),
    N=8,
    c_in=256,
    c_out=128,
    macs=8 * 256 * 128,
    weight_bytes=4 * 256 * 128,
    input_bytes=4 * 8 * 256,
    output_bytes=4 * 8 * 128,
    weight_name="fc.weight",
)
WORKLOAD = Workload((FC,), 8, "float32")
PI = load_device("raspberry-pi-5")


def test_terms_are_power_times_time_arithmetic_and_traffic() -> None:
    traffic = traffic_of(WORKLOAD, PI)
    energy = estimate_energy(WORKLOAD, traffic, PI, latency_s=2e-3)
    assert energy.time_j == pytest.approx(2e-3 * (2.4 + 6.5))
    assert energy.compute_j == pytest.approx(4.6e-12 * FC.macs)
    l3, dram = traffic.level_bytes
    assert energy.memory_j == pytest.approx(8e-12 * (2.5 * l3 + 10.0 * dram))
    assert energy.total_j == pytest.approx(energy.time_j + energy.compute_j + energy.memory_j)
    assert 0 < energy.low_j < energy.total_j < energy.high_j
    assert energy.dram_bytes == traffic.dram_bytes
    assert energy.basis == "uncalibrated: ranking only"


def test_the_dense_model_is_its_own_baseline() -> None:
    energy = estimate_energy(WORKLOAD, traffic_of(WORKLOAD, PI), PI, latency_s=2e-3)
    assert energy.macs_only_j == energy.time_only_j == energy.total_j


def test_baselines_scale_the_dense_energy() -> None:
    dense = DenseReference(macs=4 * FC.macs, latency_s=5e-3, energy_j=0.1)
    energy = estimate_energy(WORKLOAD, traffic_of(WORKLOAD, PI), PI, latency_s=2e-3, dense=dense)
    assert energy.macs_only_j == pytest.approx(0.025)
    assert energy.time_only_j == pytest.approx(0.04)


def test_the_record_is_in_millijoules() -> None:
    energy = estimate_energy(WORKLOAD, traffic_of(WORKLOAD, PI), PI, latency_s=2e-3)
    record = energy.to_record()
    assert record.mj == pytest.approx(1e3 * energy.total_j)
    assert record.time_mj == pytest.approx(17.8)
    assert record.low_mj < record.mj < record.high_mj
    assert record.dram_bytes == energy.dram_bytes


def test_a_calibrated_profile_says_so() -> None:
    fitted = PI.model_copy(update={"calibration": Calibration(date="2026-01-01", samples=40, loo_mape=0.06)})
    energy = estimate_energy(WORKLOAD, traffic_of(WORKLOAD, PI), fitted, latency_s=1e-3)
    assert energy.basis == (
        "ranking only: latency calibrated 2026-01-01 on 40 layers (leave-one-out error 6%), energy uncalibrated"
    )


@pytest.mark.parametrize("latency", [0.0, -1.0, float("nan"), float("inf")])
def test_energy_needs_a_latency(latency: float) -> None:
    with pytest.raises(MeterError, match="positive latency"):
        estimate_energy(WORKLOAD, traffic_of(WORKLOAD, PI), PI, latency_s=latency)


def test_masked_weights_cost_what_dense_ones_do() -> None:
    masked = Workload((replace(FC, weight_density=0.1, pattern="weight"),), 8, "float32")
    dense_energy = estimate_energy(WORKLOAD, traffic_of(WORKLOAD, PI), PI, latency_s=1e-3)
    assert estimate_energy(masked, traffic_of(masked, PI), PI, latency_s=1e-3) == dense_energy


def conv(c_in: int, c_out: int, groups: int = 1) -> Op:
    macs = c_out * c_in // groups * 9 * 64
    return Op("conv", "c", c_in=c_in, c_out=c_out, groups=groups, H=8, W=8, E=8, F=8, kernel=(3, 3), macs=macs)


def test_channels_are_padded_to_the_steps_of_the_device() -> None:
    step = ChannelStep(c_in=16, c_out=16, source="test", confidence="estimate")
    stepped = PI.model_copy(update={"compute": PI.compute.model_copy(update={"channel_step": {"float32": step}})})
    smooth = PI.model_copy(update={"compute": PI.compute.model_copy(update={"channel_step": {}})})

    def padded(op: Op, profile: DeviceProfile = stepped) -> float:
        table = table_of(Workload((op,), 1, "float32"))
        return Roofline(table.traits, profile).padded_macs(table).item()

    assert padded(conv(63, 63)) == pytest.approx(conv(64, 64).macs)
    assert padded(conv(49, 49)) == pytest.approx(conv(64, 64).macs)
    assert padded(conv(48, 48)) == conv(48, 48).macs
    assert padded(conv(60, 60, groups=60)) == pytest.approx(conv(64, 64, groups=64).macs)
    assert padded(conv(63, 63), smooth) == conv(63, 63).macs


def test_latency_is_a_staircase_of_the_slowest_resource() -> None:
    cpu = load_device("local-cpu")

    def seconds(channels: int) -> float:
        big = replace(conv(channels, channels), N=64, macs=64 * conv(channels, channels).macs)
        workload = Workload((big,), 64, "float32")
        return predict_latency(workload, traffic_of(workload, cpu), cpu).seconds

    assert seconds(63) == pytest.approx(seconds(64))
    assert seconds(48) < 0.7 * seconds(64)


def test_one_operator_by_hand() -> None:
    traffic = traffic_of(WORKLOAD, PI)
    prediction = predict_latency(WORKLOAD, traffic, PI)
    compute = FC.macs / (77e9 * 0.5)
    memory = max(traffic.llc_bytes / 60e9, traffic.dram_bytes / 17.1e9)
    assert prediction.seconds == pytest.approx(10e-6 + max(compute, memory))
    assert prediction.meter.startswith("modelled: roofline of raspberry-pi-5, batch 8, float32; uncalibrated")
    record = prediction.to_record(prediction)
    assert (record.ratio, record.pairs) == (1.0, 0)
    assert record.ms == pytest.approx(1e3 * prediction.seconds)


def test_a_sparse_speedup_divides_the_dense_time_once() -> None:
    gpu = load_device("nvidia-h200")
    large = replace(FC, N=4096, c_in=4096, c_out=4096, macs=4096**3, dtype="float16", itemsize=2)
    sparse = replace(large, weight_density=0.5, pattern="2:4")
    times = []
    for op in (large, sparse):
        workload = Workload((op,), 1, "float16")
        times.append(predict_latency(workload, traffic_of(workload, gpu), gpu).ops[0])
    assert times[0].seconds - times[0].launch_s == pytest.approx(1.1 * (times[1].seconds - times[1].launch_s))


def test_with_measured_time_effective_macs_beat_time_alone_on_eyeriss() -> None:
    errors = {name: float(np.abs(leave_one_out(terms, ENERGY_MJ)).mean()) for name, terms in MODELS.items()}
    assert ENERGY_MJ.sum() / TIME.sum() * 1000 == pytest.approx(278, abs=1)  # the mean power in the paper's text
    assert errors["effective MACs + measured time"] < errors["measured time only"] < errors["MACs only"]
    assert errors["effective MACs + measured time"] < 0.05
