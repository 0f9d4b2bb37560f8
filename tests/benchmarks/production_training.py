"""One config in production training: ``python tests/benchmarks/production_training.py DATA CONFIG.yaml``.

ResNet-20 on the CIFAR-10 subset in DATA (``cifar10_small.npz``, ``weights/``, ``nets/`` on PYTHONPATH). The config is
applied to the dense checkpoint and to networks trained from scratch: in one shot, and under the cubic schedule; beside
each the same with random masks. Accuracy on the last 1,000 test images, seeds 0 to 2. Every run is kept in RUNS.jsonl
when it is done, and the same command goes on with those that are missing; the report is written anew after each.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from nets_resnet_cifar import resnet_cifar
from torch.nn import functional as F

import autoprune as ap

MEAN, STD = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
BATCH = 64
REPORT = Path("reports/production-training/resnet20.md")


def accuracy(model, data):
    model.eval()
    with torch.no_grad():
        parts = [model(x).argmax(1).eq(y) for x, y in zip(data[0].split(250), data[1].split(250), strict=True)]
    return float(torch.cat(parts).float().mean())


def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def augmented(x, generator):
    """Flip half of the images and shift all by up to two pixels."""
    flipped = torch.where(torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5, x, x.flip(3))
    down, across = torch.randint(0, 5, (2,), generator=generator).tolist()
    return F.pad(flipped, (2, 2, 2, 2))[:, :, down : down + 32, across : across + 32]


def train(model, data, epochs, rate, seed, make_sparsifier=None):
    """Train by SGD with momentum under a cosine, in bfloat16; return the network, pruned if there is a sparsifier."""
    generator = torch.Generator().manual_seed(seed)
    model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
    each = len(data[1]) // BATCH
    steps = epochs * each
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    sparsifier = make_sparsifier(model, optimizer, steps) if make_sparsifier else None
    for step in range(steps):
        if step % each == 0:
            order = torch.randperm(len(data[1]), generator=generator).split(BATCH)
        chosen = order[step % each]
        optimizer.zero_grad()
        images = augmented(data[0][chosen], generator).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            error = loss(model, (images, data[1][chosen]))
        error.backward()
        optimizer.step()
        decay.step()
        if sparsifier is not None:
            sparsifier.step()
    return sparsifier.finalize() if sparsifier is not None else model


def cubic(steps):
    return ap.CubicSchedule(begin=steps // 10, end=3 * steps // 4, every=max(1, steps // 20))


@dataclass
class Bench:
    """Data, config and budget of every run."""

    data: Path
    config: ap.PruningConfig
    tune: int
    scratch: int

    @cached_property
    def images(self):
        """Return training images and the test images that no search has seen."""
        arrays = dict(np.load(self.data / "cifar10_small.npz"))
        found = []
        for part in ("train", "test"):
            pixels = torch.from_numpy(arrays[f"x_{part}"]).permute(0, 3, 1, 2) / 255
            found.append(((pixels - MEAN) / STD, torch.from_numpy(arrays[f"y_{part}"]).long()))
        return found[0], tuple(part[1000:] for part in found[1])

    def network(self, seed=None):
        """Return the dense checkpoint, or a fresh network."""
        torch.manual_seed(seed or 0)
        model = resnet_cifar(20)
        if seed is None:
            path = self.data / "weights" / "cifar10_resnet20.pt"
            model.load_state_dict(torch.load(path, weights_only=True))
        return model

    def chosen(self, random, seed):
        """Return the config without the search's recovery; with random masks where asked."""
        layers = self.config.layers
        if random:
            layers = {
                name: tuple(choice.model_copy(update={"criterion": "random"}) for choice in choices)
                for name, choices in layers.items()
            }
        bare = {"layers": layers, "recovery": ap.PruningConfig.model_fields["recovery"].default}
        return self.config.model_copy(update=bare | ({"seed": seed} if random else {}))

    def calibration(self):
        x, y = self.images[0]
        return list(zip(x[:1024].split(256), y[:1024].split(256), strict=True))

    def one_shot(self, model, random, seed):
        config = self.chosen(random, seed)
        pruned = ap.apply(model, config, self.images[1][0][:1], batches=self.calibration(), loss=loss)
        return accuracy(pruned, self.images[1])

    def trained(self, model, epochs, rate, random, seed, schedule):
        def make(model, optimizer, steps):
            return ap.Sparsifier(
                model,
                self.chosen(random, seed),
                optimizer,
                schedule(steps),
                example_inputs=self.images[1][0][:1],
                batches=[tuple(part[:BATCH] for part in self.images[0])],
                loss=loss,
            )

        return accuracy(train(model, self.images[0], epochs, rate, seed, make), self.images[1])

    def tuned(self, random, seed, schedule):
        return self.trained(self.network(), self.tune, 0.01, random, seed, schedule)

    def grown(self, random, seed):
        return self.trained(self.network(seed), self.scratch, 0.1, random, seed, cubic)

    def dense_then_one_shot(self, seed):
        model = train(self.network(seed), self.images[0], self.scratch, 0.1, seed)
        return {
            "scratch dense": accuracy(model, self.images[1]),
            "scratch one shot": self.one_shot(model, False, seed),
            "scratch one shot random": self.one_shot(model, True, seed),
        }

    def jobs(self, seeds):
        """Return name of a run to the function that makes it; it returns row to accuracy."""
        found: dict[str, Callable] = {"dense/0": lambda: {"dense": accuracy(self.network(), self.images[1])}}
        for seed in range(seeds):
            for random in (False, True):
                also = " random" if random else ""

                def job(row, function, seed=seed, also=also):
                    found[f"{row}{also}/{seed}"] = lambda: {f"{row}{also}": function()}

                job("one shot", lambda r=random, s=seed: self.one_shot(self.network(), r, s))
                job("tuned one shot", lambda r=random, s=seed: self.tuned(r, s, lambda _: ap.OneShotSchedule()))
                job("tuned cubic", lambda r=random, s=seed: self.tuned(r, s, cubic))
                job("scratch cubic", lambda r=random, s=seed: self.grown(r, s))
            found[f"scratch dense/{seed}"] = lambda s=seed: self.dense_then_one_shot(s)
        return found


