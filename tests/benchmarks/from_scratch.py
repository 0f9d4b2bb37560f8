"""Methods against random masks over whole trainings: ``python tests/benchmarks/from_scratch.py [REPORT.md]``.

The bundled digits (900 images for training, 897 for validation) and a network that converges on them in seconds:
64-48-32-10, batch norm where channels go. Every network is trained from scratch for as many steps as the dense one,
under SGD with momentum and a cosine, masks changing between 10 % and 75 % of the steps; lottery tickets take one
training more for each round, as published. The table is written to the report, whole. Seeds 0 to 2.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))

from digits import accuracy, config, net, train

import autoprune as ap
from autoprune.training.methods import METHODS, NetworkSlimming

STEPS = 800
LEVELS = {"weight": (0.8, 0.9, 0.95, 0.98), "channel": (0.5, 0.75, 0.875)}
CUBIC = ap.CubicSchedule(begin=STEPS // 10, end=3 * STEPS // 4, every=STEPS // 40)
DYNAMIC = ap.ConstantSchedule(begin=0, end=3 * STEPS // 4, every=STEPS // 40)
TICKETS = ap.IterativeSchedule(begin=STEPS, end=4 * STEPS, rounds=4)
WHAT = {"weight": "single weights", "channel": "channels"}


def run(kind, sparsity, seed, method, schedule, criterion="magnitude_l1", **options):
    model = net(seed, norm=kind == "channel")
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
        "random masks, cubic schedule": lambda s, seed: run(kind, s, seed, "gradual", CUBIC, "random", steps=STEPS),
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
    return f"{100 * statistics.mean(values):.1f} ({low:.1f}–{high:.1f})"


def table(kind, seeds, began):
    lines = [
        f"| {WHAT[kind]} | " + " | ".join(f"{100 * level:g} %" for level in LEVELS[kind]) + " | beats random masks |",
        "|:--|" + "--:|" * (len(LEVELS[kind]) + 1),
    ]
    baseline = None
    for name, trained in rows(kind).items():
        found = [[trained(level, seed) for seed in range(seeds)] for level in LEVELS[kind]]
        print(
            f"# {time.perf_counter() - began:5.0f} s  {kind} {name}: {[round(statistics.mean(v), 3) for v in found]}",
            flush=True,
        )
        baseline = baseline or found
        wins = sum(a > b for level, base in zip(found, baseline, strict=True) for a, b in zip(level, base, strict=True))
        shown = "" if found is baseline else f"{wins} of {seeds * len(found)}"
        lines.append(f"| {name} | " + " | ".join(map(cell, found)) + f" | {shown} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, nargs="?", default=Path("reports/production-training/from-scratch.md"))
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    dense = {}
    for kind in LEVELS:
        dense[kind] = [run(kind, 0.0, seed, "gradual", CUBIC, steps=STEPS) for seed in range(arguments.seeds)]
    tables = {kind: table(kind, arguments.seeds, began) for kind in LEVELS}
    took = time.perf_counter() - began
    text = f"""# Trained from scratch: every method against random masks

The bundled digits (900 images for training, 897 for validation), a network 64-48-32-10, with batch norm where
channels go; the first two layers lose the same share. All are trained from scratch for {STEPS} steps of batch 64, SGD
with momentum 0.9 under a cosine from 0.1, which converges; masks change between 10 % and 75 % of the steps (RigL and
SET: at their sparsity from the first step on). Lottery tickets take four trainings more, without a cosine, as
published. Validation accuracy in %, mean of seeds 0 to {arguments.seeds - 1} (lowest to highest). "gradual" is
magnitude under the cubic schedule. The last column: in how many of the pairs of sparsity and seed a row beats random
masks of the same seed under the cubic schedule.

```
python tests/benchmarks/from_scratch.py
```

Dense: {cell(dense["weight"])} without batch norm, {cell(dense["channel"])} with it.

{tables["weight"]}

{tables["channel"]}

{took:.0f} s, one thread, beside other work.
"""
    arguments.report.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
