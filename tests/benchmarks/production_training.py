"""One config in production training: ``python tests/benchmarks/production_training.py DATA CONFIG.yaml``.

ResNet-20 on the CIFAR-10 subset in DATA (``cifar10_small.npz``, ``weights/``, ``nets/`` on PYTHONPATH). The config is
applied to the dense checkpoint in one shot, with fine-tuning, and to a network trained from scratch with the cubic
schedule; beside each the same with random masks. Accuracy on the last 1,000 test images, seeds 0 to 2.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from nets_resnet_cifar import resnet_cifar
from torch.nn import functional as F

import autoprune as ap

MEAN, STD = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
BATCH = 64


def images(data, part):
    pixels = torch.from_numpy(data[f"x_{part}"]).permute(0, 3, 1, 2) / 255
    return (pixels - MEAN) / STD, torch.from_numpy(data[f"y_{part}"]).long()


def accuracy(model, data):
    model.eval()
    with torch.no_grad():
        parts = [model(x).argmax(1).eq(y) for x, y in zip(data[0].split(250), data[1].split(250), strict=True)]
    return float(torch.cat(parts).float().mean())


def augmented(x, generator):
    """Flip half of the images and shift all by up to two pixels."""
    flipped = torch.where(torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5, x, x.flip(3))
    down, across = torch.randint(0, 5, (2,), generator=generator).tolist()
    return F.pad(flipped, (2, 2, 2, 2))[:, :, down : down + 32, across : across + 32]


def train(model, data, epochs, rate, seed, make_sparsifier=None):
    """Train by SGD with momentum under a cosine; return the network, smaller where there is a sparsifier."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
    steps = epochs * (len(data[1]) // BATCH)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    sparsifier = make_sparsifier(model, optimizer, steps) if make_sparsifier else None
    model.train()
    for step in range(steps):
        if step % (len(data[1]) // BATCH) == 0:
            order = torch.randperm(len(data[1]), generator=generator).split(BATCH)
        chosen = order[step % (len(data[1]) // BATCH)]
        optimizer.zero_grad()
        F.cross_entropy(model(augmented(data[0][chosen], generator)), data[1][chosen]).backward()
        optimizer.step()
        decay.step()
        if sparsifier is not None:
            sparsifier.step()
    return sparsifier.finalize() if sparsifier is not None else model


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("config", type=Path)
    parser.add_argument("--finetune-epochs", type=int, default=1)
    parser.add_argument("--scratch-epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arrays = dict(np.load(arguments.data / "cifar10_small.npz"))
    training, test = images(arrays, "train"), tuple(part[1000:] for part in images(arrays, "test"))
    checkpoint = torch.load(arguments.data / "weights" / "cifar10_resnet20.pt", weights_only=True)
    chosen = ap.load_config(arguments.config)
    example = test[0][:1]
    batches = [(training[0][:256], training[1][:256])]

    def dense(seed=None):
        torch.manual_seed(seed or 0)
        model = resnet_cifar(20)
        if seed is None:
            model.load_state_dict(checkpoint)
        return model

    def with_config(config, schedule):
        def make(model, optimizer, steps):
            return ap.Sparsifier(model, config, optimizer, schedule(steps), example_inputs=example)

        return make

    def random_masks(seed):
        layers = {
            name: tuple(choice.model_copy(update={"criterion": "random"}) for choice in choices)
            for name, choices in chosen.layers.items()
        }
        return chosen.model_copy(update={"layers": layers, "seed": seed})

    def one_shot(config):
        bare = config.model_copy(update={"recovery": ap.PruningConfig.model_fields["recovery"].default})
        return ap.apply(dense(), bare, example, batches=batches)

    def cubic(steps):
        return ap.CubicSchedule(begin=steps // 10, end=3 * steps // 4, every=max(1, steps // 100))

    rows = {}
    began = time.perf_counter()

    def add(row, value):
        rows.setdefault(row, []).append(100 * value)
        print(f"# {time.perf_counter() - began:5.0f} s  {row}: {100 * value:.1f}", flush=True)

    few, many = arguments.finetune_epochs, arguments.scratch_epochs
    add("dense checkpoint", accuracy(dense(), test))
    add("one shot, batch norm recalibrated", accuracy(one_shot(chosen), test))
    for seed in range(arguments.seeds):
        add(f"from scratch, dense, {many} epochs", accuracy(train(dense(seed), training, many, 0.1, seed), test))
        add("one shot, batch norm recalibrated, random masks", accuracy(one_shot(random_masks(seed)), test))
        for what, config in (("", chosen), (", random masks", random_masks(seed))):
            tuned = train(dense(), training, few, 0.01, seed, with_config(config, lambda _: ap.OneShotSchedule()))
            add(f"fine-tuned {few} epoch{what}", accuracy(tuned, test))
            grown = train(dense(seed), training, many, 0.1, seed, with_config(config, cubic))
            add(f"from scratch, cubic, {many} epochs{what}", accuracy(grown, test))
    print("| network | test accuracy % (mean of seeds) | each |\n|:--|--:|:--|")
    for row, values in rows.items():
        print(f"| {row} | {statistics.mean(values):.1f} | {', '.join(f'{value:.1f}' for value in values)} |")
    print(f"\n{time.perf_counter() - began:.0f} s, one thread.")


if __name__ == "__main__":
    main()
