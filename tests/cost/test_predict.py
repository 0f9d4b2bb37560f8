"""The latency predictor against machines whose time is known by a formula that it does not know."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autoprune.cost.candidates import Candidates, joined
from autoprune.cost.device import DeviceCosts
from autoprune.cost.model import CostModel
from autoprune.cost.predict import LatencyPredictor
from autoprune.cost.roofline import roofline_meter
from autoprune.graph.groups import find_groups
from autoprune.ranks import spearman
from autoprune.spec.hardware import Calibration, load_device


class Net(nn.Module):
    """Three stages of a residual block each, (16, 32, 64) channels, and a depthwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.inner = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride, 1) for a, b, stride in ((16, 16, 1), (32, 32, 1), (64, 64, 1))
        )
        self.outer = nn.ModuleList(nn.Conv2d(c, c, 3, padding=1) for c in (16, 32, 64))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 1, 2) for a, b in ((16, 32), (32, 64)))
        self.depthwise = nn.Conv2d(64, 64, 3, padding=1, groups=64)
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        for stage in range(3):
            x = F.relu(x + self.outer[stage](F.relu(self.inner[stage](x))))
            x = F.relu(self.down[stage](x)) if stage < 2 else x
        return self.head(self.depthwise(x).mean((2, 3)))


@pytest.fixture(scope="module")
def device() -> DeviceCosts:
    torch.manual_seed(0)
    net, inputs = Net().eval(), (torch.randn(1, 3, 16, 16),)
    return DeviceCosts(CostModel(net, find_groups(net, inputs), inputs), load_device("raspberry-pi-5"), "torch")


def drawn(device: DeviceCosts, count: int, seed: int) -> Candidates:
    """Networks with a sparsity of 0 to 0.8 in every group, as the bundled spaces have."""
    rng, units = np.random.default_rng(seed), device.model.blueprint.units
    level = rng.uniform(0, 0.8, (count, 1))
    sparsity = np.clip(np.round(10 * (level + rng.normal(0, 0.25, (count, len(units))))), 0, 8) / 10
    kept = units - np.floor(units * sparsity + 1e-6).astype(np.int64)
    nothing = np.full((count, len(device.model.layers)), -1, np.int64)
    return Candidates(kept, nothing, nothing)


def padded(device: DeviceCosts, candidates: Candidates, fallback: float) -> np.ndarray:
    """Seconds on a machine of 16 lanes: convolutions pad, and off multiples of 4 they run a slower kernel."""
    table = device.model.table(candidates)
    seconds = np.zeros(len(candidates))
    for op, described in enumerate(table.ops):
        c_in, c_out, groups = (
            x[:, op].astype(float) for x in np.broadcast_arrays(table.c_in, table.c_out, table.groups)
        )
        seconds += 4e-6 + (table.input_bytes + table.output_bytes)[:, op] / 20e9
        if described.kind not in ("conv", "gemm"):
            continue
        size = described.kernel[0] * described.kernel[1] * np.broadcast_to(table.E * table.F, table.c_in.shape)[:, op]
        if described.name.startswith("depthwise"):
            seconds += np.ceil(c_out / 16) * 16 * size / 2e9
            continue
        lanes = np.ceil(c_in / groups / 16) * 16 * np.ceil(c_out / 16) * 16
        off = (c_in % 4 != 0) | (c_out % 4 != 0)
        seconds += size * lanes / 40e9 * np.where(off & (c_in > 3), fallback, 1.0)
    return seconds


def blocked(device: DeviceCosts, candidates: Candidates) -> np.ndarray:
    """Return seconds of a machine that runs convolutions in blocks of 16 channels, or as slower plain products.

    ONNX Runtime's rule: input channels are a multiple of four, or fewer than 16, which are read as they come; of a
    depthwise convolution all channels are a multiple of four. What is laid out otherwise is copied.
    """
    table = device.model.table(candidates)
    seconds = np.zeros(len(candidates))
    for op, described in enumerate(table.ops):
        c_in, c_out = (np.broadcast_to(x[:, op], seconds.shape).astype(float) for x in (table.c_in, table.c_out))
        read, written = (np.broadcast_to(x[:, op], seconds.shape) for x in (table.input_bytes, table.output_bytes))
        seconds += 4e-6 + (read + written) / 20e9
        if described.kind not in ("conv", "gemm"):
            continue
        size = described.kernel[0] * described.kernel[1] * np.broadcast_to(table.E * table.F, table.c_in.shape)[:, op]
        wide = np.ceil(c_out / 16) * 16
        if described.name.startswith("depthwise"):
            fits = c_out % 4 == 0
            seconds += np.where(fits, wide * size / 4e9, c_out * size / 1e9)
        else:
            few = c_in < 16
            fits = few | (c_in % 4 == 0)
            seconds += np.where(
                fits, np.where(few, c_in, np.ceil(c_in / 16) * 16) * wide * size / 40e9, c_in * c_out * size / 20e9
            )
            seconds += read * few / 8e9
        seconds += (read + written) * ~fits / 8e9
    return seconds


