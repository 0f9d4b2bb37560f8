"""Studies whose trials cost nothing: a runner that scores and costs a config by its sparsities.

A test that uses it puts :class:`StubRunner` in the place of ``autoprune.search.study.TrialRunner``.
"""

import functools
import types

import torch
from small_task import small_net

from autoprune.graph.groups import find_groups
from autoprune.pruning.scores import ScoreBook
from autoprune.search.study import Study
from autoprune.spec.config import RecoverySpec
from autoprune.spec.record import TrialRecord
from autoprune.spec.study import StudySpec
from autoprune.trial.runner import TrialRunner
from autoprune.trial.task import Task

SPACE = {
    "schema": "autoprune/space/1",
    "name": "s",
    "rules": [
        {
            "granularity": ["channel", "weight"],
            "criterion": ["magnitude_l1", "random"],
            "sparsity": {"low": 0.0, "high": 0.8, "step": 0.1},
        }
    ],
}


@functools.cache
def graph_of(width):
    return find_groups(small_net(width), (torch.zeros(1, 4, 6, 6),))


class StubRunner(TrialRunner):
    """Scores and costs a config by its sparsities; ``behave(number of runs)`` may raise."""

    runs = 0

    def __init__(self, task, spec, groundwork=None, *, metered=True):
        self.task, self.spec, self.data = task, spec, task.calibration
        self.model = task.model
        self.graph = graph_of(self.model.stem.out_channels)
        self.recovery = RecoverySpec(batchnorm_samples=0)
        self.book = ScoreBook(self.data.evidence(self.model, self.graph, 0))
        self.meter, self.modelled_because, self.proof = None, "", "proven"
        self.costs = types.SimpleNamespace(model=None, device=None, devices={})
        self.profile = type("Profile", (), {"title": "a device"})()
        self.devices = {}
        self.behave = lambda runs: None

    def run_dense(self, number):
        self.behave(0)
        values = {"macs": 1000.0, "accuracy_drop": 0.0}
        return TrialRecord(
            number=number, state="complete", origin="dense", config=self.dense_config, score=1.0, values=values
        )

    def run(self, config, number, origin, dense, rung=None):
        self.runs += 1
        self.behave(self.runs)
        gone = sum(choice.fraction for _, choice in config.choices()) / 4
        values = {"macs": 1000 * (1 - gone)}
        violations = self._violations(values, dense)
        shared = {"number": number, "state": "complete", "origin": origin, "config": config}
        if violations:
            return TrialRecord(**shared, values=values, violations=violations)
        return TrialRecord(**shared, values=values | {"accuracy_drop": gone / 2}, score=1 - gone / 2)


def make(directory, trials=12, sampler="random", model=None, test=None, **changes):
    spec = StudySpec.model_validate(
        {
            "schema": "autoprune/study/1",
            "task": "a:b",
            "space": SPACE,
            "objectives": ["accuracy_drop", "macs"],
            "latency": {"survey_s": 0},
            "search": {"sampler": sampler, "trials": trials, "seed": 0, **changes.pop("search", {})},
        }
        | changes
    )
    task = Task(model=model or small_net(), example_inputs=torch.zeros(1, 4, 6, 6), evaluate=lambda _: 1.0, test=test)
    return Study(task, spec, directory)
