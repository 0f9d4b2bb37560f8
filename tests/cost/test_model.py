"""Costs from counts against fvcore, storage and parameters of the model that surgery really makes.

Seven random networks of each architecture, masks of every granularity on top: the integers must be the same.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.cost.candidates import Candidates
from autoprune.cost.device import DeviceCosts
from autoprune.cost.energy import estimate_energy
from autoprune.cost.macs import count_macs
from autoprune.cost.model import CostModel
from autoprune.cost.roofline import predict_latency
from autoprune.cost.storage import size_bytes
from autoprune.cost.traffic import traffic_of
from autoprune.cost.workload import workload_of
from autoprune.graph.groups import find_groups
from autoprune.pruning.granularity import granularity, size_of
from autoprune.pruning.plan import cuts_of
from autoprune.pruning.surgery import cut
from autoprune.spec.hardware import load_device

sys.path.insert(0, str(Path(__file__).parents[1] / "graph"))
from architectures import CONVOLUTIONAL, randomised
from sequence_models import PLAIN, tiny

TRANSFORMERS = [f"{name}-{attention}" for name in ("bert", "gpt2", "llama") for attention in ("sdpa", "eager")]
NETWORKS = [*CONVOLUTIONAL, *PLAIN, *TRANSFORMERS]
GRANULARITIES = ("weight", "row", "column", "kernel", "pattern", "2:4", "block:2x2")


def build(name: str) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    if name in TRANSFORMERS:
        return tiny(*name.split("-")).eval(), (torch.randint(11, (2, 6)),)
    kind, shapes = {**CONVOLUTIONAL, **PLAIN}[name]
    if isinstance(shapes, int):
        return randomised(kind()).eval(), (torch.randint(shapes, (2, 6)),)
    return randomised(kind()).eval(), tuple(torch.randn(shape) for shape in shapes)


@cache
def made(name: str) -> tuple[nn.Module, tuple[torch.Tensor, ...], CostModel]:
    net, inputs = build(name)
    return net, inputs, CostModel(net, find_groups(net, inputs), inputs)


def random_candidates(model: CostModel, count: int, seed: int) -> Candidates:
    """Draw kept units and, for half of the layers, a mask that fits."""
    rng = np.random.default_rng(seed)
    units = model.blueprint.units
    kept = rng.integers(1, units + 1, (count, len(units)))
    pattern = np.full((count, len(model.layers)), -1)
    for column, layer in enumerate(model.graph.layers.values()):
        fits = [n for n, key in enumerate(GRANULARITIES) if not granularity(key).refusal(layer)]
        pattern[:, column] = np.where(rng.random(count) < 0.5, rng.choice(fits, count), -1)
    return model.asked.fractions(kept, pattern, rng.choice([0.1, 0.5, 0.75], pattern.shape), GRANULARITIES)


def surgery(net: nn.Module, model: CostModel, candidates: Candidates, row: int, seed: int) -> nn.Module:
    """Really build one candidate: random units go, random weights are masked."""
    rng = np.random.default_rng([seed, row])
    gone: dict[str, Any] = {}
    for name, total, stay in zip(model.groups, model.blueprint.units, candidates.kept[row], strict=True):
        gone[name] = torch.from_numpy(rng.permutation(int(total))[: int(total - stay)].copy())
    smaller = cut(net, cuts_of(model.graph, gone))
    parameters = dict(smaller.named_parameters())
    for column, layer in enumerate(model.graph.layers.values()):
        number = candidates.pattern[row, column]
        if number >= 0:
            weight = parameters[layer.weight]
            places = rng.permutation(weight.numel())[candidates.nonzeros[row, column] :].copy()
            weight.data.view(-1)[torch.from_numpy(places)] = 0
    return smaller


@pytest.mark.parametrize("name", NETWORKS)
def test_counts_equal_fvcore_and_storage_of_the_built_model(name: str) -> None:
    net, inputs, model = made(name)
    candidates = random_candidates(model, 7, seed=1)
    counts = model.counts(candidates)
    exact = model.exact_size(candidates)
    for row in range(len(candidates)):
        smaller = surgery(net, model, candidates, row, seed=2)
        counted = count_macs(smaller, inputs)
        assert counts.macs[row] == counted.total
        assert counts.layer_macs[row].tolist() == [counted.modules.get(layer, 0) for layer in model.layers]
        assert counts.params[row] == sum(parameter.numel() for parameter in smaller.parameters())
        if exact[row]:
            assert counts.size_bytes[row] == size_bytes(smaller)
        shapes = {key: value.shape for key, value in smaller.named_parameters()}
        channels = [shapes[layer.weight][layer.out_dim] for layer in model.graph.layers.values()]
        assert counts.layer_channels[row].tolist() == channels
    assert exact.any()
    assert (counts.effective_macs <= counts.macs).all()


DEVICES = ("raspberry-pi-5", "nvidia-h200", "eyeriss", "stm32h743")


@pytest.mark.parametrize(
    "name", ["resnet-padding", "grouped", "u-net", "densenet", "char-gpt", "vit", "merged-heads", "mlp-mixer", "lstm"]
)
def test_device_costs_equal_what_counting_the_built_model_gives(name: str) -> None:
    net, inputs, model = made(name)
    candidates = random_candidates(model, 8, seed=4)
    rows = np.flatnonzero(model.exact_traffic(candidates))[:4]
    assert rows.size
    profiles = [load_device(device) for device in DEVICES]
    told = [(device, device.costs(candidates)) for device in (DeviceCosts(model, each) for each in profiles)]
    for row in rows.tolist():
        smaller = surgery(net, model, candidates, row, seed=5)
        sizes = {key: value.numel() for key, value in smaller.named_parameters()}
        patterns = {
            layer.weight: (GRANULARITIES[number], kept / sizes[layer.weight])
            for layer, number, kept in zip(
                model.graph.layers.values(), candidates.pattern[row], candidates.nonzeros[row], strict=True
            )
            if number >= 0
        }
        workload = workload_of(smaller, inputs, None, patterns)
        for profile, (device, cost) in zip(profiles, told, strict=True):
            traffic = traffic_of(workload, profile)
            seconds = predict_latency(workload, traffic, profile).seconds
            energy = estimate_energy(workload, traffic, profile, seconds).total_j
            assert cost.moved.level_bytes[row].tolist() == [pytest.approx(op.level_bytes) for op in traffic.ops]
            assert cost.activation_bytes[row] == traffic.activation_bytes
            assert cost.effective_macs[row] == pytest.approx(traffic.effective_macs)
            assert cost.latency_s[row] == pytest.approx(seconds)
            assert device.energy_j(cost)[row] == pytest.approx(energy)


def test_a_copy_more_or_less_is_said_and_stays_small() -> None:
    net, inputs, model = made("char-gpt")
    candidates = random_candidates(model, 12, seed=6)
    exact = model.exact_traffic(candidates)
    assert not exact.all()
    profile = load_device("raspberry-pi-5")
    cost = DeviceCosts(model, profile).costs(candidates)
    for row in np.flatnonzero(~exact)[:4].tolist():
        traffic = traffic_of(workload_of(surgery(net, model, candidates, row, seed=7), inputs), profile)
        assert cost.dram_bytes[row] == pytest.approx(traffic.dram_bytes, rel=0.15)


def test_masks_keep_what_the_granularity_keeps() -> None:
    _, _, model = made("resnet-padding")
    candidates = random_candidates(model, 20, seed=3)
    sizes = {}
    for column, (name, layer) in enumerate(model.graph.layers.items()):
        for row in range(20):
            if candidates.pattern[row, column] < 0:
                continue
            kept = candidates.kept[row : row + 1]
            sizes[name] = tuple(int(size[0]) for size in model.asked._shapes(kept, name))
            assert len(sizes[name]) == len(size_of(layer))
            assert 0 < candidates.nonzeros[row, column] <= np.prod(sizes[name])


def test_effective_macs_by_hand() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5))
    model = CostModel(net, find_groups(net, (torch.randn(2, 3, 4, 4),)), (torch.randn(2, 3, 4, 4),))
    candidates = model.asked.fractions(np.array([[8], [6]]), np.zeros((2, 2), int), np.full((2, 2), 0.5), ["weight"])
    counts = model.counts(candidates)
    assert counts.macs.tolist() == [2 * (16 * 8 * 27 + 128 * 5), 2 * (16 * 6 * 27 + 96 * 5)]
    assert counts.effective_macs.tolist() == [2 * (16 * 8 * 27 + 128 * 5) // 2, 2 * (16 * 6 * 27 + 96 * 5) // 2]
    assert counts.layer_density.tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_zeros_of_a_trained_tensor_are_exact_where_they_are_even_and_said_where_not() -> None:
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    nn.init.zeros_(net[0].bias)
    model = CostModel(net, find_groups(net, (torch.randn(1, 6),)), (torch.randn(1, 6),))
    dense, cut_one = (Candidates(np.array([[k]]), *(np.full((1, 2), -1),) * 2) for k in (8, 7))
    assert model.counts(dense).size_bytes[0] == size_bytes(net) == 4 * (48 + 32 + 4) + 1
    assert model.exact_size(cut_one).all()
    with torch.no_grad():
        net[0].bias[:3] = 1
    uneven = CostModel(net, find_groups(net, (torch.randn(1, 6),)), (torch.randn(1, 6),))
    assert uneven.stored.uneven == ("0.bias",)
    assert uneven.exact_size(dense).all()
    assert not uneven.exact_size(cut_one).any()
