"""A small network with everything that criteria and masks must cope with, and data for it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autoprune.graph.groups import find_groups
from autoprune.pruning.scores import ScoreBook
from autoprune.trial.task import Calibration


class Net(nn.Module):
    """A residual block, a depthwise and a strided grouped convolution, and a linear head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 12, 3, padding=1)
        self.outer = nn.Conv2d(12, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(8, 8, 3, stride=2, groups=2)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu(self.bn(self.stem(x)))
        x = F.relu(x + self.outer(F.relu(self.inner(x))))
        x = F.relu(self.grouped(F.relu(self.depthwise(x))))
        return self.head(x.mean((2, 3)))


def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def images(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 8, 8, generator=generator), torch.randint(0, 4, (count,), generator=generator)


@pytest.fixture
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Net()
        model.bn.running_mean.normal_()
        model.bn.running_var.uniform_(0.5, 2)
        model.bn.weight.data.uniform_(0.1, 2)
    return model.eval()


@pytest.fixture
def batches():
    return [images(16, seed) for seed in range(3)]


@pytest.fixture
def graph(net):
    return find_groups(net, (images(2, 9)[0],))


@pytest.fixture
def evidence(net, graph, batches):
    return Calibration(images(2, 9)[0], batches, loss).evidence(net, graph, seed=0)


@pytest.fixture
def book(evidence):
    return ScoreBook(evidence)
