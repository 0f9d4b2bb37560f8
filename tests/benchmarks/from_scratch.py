"""Methods against random masks over whole trainings: ``python tests/benchmarks/from_scratch.py [REPORT.md]``.

The bundled digits (900 images for training, 897 for validation) and a network that converges on them in seconds:
64-48-32-10, with batch norm where channels go. Every network is trained from scratch for as many steps as the dense
one, under SGD with momentum and a cosine, masks changing between 10 % and 75 % of the steps; lottery tickets take one
training more for each round, as published. Seeds 0 to 2. Every training is kept in REPORT.jsonl when it is done, and
the same command goes on with those that are missing; the report is written, whole, after each row.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))

from digits import accuracy, config, net, train

import autoprune as ap
from autoprune.training.methods import METHODS, NetworkSlimming

STEPS = 800
LEVELS = {"weight": (0.8, 0.9, 0.95, 0.98), "channel": (0.5, 0.75, 0.875)}
CUBIC = ap.CubicSchedule(begin=STEPS // 10, end=3 * STEPS // 4, every=STEPS // 40)
DYNAMIC = ap.ConstantSchedule(begin=0, end=3 * STEPS // 4, every=STEPS // 40)
TICKETS = ap.IterativeSchedule(begin=STEPS, end=4 * STEPS, rounds=4)
RANDOM = "random masks, cubic schedule"
WHAT = {"weight": "single weights", "channel": "channels"}


def network(kind, seed):
    """Return a fresh network: 64-48-32-10, where channels go with batch norm after both layers that lose them."""
    if kind == "weight":
        return net(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        hidden = [
            (nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU()) for inputs, width in ((64, 48), (48, 32))
        ]
        return nn.Sequential(*hidden[0], *hidden[1], nn.Linear(32, 10))


def run(kind, sparsity, seed, method, schedule, criterion="magnitude_l1", **options):
    model = network(kind, seed)
    chosen = config(
        model, {"0": (kind, sparsity), ("3" if kind == "channel" else "2"): (kind, sparsity)}, criterion, seed
    )
    return accuracy(train(model, chosen, schedule, method, seed=seed, **options).finalize())


def one_shot(kind, sparsity, seed):
    """Train dense, then prune by magnitude and train no more."""
    return run(kind, sparsity, seed, "gradual", ap.OneShotSchedule(at=STEPS), steps=STEPS)


def rows(kind):
    """Return row to function of (sparsity, seed)."""
    found = {
        RANDOM: lambda s, seed: run(kind, s, seed, "gradual", CUBIC, "random", steps=STEPS),
        "one shot after the training": lambda s, seed: one_shot(kind, s, seed),
    }
    for name in METHODS.names():
        if name in ("rigl", "set"):
            if kind == "weight":
                found[name] = lambda s, seed, name=name: run(kind, s, seed, name, DYNAMIC, steps=STEPS)
        elif name == "lottery":
            if kind == "weight":
                found[name] = lambda s, seed: run(kind, s, seed, "lottery", TICKETS, steps=5 * STEPS, decay=False)
        elif name == "slimming":
            if kind == "channel":
                found[name] = lambda s, seed: run(kind, s, seed, NetworkSlimming(0.003), CUBIC, steps=STEPS)
        else:
            found[name] = lambda s, seed, name=name: run(kind, s, seed, name, CUBIC, steps=STEPS)
    return found


def cell(values):
    low, high = (100 * each(values) for each in (min, max))
    spread = f" ({low:.1f}–{high:.1f})" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{spread}"


class Runs:
    """Accuracies by (kind, row, sparsity, seed), each kept in a file when it is known.

    Attributes:
        seconds: Of all trainings.
    """

    def __init__(self, path):
        self._path = path
        self._known = {}
        self.seconds = 0.0
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            *key, accuracy, seconds = json.loads(line)
            self._remember(tuple(key), accuracy, seconds)

    def _remember(self, key, accuracy, seconds):
        self._known[key] = accuracy
        self.seconds += seconds

    def get(self, trained, kind, row, sparsity, seed):
        key = (kind, row, sparsity, seed)
        if key not in self._known:
            began = time.process_time()
            self._remember(key, trained(sparsity, seed), round(time.process_time() - began, 2))
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([*key, self._known[key], round(time.process_time() - began, 2)]) + "\n")
        return self._known[key]


def table(kind, found, seeds):
    """Return the rows of a kind that are there, as a table.

    Args:
        kind: Key of LEVELS.
        found: Row to the accuracies of each level.
        seeds: How many.
    """
    lines = [
        f"| {WHAT[kind]} | " + " | ".join(f"{100 * level:g} %" for level in LEVELS[kind]) + " | beats random masks |",
        "|:--|" + "--:|" * (len(LEVELS[kind]) + 1),
    ]
    baseline = found.get(RANDOM, [])
    for name, values in found.items():
        pairs = [(a, b) for level, base in zip(values, baseline, strict=True) for a, b in zip(level, base, strict=True)]
        shown = "" if name == RANDOM else f"{sum(a > b for a, b in pairs)} of {seeds * len(values)}"
        lines.append(f"| {name} | " + " | ".join(map(cell, values)) + f" | {shown} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, nargs="?", default=Path("reports/production-training/from-scratch.md"))
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runs = Runs(arguments.report.with_suffix(".jsonl"))
    found = {kind: {} for kind in LEVELS}
    every = range(arguments.seeds)
    for kind in LEVELS:
        dense = lambda s, seed, kind=kind: run(kind, s, seed, "gradual", CUBIC, steps=STEPS)  # noqa: E731
        found[kind]["dense"] = [[runs.get(dense, kind, "dense", 0.0, seed) for seed in every]]
    for kind, levels in LEVELS.items():
        for row, trained in rows(kind).items():
            found[kind][row] = [[runs.get(trained, kind, row, level, seed) for seed in every] for level in levels]
            print(f"# {runs.seconds:5.0f} s  {kind} {row}: {list(map(cell, found[kind][row]))}", flush=True)
            write(arguments.report, found, arguments.seeds, runs.seconds)
    write(arguments.report, found, arguments.seeds, runs.seconds)


def write(report, found, seeds, seconds):
    dense = {kind: cell(rows["dense"][0]) for kind, rows in found.items()}
    tables = {
        kind: table(kind, {row: values for row, values in rows.items() if row != "dense"}, seeds)
        for kind, rows in found.items()
    }
    of = "seed 0" if seeds == 1 else f"mean of seeds 0 to {seeds - 1} (lowest to highest)"
    text = f"""# Trained from scratch: every method against random masks

The bundled digits (900 images for training, 897 for validation), a network 64-48-32-10, with batch norm where
channels go; the first two layers lose the same share. All are trained from scratch for {STEPS} steps of batch 64, SGD
with momentum 0.9 under a cosine from 0.1, which converges; masks change between 10 % and 75 % of the steps (RigL and
SET: at their sparsity from the first step on). Lottery tickets take four trainings more, without a cosine, as
published. Validation accuracy in %, {of}. "gradual" is magnitude under the cubic schedule; of single
weights `group_lasso` is `l1`. The last column: in how many of the pairs of sparsity and seed a row beats random masks
of the same seed under the cubic schedule.

```
python tests/benchmarks/from_scratch.py
```

Dense: {dense["weight"]} without batch norm, {dense["channel"]} with it.

{tables["weight"]}

{tables["channel"]}

{seconds:.0f} s of one thread; every training stands in [{report.stem}.jsonl]({report.stem}.jsonl).
"""
    report.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
