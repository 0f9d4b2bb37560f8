"""The interval of a modelled time: by hand for one operator, around the value on every device."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoprune.cost.roofline import latency_interval, predict_latency
from autoprune.cost.traffic import traffic_of
from autoprune.cost.workload import workload_of
from autoprune.spec import library
from autoprune.spec.hardware import Calibration, load_device


def test_the_ends_are_those_of_the_figures() -> None:
    profile = load_device("raspberry-pi-5")
    workload = workload_of(nn.Linear(256, 256, bias=False), (torch.randn(4096, 256),))
    quick, slow = latency_interval(workload, traffic_of(workload, profile), profile)
    peak, use, launch = profile.peak("float32"), profile.compute.utilisation, profile.runtime.launch_us
    assert use.range is not None
    macs = 4096 * 256 * 256  # waits for arithmetic at either end
    assert quick == pytest.approx(1e-6 * launch.low + macs / (peak.high * use.high))
    assert slow == pytest.approx(1e-6 * launch.high + macs / (peak.low * use.low))


@pytest.mark.parametrize("device", library.names("hw_models"))
def test_the_interval_holds_the_value(device: str) -> None:
    profile = load_device(device)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10)).eval()
    workload = workload_of(net, (torch.randn(1, 3, 8, 8),))
    traffic = traffic_of(workload, profile)
    quick, slow = latency_interval(workload, traffic, profile)
    seconds = predict_latency(workload, traffic, profile).seconds
    assert 0 < quick < seconds < slow
    fitted = profile.model_copy(update={"calibration": Calibration(date="2026-01-01", samples=60, loo_mape=0.25)})
    ends = latency_interval(workload, traffic, fitted)
    assert ends == (pytest.approx(seconds / 1.25), pytest.approx(seconds * 1.25))