Machine = Callable[[DeviceCosts, Candidates], np.ndarray]


@pytest.mark.parametrize(
    "machine",
    [partial(padded, fallback=1.0), partial(padded, fallback=1.6), blocked],
    ids=["steps of 16", "slower off multiples of 4", "blocks of 16"],
)
def test_unseen_networks_are_within_a_tenth_and_in_order(device: DeviceCosts, machine: Machine) -> None:
    seen, unseen = drawn(device, 120, seed=1), drawn(device, 300, seed=2)
    units = device.model.blueprint.units
    dense = machine(device, Candidates(units[None], seen.pattern[:1], seen.nonzeros[:1]))[0]
    noise = np.random.default_rng(3).normal(1, 0.015, len(seen))
    predictor = LatencyPredictor(device)
    predictor.learn(seen, machine(device, seen) / dense * noise, np.full(len(seen), 0.015))
    truth, told = machine(device, unseen) / dense, predictor.predict(unseen)
    assert truth.max() > 1.3 * truth.min()
    errors = np.abs(told.ratio / truth - 1)
    assert errors.mean() <= 0.011  # less than the noise of one measurement
    assert (errors <= 0.1).mean() >= 0.95
    assert spearman(told.ratio, truth) >= 0.98
    inside = (told.low <= truth) & (truth <= told.high)
    assert inside.mean() >= 0.9
    assert (told.high - told.low).mean() < 0.25
    quality = predictor.quality()
    assert quality is not None
    assert quality.measurements == 120
    assert quality.within_10 >= 0.95
    modelled = LatencyPredictor(device).predict(unseen).ratio
    assert errors.mean() < 0.5 * np.abs(modelled / truth - 1).mean()


def test_measurements_refine(device: DeviceCosts) -> None:
    unseen, predictor, errors = drawn(device, 200, seed=2), LatencyPredictor(device), []
    units = device.model.blueprint.units
    dense = padded(device, Candidates(units[None], unseen.pattern[:1], unseen.nonzeros[:1]), 1.6)[0]
    truth = padded(device, unseen, 1.6) / dense
    for seed, count in ((4, 8), (5, 24), (6, 96)):
        more = drawn(device, count, seed)
        predictor.learn(more, padded(device, more, 1.6) / dense, np.full(count, 0.01))
        errors.append(np.abs(predictor.predict(unseen).ratio / truth - 1).mean())
    assert predictor.measurements == 128
    assert errors[0] > errors[1] > errors[2]


def test_without_a_measurement_it_is_the_roofline_with_a_wide_interval(device: DeviceCosts) -> None:
    candidates = drawn(device, 50, seed=7)
    told = LatencyPredictor(device).predict(candidates)
    units = device.model.blueprint.units
    dense = device.costs(Candidates(units[None], candidates.pattern[:1], candidates.nonzeros[:1])).latency_s[0]
    np.testing.assert_allclose(told.ratio, device.costs(candidates).latency_s / dense)
    assert (told.high > 1.5 * told.ratio).all()
    assert LatencyPredictor(device).quality() is None


def test_many_at_once_are_each_alone_and_layers_add_up_to_less_than_all(device: DeviceCosts) -> None:
    seen, some = drawn(device, 40, seed=8), drawn(device, 20, seed=9)
    predictor = LatencyPredictor(device)
    predictor.learn(seen, padded(device, seen, 1.0) / padded(device, seen, 1.0).max(), np.full(40, 0.02))
    together = predictor.predict(some)
    alone = [
        predictor.predict(Candidates(some.kept[[row]], some.pattern[[row]], some.nonzeros[[row]])).ratio[0]
        for row in range(20)
    ]
    np.testing.assert_allclose(together.ratio, alone, rtol=1e-9)
    layers = predictor.by_layer(some)
    assert layers.shape == (20, len(device.model.layers))
    assert (layers > 0).all()
    assert predictor.predict(Candidates(some.kept[:0], some.pattern[:0], some.nonzeros[:0])).ratio.shape == (0,)


def test_candidates_of_several_vocabularies_are_joined() -> None:
    kept = np.ones((1, 1), np.int64)
    first = Candidates(kept, np.array([[0, -1]]), np.array([[3, 0]]), ("2:4",))
    second = Candidates(kept, np.array([[1, 0]]), np.array([[5, 7]]), ("weight", "2:4"))
    both = joined([first, second])
    assert [[both.patterns[n] if n >= 0 else None for n in row] for row in both.pattern] == [
        ["2:4", None],
        ["2:4", "weight"],
    ]
    assert both.nonzeros.tolist() == [[3, 0], [5, 7]]


def test_a_modelled_latency_says_how_far_to_trust_it() -> None:
    profile = load_device("raspberry-pi-5")
    assert roofline_meter(profile, 1, "float32").endswith("right within about a factor of 2: ranking only")
    found = Calibration(date="2026-01-01", samples=60, loo_mape=0.29, loo_max=1.0, loo_spearman=0.9, threads=1)
    told = roofline_meter(profile.model_copy(update={"calibration": found}), 1, "float32")
    assert told.endswith("one left out is wrong by 29% on average")
