"""One run of one sampler: the study's own ask-and-tell, on evaluations that are kept."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.trial import TrialState

from autoprune.search.greybox import History
from autoprune.search.proposals import Proposals
from autoprune.search.samplers import SamplerRequest
from tests.benchmarks.sampling.evaluations import Evaluations

MOST_REPEATS = 100

Make = Callable[[SamplerRequest], optuna.samplers.BaseSampler]


@dataclass(frozen=True)
class Run:
    """What one sampler did on one problem with one seed.

    Attributes:
        problem: Its name.
        row: The sampler.
        objectives: How many it was told.
        seed: Of the sampler.
        first: Trials that every sampler got first.
        values: Of each trial, in the order of ``OBJECTIVES[4]``.
        codes: Of each trial, the place of each parameter's choice in its list, as one letter each.
        ask_s: Seconds that the sampler itself took, all trials together.
        evaluate_s: Seconds of the evaluations, as if none had been known.
    """

    problem: str
    row: str
    objectives: int
    seed: int
    first: int
    values: tuple[tuple[float, ...], ...]
    codes: tuple[str, ...]
    ask_s: float
    evaluate_s: float

    def line(self) -> str:
        """Return it as one line of JSON."""
        data = asdict(self)
        data["values"] = [[round(v, 6) if i == 0 else float(f"{v:.7g}") for i, v in enumerate(p)] for p in self.values]
        return json.dumps(data, separators=(",", ":"))


def read_run(line: str) -> Run:
    """Read what :meth:`Run.line` wrote."""
    data = json.loads(line)
    data["values"] = tuple(map(tuple, data["values"]))
    data["codes"] = tuple(data["codes"])
    return Run(**data)


def code_of(proposals: Proposals, params: dict[str, Any]) -> str:
    """Return parameters as one letter each."""
    return "".join(
        chr(ord("a") + _place(choices, params[name]))
        for knob in proposals.knobs
        for name, choices in knob.parameters().items()
        if len(choices) > 1
    )


def _place(choices: Sequence[Any], value: Any) -> int:
    if isinstance(value, str):
        return choices.index(value)
    return min(range(len(choices)), key=lambda place: abs(choices[place] - value))


def race(
    evaluations: Evaluations,
    row: str,
    make: Make,
    objectives: int,
    seed: int,
    trials: int,
    first: Sequence[dict[str, Any]],
    avoid_repeats: bool = True,
    damage: bool = False,
) -> Run:
    """Run one sampler.

    Args:
        evaluations: The problem.
        row: Name of the row.
        make: Makes the sampler, anew for every proposal as the study does.
        objectives: 2 or 4.
        seed: Of the sampler.
        trials: How many configs may be scored.
        first: Parameters of the first trials.
        avoid_repeats: Whether a repeated config is told as PRUNED and does not count, as in a study.
        damage: Whether the sampler may know the damage table.
    """
    proposals = evaluations.proposals
    study = optuna.create_study(directions=["minimize"] * objectives)
    for params in first:
        study.enqueue_trial(proposals.searched(params))
    values: list[tuple[float, ...]] = []
    codes: list[str] = []
    seen: set[str] = set()
    ask_s = evaluate_s = 0.0
    number = repeats = 0
    history, knowledge = History(), evaluations.knowledge(objectives, damage)
    while len(values) < trials and repeats < MOST_REPEATS:
        started = time.process_time()
        study.sampler = make(SamplerRequest(seed, number, trials, lambda: knowledge, history))
        trial = study.ask()
        config = proposals.suggest(trial)
        ask_s += time.process_time() - started
        number += 1
        if avoid_repeats and config.signature in seen:
            repeats += 1
            study.tell(trial, state=TrialState.PRUNED)
            continue
        repeats = 0
        seen.add(config.signature)
        found = evaluations(config)
        evaluate_s += found.seconds
        values.append(found.values)
        codes.append(code_of(proposals, trial.params))
        started = time.process_time()
        study.tell(trial, list(found.values[:objectives]))
        ask_s += time.process_time() - started
    name = evaluations.problem.name
    return Run(name, row, objectives, seed, len(first), tuple(values), tuple(codes), ask_s, evaluate_s)
