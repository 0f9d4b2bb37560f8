"""Costs of a trial before anything is built, against counting the network that was built."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from autoprune.graph.groups import find_groups
from autoprune.pruning.plan import NOTHING, make_plan
from autoprune.pruning.scores import ScoreBook
from autoprune.pruning.surgery import prune
from autoprune.spec.config import LayerChoice, ModelIdentity, PruningConfig
from autoprune.spec.hardware import load_device
from autoprune.trial.costs import TrialCosts
from autoprune.trial.task import Calibration


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)),
    ).eval()


def setup(net: nn.Module, device: str) -> tuple[TrialCosts, Any, Any]:
    inputs = (torch.randn(2, 3, 12, 12),)
    graph = find_groups(net, inputs)
    book = ScoreBook(Calibration(inputs).evidence(net, graph, 0))
    return TrialCosts(net, graph, (inputs, {}), load_device(device), "torch"), graph, book


def config(graph: Any, **layers: Any) -> PruningConfig:
    choices = {
        name.removeprefix("layer"): tuple(LayerChoice(criterion="magnitude_l2", **choice) for choice in wanted)
        for name, wanted in layers.items()
    }
    return PruningConfig(model=ModelIdentity(fingerprint=graph.fingerprint), layers=choices)


CONFIGS: list[dict[str, Any]] = [
    {},
    {"layer0": [{"granularity": "channel", "sparsity": 0.4}]},
    {
        "layer3": [{"granularity": "channel", "sparsity": 0.3}, {"granularity": "pattern", "sparsity": 0.6}],
        "layer7": [{"granularity": "2:4"}],
    },
    {"layer0": [{"granularity": "kernel", "sparsity": 0.5}], "layer7": [{"granularity": "block:4x4", "sparsity": 0.5}]},
]


@pytest.mark.parametrize("device", ["raspberry-pi-5", "nvidia-h200", "eyeriss"])
@pytest.mark.parametrize("layers", CONFIGS)
def test_before_building_is_what_counting_gives(layers: dict[str, Any], device: str) -> None:
    net = network()
    costs, graph, book = setup(net, device)
    wanted = config(graph, **layers)
    before = costs.of_config(wanted)
    plan = make_plan(wanted, graph, book)
    counted = costs.count(prune(net, plan).eval(), plan)
    assert before is not None
    assert before.values == pytest.approx(counted.values, rel=1e-12)
    assert before.layers == counted.layers
    assert before.uncounted_ops == counted.uncounted_ops
    assert before.executed == pytest.approx(counted.executed)
    assert before.level_bytes == pytest.approx(counted.level_bytes, rel=1e-12)
    assert before.macs == counted.macs
    assert before.prediction.seconds == pytest.approx(counted.prediction.seconds, rel=1e-12)
    assert before.prediction.meter == counted.prediction.meter
    for name in ("macs", "params", "size_bytes"):
        assert before.values[name] == counted.values[name]


def test_a_threshold_needs_scores_but_no_run_of_the_network() -> None:
    net = network()
    costs, graph, book = setup(net, "raspberry-pi-5")
    threshold = {"granularity": "weight", "threshold": {"std": 0.8}}
    wanted = config(graph, layer3=[threshold])
    assert costs.of_config(wanted) is None
    plan = make_plan(wanted, graph, book)
    smaller = prune(net, plan).eval()
    costs.count = None  # type: ignore[method-assign, assignment] # it must not be asked
    told = costs.of_built(smaller, plan)
    assert told.layers["3"].weight_sparsity == pytest.approx(1 - float(plan.masks["3.weight"].double().mean()))


def test_zeros_spread_unevenly_are_counted_on_the_built_network() -> None:
    net = network()
    with torch.no_grad():
        net[0].bias[:3] = 0
    costs, graph, book = setup(net, "raspberry-pi-5")
    wanted = config(graph, **CONFIGS[1])
    assert costs.of_config(wanted) is None
    assert costs.of_config(config(graph)) is not None
    plan = make_plan(wanted, graph, book)
    smaller = prune(net, plan).eval()
    assert costs.of_built(smaller, plan).values == costs.count(smaller, plan).values


class Branching(nn.Module):
    """Runs another operator where few channels are left, so that costs do not follow from counts."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        return self.second(y.relu() if self.first.weight.shape[0] > 8 else y.sigmoid().relu())


def test_a_model_that_changes_with_its_width_is_counted_and_says_so() -> None:
    net, inputs = Branching().eval(), (torch.randn(2, 6),)
    graph = find_groups(net, inputs)
    costs = TrialCosts(net, graph, (inputs, {}), load_device("raspberry-pi-5"), "torch")
    assert costs.model is None
    assert "other operators than the dense one" in costs.counted_because
    assert costs.of_config(config(graph)) is None
    assert costs.of_built(copy.deepcopy(net), NOTHING).values["params"] == 7 * 12 + 13 * 3
