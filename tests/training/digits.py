"""The bundled digits and a small network for them: what methods are tried on."""

from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import autoprune as ap
from autoprune.graph.trace import fingerprint
from autoprune.spec.config import ModelIdentity, PruningConfig


@cache
def digits():
    """Return ((x, y) for training, (x, y) for validation): 900 and 897 images of 64 pixels."""
    pixels, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    x, y = torch.from_numpy(pixels / 16).float()[order], torch.from_numpy(labels)[order]
    return (x[:900], y[:900]), (x[900:], y[900:])


def net(seed: int = 0, norm: bool = False) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        middle = [nn.BatchNorm1d(48)] if norm else []
        return nn.Sequential(nn.Linear(64, 48), *middle, nn.ReLU(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10))


def config(model, layers, criterion="magnitude_l1", seed=0) -> PruningConfig:
    """Return a config: layer name to (granularity, sparsity)."""
    return PruningConfig(
        model=ModelIdentity(fingerprint=fingerprint(model)),
        seed=seed,
        layers={
            name: {"granularity": shape, "criterion": criterion, "sparsity": sparsity}
            for name, (shape, sparsity) in layers.items()
        },
    )


def accuracy(model) -> float:
    model.eval()
    with torch.no_grad():
        return float((model(digits()[1][0]).argmax(1) == digits()[1][1]).float().mean())


def train(model, chosen, schedule, method="gradual", *, steps=400, seed=0, rate=0.1, decay=True, **options):
    """Train under a sparsifier by SGD with momentum and a cosine, and return the sparsifier."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps) if decay else None
    sparsifier = ap.Sparsifier(
        model, chosen, optimizer, schedule, method=method, example_inputs=digits()[1][0][:2], **options
    )
    x, y = digits()[0]
    model.train()
    for _ in range(steps):
        batch = torch.randint(len(y), (64,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
        if cosine is not None:
            cosine.step()
        sparsifier.step()
    return sparsifier
