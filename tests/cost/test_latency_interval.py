"""The interval of a modelled time: by hand for one operator, around the value on every device."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from autoprune.cost.roofline import Roofline, _inputs, latency_interval, predict_latency
from autoprune.cost.table import table_of
from autoprune.cost.traffic import traffic_of
from autoprune.cost.workload import workload_of
from autoprune.graph.groups import find_groups
from autoprune.pruning.plan import make_plan
from autoprune.pruning.scores import ScoreBook
from autoprune.pruning.surgery import prune
from autoprune.spec import library
from autoprune.spec.config import LayerChoice, ModelIdentity, PruningConfig
from autoprune.spec.hardware import Calibration, load_device
from autoprune.trial import task
from autoprune.trial.costs import TrialCosts


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


@pytest.mark.parametrize("device", library.names("hw_models"))
def test_a_modelled_ratio_has_the_range_that_the_figures_allow(device: str) -> None:
    profile = load_device(device)
    told = []
    for width in (64, 24):
        net = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, 32, 3), nn.Flatten(), nn.LazyLinear(10))
        x = torch.randn(1, 3, 12, 12)
        net(x)
        workload = workload_of(net.eval(), (x,))
        told.append((workload, traffic_of(workload, profile)))
    dense, narrow = (predict_latency(*each, profile) for each in told)
    record = narrow.to_record(dense)
    assert record.ratio_low <= record.ratio <= record.ratio_high <= 1
    assert record.pairs == 0
    # Independent: every operator's terms by hand at the eight corners.
    ratios = []
    for arithmetic, memory, launch in itertools.product(("quick", "slow"), repeat=3):
        whole = []
        for workload, traffic in told:
            ends = {
                pace: Roofline(table_of(workload).traits, profile, pace).times(*_inputs(workload, traffic))
                for pace in ("quick", "slow")
            }
            speedups = [op.savings.speedup for op in traffic.ops]
            whole.append(
                sum(
                    ends[launch].launch[n]
                    + max(ends[arithmetic].compute[0, n], ends[memory].memory[0, n]) / speedups[n]
                    for n, op in enumerate(traffic.ops)
                    if not op.fused
                )
            )
        ratios.append(whole[1] / whole[0])
    assert record.ratio_low == pytest.approx(min(*ratios, record.ratio))
    assert record.ratio_high == pytest.approx(max(*ratios, record.ratio))
    itself = dense.to_record(dense)
    assert (itself.ratio_low, itself.ratio_high) == (1, 1), "what is unknown of a device cancels"


def test_costs_from_counts_have_the_range_of_the_built_network() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 10)).eval()
    inputs = ((torch.randn(1, 3, 8, 8),), {})
    graph = find_groups(net, *inputs)
    jetson = load_device("jetson-orin-nano")
    costs = TrialCosts(net, graph, inputs, load_device("raspberry-pi-4"), "torch", devices={"jetson": jetson})
    choice = (LayerChoice(granularity="channel", criterion="magnitude_l2", sparsity=0.5),)
    config = PruningConfig(
        model=ModelIdentity(fingerprint=graph.fingerprint), layers=dict.fromkeys(graph.groups, choice)
    )
    told = costs.of_config(config)
    plan = make_plan(config, graph, ScoreBook(task.Calibration(inputs[0]).evidence(net, graph, 0)))
    built = costs.count(prune(net, plan), plan)
    assert told is not None
    assert told.prediction.corners == pytest.approx(built.prediction.corners)
    assert told.elsewhere["jetson"].corners_s == pytest.approx(built.elsewhere["jetson"].corners_s)
    dense = costs.of_config(config.model_copy(update={"layers": {}}))
    assert dense is not None
    there = told.device_values(dense)
    assert there is not None
    assert there["jetson"].ratio_low < there["jetson"].ratio < there["jetson"].ratio_high < 1
