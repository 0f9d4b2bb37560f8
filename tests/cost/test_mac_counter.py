"""Arithmetic against fvcore: the counts of a pruned model are the same integers."""

import pytest
import torch
from torch import nn

from autoprune.cost.macs import MacCounter, count_macs
from autoprune.graph.groups import find_groups
from autoprune.pruning.plan import cuts_of
from autoprune.pruning.surgery import cut


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, stride=2, groups=16)
        self.grouped = nn.Conv2d(16, 24, 3, padding=1, groups=4)
        self.up = nn.ConvTranspose2d(24, 12, 2, stride=2)
        self.head = nn.Linear(12 * 64, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.stem(x)).relu()
        x = self.up(self.grouped(self.depthwise(x)).relu())
        return self.head(x.flatten(1))


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(nn.functional.adaptive_avg_pool2d(self.conv(x), 1).flatten(1))


@pytest.mark.parametrize(("model", "arithmetic"), [(Mixed(), True), (Pooled(), False)])
@pytest.mark.parametrize("seed", range(5))
def test_counts_of_pruned_models_equal_fvcore(model: nn.Module, arithmetic: bool, seed: int) -> None:
    inputs = (torch.randn(2, 3, 8, 8),)
    graph = find_groups(model, inputs)
    generator = torch.Generator().manual_seed(seed)
    gone = {
        name: torch.randperm(group.units, generator=generator)[
            : int(torch.randint(1, group.units, (), generator=generator))
        ]
        for name, group in graph.groups.items()
    }
    smaller = cut(model, cuts_of(graph, gone))
    counter = MacCounter(model, inputs)
    assert counter.by_arithmetic is arithmetic
    counted, expected = counter.count(smaller), count_macs(smaller, inputs)
    assert counted.total == expected.total < counter.dense.total
    assert dict(counted.modules) == dict(expected.modules)
    assert dict(counted.uncounted_ops) == dict(expected.uncounted_ops)
