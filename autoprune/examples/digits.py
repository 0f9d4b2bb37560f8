"""The demo: a residual network on the handwritten digits that ship with scikit-learn (real scans, 8 x 8 pixels).

1,797 images are split by a fixed seed into 897 for training, 450 for validation (the search) and 450 for test (once).
Training takes well under a minute on two cores; the weights are kept in the run directory.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.trial.task import Task

Batch = tuple[Tensor, Tensor]


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm, and a shortcut that is projected where the width changes."""

    def __init__(self, entering: int, leaving: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entering, leaving, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(leaving)
        self.conv2 = nn.Conv2d(leaving, leaving, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(leaving)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or entering != leaving:
            self.shortcut = nn.Sequential(nn.Conv2d(entering, leaving, 1, stride, bias=False), nn.BatchNorm2d(leaving))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, entering, h, w) to (n, leaving, h / stride, w / stride)."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class DigitsNet(nn.Module):
    """A residual network for (n, 1, 8, 8) images and ten classes."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.block1 = Block(width, width, 1)
        self.block2 = Block(width, 2 * width, 2)
        self.block3 = Block(2 * width, 2 * width, 1)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, 1, 8, 8) to logits (n, 10)."""
        x = F.relu(self.bn(self.stem(x)))
        x = self.block3(self.block2(self.block1(x)))
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


def accuracy(data: Batch, model: nn.Module) -> float:
    """Return the fraction of images that the model names right."""
    images, labels = data
    return float((model(images).argmax(1) == labels).float().mean())


def sample_accuracy(data: Batch, model: nn.Module, samples: int) -> float:
    """Return the accuracy on the first ``samples`` images; they are in random order."""
    return accuracy((data[0][:samples], data[1][:samples]), model)


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Return the mean cross-entropy of a batch."""
    return F.cross_entropy(model(batch[0]), batch[1])


def train(data: Batch, model: nn.Module, steps: int, learning_rate: float = 0.05, seed: int = 0) -> None:
    """Train in place by SGD with momentum and a cosine schedule, on batches of 64 drawn by ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for _ in range(steps):
        chosen = torch.randint(len(data[1]), (64,), generator=generator)
        loss = cross_entropy(model, (data[0][chosen], data[1][chosen]))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    model.eval()


def digits() -> tuple[Batch, Batch, Batch]:
    """Return training, validation and test data: images (n, 1, 8, 8) in [0, 1] and labels (n,)."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels.astype(np.float32)).reshape(-1, 1, 8, 8) / 16
    targets = torch.from_numpy(labels.astype(np.int64))
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(targets)))
    training, validation, test = ((images[part], targets[part]) for part in torch.split(order, [897, 450, 450]))
    return training, validation, test


def task(directory: Path) -> Task:
    """Return the digits task; the network is trained once and kept in ``directory``."""
    training, validation, test = digits()
    model = DigitsNet()
    weights = directory / "digits_dense.safetensors"
    if weights.is_file():
        model.load_state_dict(load_file(weights))
    else:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = DigitsNet()
            train(training, model, steps=250)
        directory.mkdir(parents=True, exist_ok=True)
        part = weights.with_name(weights.name + ".part")
        save_file(model.state_dict(), part)
        part.replace(weights)  # whole or not at all, so that a run that was killed goes on
    return Task(
        model=model.eval(),
        example_inputs=validation[0][:1],
        evaluate=partial(accuracy, validation),
        evaluate_sample=partial(sample_accuracy, validation),
        test=partial(accuracy, test),
        batches=list(zip(torch.split(training[0], 128), torch.split(training[1], 128), strict=True)),
        loss=cross_entropy,
        finetune=partial(train, training, learning_rate=0.01),
    )
