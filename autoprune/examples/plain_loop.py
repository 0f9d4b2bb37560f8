"""A config through a plain training loop: ``python -m autoprune.examples.plain_loop [DIRECTORY]``.

Half of the channels of the digits network go while it trains, by the cubic schedule; the smaller network is saved,
loaded again, compared with its config, and exported.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import autoprune as ap
from autoprune.examples.digits import DigitsNet, accuracy, cross_entropy, digits
from autoprune.graph.groups import find_groups
from autoprune.spec.config import LayerChoice, ModelIdentity


def half_of_the_channels(model: torch.nn.Module, inputs: torch.Tensor) -> ap.PruningConfig:
    """Return what a search would have chosen: here, half of the channels (or attention heads) of every group."""
    graph = find_groups(model, (inputs,))
    layers = {
        name: (LayerChoice(granularity=group.kind, criterion="magnitude_l2", sparsity=0.5),)
        for name, group in graph.groups.items()
    }
    return ap.PruningConfig(model=ModelIdentity(fingerprint=graph.fingerprint), layers=layers)


def main(directory: Path, steps: int = 100, width: int = 12) -> float:
    """Train, prune, save, load and export; return the accuracy of the smaller network on validation data."""
    torch.manual_seed(0)
    training, validation, _ = digits()
    model = DigitsNet(width)
    inputs = validation[0][:1]
    config = half_of_the_channels(model, inputs)  # yours: ap.load_config("config.yaml")

    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    schedule = ap.CubicSchedule(begin=steps // 10, end=steps * 3 // 4, every=steps // 20)
    sparsifier = ap.Sparsifier(model, config, optimizer, schedule, example_inputs=inputs)
    model.train()
    for _ in range(steps):
        chosen = torch.randint(len(training[1]), (64,))
        loss = cross_entropy(model, (training[0][chosen], training[1][chosen]))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        sparsifier.step()
        decay.step()
    smaller = sparsifier.finalize()
    ap.verify(smaller, config, DigitsNet(width), inputs).raise_for_differences()

    ap.save_pruned(smaller, directory / "pruned.safetensors", config)
    loaded = ap.load_pruned(DigitsNet(width), directory / "pruned.safetensors")
    score = accuracy(validation, loaded)
    print(f"accuracy {score:.4f}; {ap.export(loaded, directory / 'pruned.pt2', inputs, dynamic_batch=True)}")  # noqa: T201
    return score


if __name__ == "__main__":
    with TemporaryDirectory() as scratch:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else scratch))