def rows(tune, scratch):
    """Return (heading, row) to the words of the table: the config's criteria and random masks stand side by side."""
    return [
        ("the dense checkpoint", "dense", None),
        ("the checkpoint, one shot, no training", "one shot", "one shot random"),
        (f"the checkpoint, one shot, then {tune} epoch", "tuned one shot", "tuned one shot random"),
        (f"the checkpoint, cubic schedule over {tune} epoch", "tuned cubic", "tuned cubic random"),
        (f"from scratch, dense, {scratch} epochs", "scratch dense", None),
        (f"from scratch, dense, {scratch} epochs, then one shot", "scratch one shot", "scratch one shot random"),
        (f"from scratch, cubic schedule, {scratch} epochs", "scratch cubic", "scratch cubic random"),
    ]


def cell(values):
    if not values:
        return ""
    each = f" ({', '.join(f'{100 * value:.1f}' for value in values)})" if len(set(values)) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{each}"


def share_removed(config, model):
    """Return the fraction of the network's weights that weight patterns of the config remove."""
    sizes = {name: module.weight.numel() for name, module in model.named_modules() if name in config.layers}
    total = sum(parameter.numel() for parameter in model.parameters() if parameter.dim() > 1)
    return sum(choice.fraction * sizes[name] for name, choice in config.choices()) / total


def write(report, records, arguments, bench):
    values = {}
    for record in records:
        for row, value in record["accuracy"].items():
            values.setdefault(row, []).append(value)
    lines = [
        f"| {words} | {cell(values.get(row, []))} | {cell(values.get(other, []))} |"
        for words, row, other in rows(bench.tune, bench.scratch)
    ]
    left = len(bench.jobs(arguments.seeds).keys() - {record["run"] for record in records})
    missing = f" ({left} runs are not there yet; the same command goes on)" if left else ""
    removed = 100 * share_removed(bench.config, bench.network())
    text = f"""# ResNet-20 on CIFAR-10: one config, from a checkpoint and from scratch

The config is [{arguments.config.name}]({arguments.config.name}), trial {bench.config.provenance.trial} of a search
([resnet20-study.yaml](resnet20-study.yaml)); it removes {removed:.0f} % of the weights. 5,000 training images, flips
and shifts of two pixels, SGD with momentum 0.9, weight decay 5e-4, batch {BATCH}, cosine to zero, bfloat16 autocast;
from the checkpoint the learning rate starts at 0.01, from scratch at 0.1. Masks change between 10 % and 75 % of the
steps, 14 times in all. After one shot batch norm is estimated anew on 1,024 training images. Test accuracy
in % on the last 1,000 of the 2,000 test images here (the search saw the first 1,000), mean of seeds 0 to
{arguments.seeds - 1}{missing} (each); random masks are the same config with the criterion `random`. The budget
is the same in all rows of a kind; {bench.scratch} epochs of 5,000 images do not converge: compare the rows.

```
PYTHONPATH=DATA/nets python tests/benchmarks/production_training.py DATA {arguments.config}
```

| network | the config | random masks |
|:--|--:|--:|
{chr(10).join(lines)}

{sum(record["seconds"] for record in records) / 60:.0f} minutes on one thread beside other work; every run stands in
[{arguments.runs.name}]({arguments.runs.name}).
"""
    report.write_text(text, encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("config", type=Path)
    parser.add_argument("--runs", type=Path, default=REPORT.with_suffix(".jsonl"))
    parser.add_argument("--report", type=Path, default=REPORT)
    parser.add_argument("--tune-epochs", type=int, default=1)
    parser.add_argument("--scratch-epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table-only", action="store_true", help="Write the report from the runs that are there.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = ap.load_config(arguments.config)
    bench = Bench(arguments.data, config, arguments.tune_epochs, arguments.scratch_epochs)
    budget = {"config": config.signature, "tune": bench.tune, "scratch": bench.scratch}
    lines = arguments.runs.read_text(encoding="utf-8").splitlines() if arguments.runs.exists() else []
    records = [record for record in map(json.loads, lines) if record["budget"] == budget]
    done = {record["run"] for record in records}
    for run, make in () if arguments.table_only else bench.jobs(arguments.seeds).items():
        if run in done:
            continue
        began = time.perf_counter()
        record = {"run": run, "accuracy": make(), "seconds": round(time.perf_counter() - began), "budget": budget}
        records.append(record)
        with arguments.runs.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(f"# {record['seconds']:5d} s  {record['accuracy']}", flush=True)
        write(arguments.report, records, arguments, bench)
    write(arguments.report, records, arguments, bench)


if __name__ == "__main__":
    main()
