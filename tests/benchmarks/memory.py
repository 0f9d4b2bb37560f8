"""Memory over 500 trials in one process: plan, cut, cost, recalibrate, evaluate ResNet-20 with random channel configs.

AUTOPRUNE_DATA=DATA PYTHONPATH=DATA/nets python tests/benchmarks/memory.py
"""

import random
import resource
from pathlib import Path

import torch

from autoprune.spec.config import LayerChoice, ModelIdentity, PruningConfig, RecoverySpec
from autoprune.spec.study import load_study
from autoprune.trial.runner import TrialRunner
from autoprune.trial.task import load_task

HERE = Path(__file__).parent
TRIALS, SETTLED = 500, 50


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def main() -> None:
    torch.set_num_threads(1)
    spec = load_study(HERE / "resnet20.yaml")
    spec = spec.model_copy(update={"latency": spec.latency.model_copy(update={"budget_s": 0.05})})
    task = load_task(spec.task)
    runner = TrialRunner(task, spec)
    dense = runner.run_dense(0)
    draw = random.Random(0)
    sizes = []
    for number in range(1, TRIALS + 1):
        layers = {
            name: (LayerChoice(granularity="channel", criterion="taylor", sparsity=draw.choice((0.25, 0.5, 0.75))),)
            for name in runner.graph.groups
            if draw.random() < 0.5
        }
        identity = ModelIdentity(fingerprint=runner.graph.fingerprint)
        config = PruningConfig(model=identity, recovery=RecoverySpec(batchnorm_samples=16), layers=layers)
        runner.run(config, number, "random", dense)
        sizes.append(resident_mb())
    settled, last = sizes[SETTLED - 1], max(sizes[-SETTLED:])
    print(f"| after {SETTLED} trials | largest of the last {SETTLED} of {TRIALS} | growth |\n|--:|--:|--:|")
    print(f"| {settled:.0f} MB | {last:.0f} MB | {last / settled - 1:+.1%} |")


if __name__ == "__main__":
    main()
