"""A task that costs nothing: a small network with fixed random weights, scored by agreement with itself when dense.

It is also the task file that the end-to-end tests give to the command. Variables of the environment make it misbehave.
"""

import itertools
import os
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from autoprune.trial.task import Task


class SmallNet(nn.Module):
    """A residual block with batch norm and a linear head, for (n, 4, 6, 6) images and four classes."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.inner = nn.Conv2d(width, 12, 3, padding=1)
        self.outer = nn.Conv2d(12, width, 3, padding=1)
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(x + self.outer(F.relu(self.inner(x))))
        return self.head(x.mean((2, 3)))


def cross_entropy(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def small_net(width: int = 8) -> SmallNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SmallNet(width)
        model.norm.weight.data.uniform_(0.1, 2)
        model.norm.running_mean.normal_()
        model.norm.running_var.uniform_(0.5, 2)
    return model.eval()


def images(count: int, seed: int):
    return torch.randn(count, 4, 6, 6, generator=torch.Generator().manual_seed(seed))


def labelled(model: nn.Module, count: int, seed: int):
    inputs = images(count, seed)
    with torch.no_grad():
        return inputs, model(inputs).argmax(1)


def agreement(model: nn.Module, data) -> float:
    return float((model(data[0]).argmax(1) == data[1]).float().mean())


def task() -> Task:
    torch.set_num_threads(1)
    model = small_net()
    validation, test = labelled(model, 256, 1), labelled(model, 128, 2)
    batches = [labelled(model, 16, seed) for seed in (3, 4)]

    evaluations = itertools.count(1)

    def evaluate(candidate: nn.Module) -> float:
        time.sleep(float(os.environ.get("SMALL_TASK_SLEEP", "0")))
        if next(evaluations) == int(os.environ.get("SMALL_TASK_HANGS", "0")):
            time.sleep(3600)
        if (flag := os.environ.get("SMALL_TASK_BREAKS")) and Path(flag).exists():
            raise ValueError("the data is away")
        return agreement(candidate, validation)

    return Task(
        model=model,
        example_inputs=validation[0][:1],
        evaluate=evaluate,
        test=lambda candidate: agreement(candidate, test),
        batches=batches,
        loss=cross_entropy,
    )
