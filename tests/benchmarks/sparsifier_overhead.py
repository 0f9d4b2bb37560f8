"""What a sparsifier costs: ``python tests/benchmarks/sparsifier_overhead.py DATA``, DATA/nets on PYTHONPATH.

Two trainings of ResNet-20 at batch 32 run interleaved, A B B A, 25 steps at a time: one with a sparsifier whose masks
change every 10 steps, one without. The figure is the ratio of the two times, with a 95 % bootstrap interval over
rounds of 100 steps each.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from nets_resnet_cifar import resnet_cifar
from torch.nn.functional import cross_entropy

import autoprune as ap
from autoprune.graph.trace import fingerprint
from autoprune.spec.config import ModelIdentity, PruningConfig

CHUNK = 25


class Run:
    """A training that can be continued step by step."""

    def __init__(self, batch, with_sparsifier, steps):
        torch.manual_seed(0)
        self.model = resnet_cifar(20)
        self.batch = batch
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
        self.sparsifier = None
        if with_sparsifier:
            weights = {"granularity": "weight", "criterion": "magnitude_l1", "sparsity": 0.8}
            channels = {"granularity": "channel", "criterion": "magnitude_l1", "sparsity": 0.5}
            blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(3)]
            layers = {f"{name}.conv1": channels for name in blocks} | {f"{name}.conv2": weights for name in blocks}
            config = PruningConfig(model=ModelIdentity(fingerprint=fingerprint(self.model)), layers=layers)
            schedule = ap.CubicSchedule(begin=0, end=steps, every=10)
            self.sparsifier = ap.Sparsifier(self.model, config, self.optimizer, schedule, example_inputs=batch[0][:1])
        self.model.train()

    def advance(self):
        began = time.perf_counter()
        for _ in range(CHUNK):
            self.optimizer.zero_grad()
            cross_entropy(self.model(self.batch[0]), self.batch[1]).backward()
            self.optimizer.step()
            if self.sparsifier is not None:
                self.sparsifier.step()
        return time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arrays = dict(np.load(arguments.data / "cifar10_small.npz"))
    batch = (
        torch.from_numpy(arrays["x_train"][:32]).permute(0, 3, 1, 2) / 255,
        torch.from_numpy(arrays["y_train"][:32]).long(),
    )
    steps = (arguments.rounds + 1) * 4 * CHUNK
    plain, pruned = Run(batch, False, steps), Run(batch, True, steps)
    ratios, seconds = [], []
    for number in range(arguments.rounds + 1):
        order = (plain, pruned, pruned, plain, plain, pruned, pruned, plain)
        times = [(run, run.advance()) for run in order]
        without, with_ = (sum(t for run, t in times if run is which) for which in (plain, pruned))
        if number:  # the first round warms up
            ratios.append(with_ / without)
            seconds.append(without)
    generator = np.random.default_rng(0)
    means = [np.mean(generator.choice(ratios, len(ratios))) for _ in range(10_000)]
    low, high = np.percentile(means, [2.5, 97.5])
    print("| 100 steps without | ratio with a sparsifier | 95 % interval | rounds |\n|--:|--:|--:|--:|")
    print(f"| {statistics.median(seconds):.2f} s | {np.mean(ratios):.3f} | {low:.3f}–{high:.3f} | {len(ratios)} |")


if __name__ == "__main__":
    main()
