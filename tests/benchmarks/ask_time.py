"""How long the greybox sampler takes to propose: 60 groups, 4 objectives, with more and more trials.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.ask_time [-o reports/samplers/ask-time.md]

The network is a chain of 60 convolutions with its exact costs; drops are drawn; trials lie in memory. A minute or two.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import optuna
import torch
from torch import nn

from autoprune.search.greybox import GreyboxSampler, History
from autoprune.search.greybox.space import SpaceKnowledge
from autoprune.search.proposals import make_proposals
from autoprune.spec.space import SpaceSpec
from autoprune.spec.study import StudySpec
from autoprune.trial.runner import TrialRunner
from autoprune.trial.task import Task
from tests.benchmarks.sampling.problems import OBJECTIVES

COUNTS = (100, 1_000, 10_000)


def chain(layers: int = 60) -> nn.Module:
    parts: list[nn.Module] = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU()]
    for _ in range(layers - 1):
        parts += [nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)).eval()


def main() -> None:
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("reports/samplers/ask-time.md"))
    options = parser.parse_args()
    rule = {
        "granularity": ["channel"],
        "criterion": ["magnitude_l1", "magnitude_l2"],
        "sparsity": {"low": 0, "high": 0.8, "step": 0.1},
    }
    space = SpaceSpec.model_validate({"schema": "autoprune/space/1", "name": "chain", "rules": [rule]})
    spec = StudySpec(task="tests:none", device="raspberry-pi-4", space=space, objectives=OBJECTIVES[4])
    runner = TrialRunner(Task(chain(), torch.randn(1, 3, 16, 16), lambda model: 1.0), spec)
    proposals = make_proposals(space, runner.graph, runner.recovery, 0, runner.book)
    knowledge = SpaceKnowledge(proposals, runner.costs.devices, OBJECTIVES[4], 0.5, 1.0)
    rng = np.random.default_rng(0)
    weights = rng.gamma(1.0, 1 / 30, len(proposals.knobs))
    lines = [
        "# Time of a proposal\n",
        "    OMP_NUM_THREADS=1 python -m tests.benchmarks.ask_time\n",
        f"{len(proposals.knobs)} groups, {len(knowledge.domain.axes)} parameters, 4 objectives; seconds of one core.",
        "First: in a process that has seen none of the trials. Next: the median of five that follow.\n",
        "| trials | first | next |\n|---|---|---|",
    ]
    study = optuna.create_study(directions=["minimize"] * 4)
    for count in COUNTS:
        codes = rng.integers(0, knowledge.domain.sizes, (count - len(study.trials), len(knowledge.domain.axes)))
        codes = np.clip((codes * rng.random((len(codes), 1))).astype(np.int64), 0, knowledge.domain.sizes - 1)
        gone = knowledge.coordinates(codes)[0][:, :: knowledge.tables[0].coordinates.shape[2]]
        drops = (gone**2) @ weights * np.exp(rng.normal(0, 0.1, len(codes)))
        distributions = {axis.name: _distribution(axis.choices) for axis in knowledge.domain.axes}
        study.add_trials(
            [
                optuna.trial.create_trial(
                    params=knowledge.domain.decode(row),
                    distributions=distributions,
                    values=[float(drop), *map(float, cost)],
                )
                for row, drop, cost in zip(codes, drops, knowledge.costs(codes), strict=True)
            ]
        )
        times = []
        history = History()
        for number in range(6):
            study.sampler = GreyboxSampler(number, knowledge, history)
            started = time.process_time()
            trial = study.ask()
            for axis in knowledge.domain.axes:
                trial._suggest(axis.name, distributions[axis.name])
            times.append(time.process_time() - started)
            study.tell(trial, [1.0, 1.0, 1.0, 1.0])
        lines.append(f"| {count:,} | {times[0]:.2f} s | {np.median(times[1:]):.2f} s |")
        print(lines[-1], flush=True)
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _distribution(choices: tuple[object, ...]) -> optuna.distributions.BaseDistribution:
    if isinstance(choices[0], str):
        return optuna.distributions.CategoricalDistribution(choices)
    return optuna.distributions.FloatDistribution(float(choices[0]), float(choices[-1]), step=0.1)


if __name__ == "__main__":
    main()
