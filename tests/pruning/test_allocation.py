"""Allocations against a sort, a sum, and their published formulas."""

from math import prod

import pytest
import torch

from autoprune.cost.macs import count_macs
from autoprune.errors import ConfigError, UnknownNameError
from autoprune.pruning.allocation import ALLOCATIONS, MacsTarget, Place, allocate, erk_densities, places
from autoprune.pruning.plan import make_plan
from autoprune.pruning.surgery import prune

BY_SPARSITY = [key for key in ALLOCATIONS.names() if key != "global_per_mac"]


def removed(config, graph, book):
    plan = make_plan(config, graph, book)
    gone = {
        layer.name: int((~plan.masks[layer.weight]).sum()) if layer.weight in plan.masks else 0
        for layer in graph.layers.values()
    }
    total = sum(prod(layer.shape) for layer in graph.layers.values())
    return gone, sum(gone.values()) / total


@pytest.mark.parametrize("key", BY_SPARSITY)
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.8, 0.95])
def test_the_total_is_reached_and_never_exceeded(key, sparsity, graph, book):
    config = allocate(key, graph, book, "weight", "magnitude_l2", sparsity=sparsity)
    gone, total = removed(config, graph, book)
    weights = sum(prod(layer.shape) for layer in graph.layers.values())
    assert total <= sparsity + 1e-9
    assert total > sparsity - len(graph.layers) / weights - 1e-9, "within one unit per layer"
    for name, count in gone.items():
        asked = config.layers[name][0].fraction * prod(graph.layers[name].shape) if name in config.layers else 0
        assert abs(asked - count) < 1e-6


def test_global_is_a_sort_over_the_network(graph, book):
    config = allocate("global", graph, book, "weight", "magnitude_l1", sparsity=0.7)
    scores = book.weight_scores("magnitude_l1")
    ranked = sorted(
        (float(value), number)
        for number, layer in enumerate(graph.layers.values())
        for value in scores[layer.weight].double().reshape(-1) / scores[layer.weight].double().norm()
    )
    lost = [number for _, number in ranked[: int(0.7 * len(ranked))]]
    for number, (name, layer) in enumerate(graph.layers.items()):
        asked = config.layers[name][0].fraction if name in config.layers else 0
        assert round(asked * prod(layer.shape)) == lost.count(number)


def test_lamp_is_a_sort_of_relative_squares(graph, book):
    config = allocate("lamp", graph, book, "weight", "magnitude_l2", sparsity=0.7)
    ranked = []
    for number, layer in enumerate(graph.layers.values()):
        squares, _ = book.weight_scores("magnitude_l2")[layer.weight].double().reshape(-1).sort()
        ranked += [(float(squares[i] / squares[i:].sum()), number) for i in range(len(squares))]
    lost = [number for _, number in sorted(ranked)[: int(0.7 * len(ranked))]]
    for number, (name, layer) in enumerate(graph.layers.items()):
        asked = config.layers[name][0].fraction if name in config.layers else 0
        assert abs(round(asked * prod(layer.shape)) - lost.count(number)) <= 1


def test_densities_of_erdos_renyi_kernel(graph, book):
    found = places(graph, book, "weight", "magnitude_l2")
    densities = erk_densities(found, 0.6)
    sizes = [place.units for place in found]
    assert sum(d * s for d, s in zip(densities, sizes, strict=True)) == pytest.approx(0.4 * sum(sizes))
    assert max(densities) <= 1
    free = [i for i, d in enumerate(densities) if d < 1]
    shapes = [layer.shape for layer in graph.layers.values()]
    scales = [densities[i] / (sum(shapes[i]) / prod(shapes[i])) for i in free]
    assert max(scales) == pytest.approx(min(scales))
    assert any(d == 1 for d in densities), "small layers are capped"


def test_global_keeps_one_unit_of_every_place():
    found = (Place("a", torch.tensor([1e-9, 2e-9]).double(), 1, 1), Place("b", torch.rand(9).double(), 1, 1))
    for key in ("global", "lamp", "uniform", "erdos_renyi_kernel"):
        counts = ALLOCATIONS.get(key)(found, 0.999)
        assert all(count < place.units for count, place in zip(counts, found, strict=True))


@pytest.mark.parametrize("key", ALLOCATIONS.names())
@pytest.mark.parametrize("fraction", [0.8, 0.4])
def test_channels_for_wanted_macs(key, fraction, net, graph, book):
    example = torch.zeros(1, 3, 8, 8)

    def count(config):
        return float(count_macs(prune(net, make_plan(config, graph, book)), (example,), {}).total)

    config = allocate(key, graph, book, "channel", "magnitude_l1", macs=MacsTarget(fraction, count))
    dense = float(count_macs(net, (example,), {}).total)
    assert count(config) <= fraction * dense
    # one unit less anywhere would not all do: the allocation removed no more than it had to
    reached = count(config) / dense
    assert reached > fraction - 0.16


def test_wrong_use_is_one_sentence(graph, book):
    with pytest.raises(ConfigError, match="exactly one"):
        allocate("uniform", graph, book, "weight", "random")
    with pytest.raises(ConfigError, match="below 1"):
        allocate("uniform", graph, book, "weight", "random", sparsity=1.0)
    with pytest.raises(ConfigError, match="2:4 is not chosen unit by unit"):
        allocate("uniform", graph, book, "2:4", "random", sparsity=0.5)
    with pytest.raises(ConfigError, match="give a MACs target"):
        allocate("global_per_mac", graph, book, "channel", "random", sparsity=0.5)
    with pytest.raises(ConfigError, match=r"1% of the MACs is below the"):
        allocate("uniform", graph, book, "channel", "random", macs=MacsTarget(0.01, lambda config: 1.0))
    with pytest.raises(ConfigError, match="no layer of this model"):
        allocate("uniform", graph, book, "block:999x999", "random", sparsity=0.5)
    with pytest.raises(UnknownNameError, match="uniform"):
        allocate("unifrom", graph, book, "weight", "random", sparsity=0.5)
