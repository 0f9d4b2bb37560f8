"""How good the damage table is: against every single choice scored whole, and against whole configs that were tried."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from autoprune.search.greybox.link import Link
from autoprune.search.greybox.space import SpaceKnowledge
from tests.benchmarks.sampling.evaluations import Evaluations
from tests.benchmarks.sampling.race import Run

Floats = NDArray[np.float64]

HEAD = """# How good the damage table is

    python -m tests.benchmarks.samplers damage --data DIR --problem digits-channels resnet20-channels ...

*Single choices*: each choice of each group alone, scored whole as a trial is, beside what the table says of it: rank
correlation over all choices of a network, and mean difference as a share of the reference drop. *Configs*: all that any
sampler tried on the problem (recorded), with the rank correlation between their drop and the sum over their layers: of
what the table says, as rises (what greybox uses) and as drops, and, for comparison, of the single choices scored whole,
which take a trial each. *Probes* are in trials, by time. The probes see other samples than the scores do.

| problem | probes | choices: rank | difference | configs | table, rises | table, drops | whole, rises | choices |
|---|---|---|---|---|---|---|---|---|
"""


def rows_of(knowledge: SpaceKnowledge, run: Run) -> NDArray[np.int64]:
    """Return the rows of a run's trials, shape (trials, axes)."""
    return knowledge.canonical(np.array([[ord(letter) - ord("a") for letter in code] for code in run.codes]))


def single_choices(evaluations: Evaluations, knowledge: SpaceKnowledge) -> list[Floats]:
    """Return the scaled drop of each choice of each knob alone, shape (methods, sparsities) each."""
    found = []
    for number, knob in enumerate(knowledge.tables):
        drops = np.zeros((len(knob.keys), len(knob.knob.sparsities) or 1))
        for place in np.ndindex(*drops.shape):
            row = knowledge.dense.copy()
            knowledge.put(row, number, (place[0], place[1]))
            params = {**evaluations.proposals.uniform(0.0), **knowledge.domain.decode(row)}
            drops[place] = evaluations(evaluations.proposals.config(params)).values[0] / knowledge.scale
        found.append(drops)
    return found


def line(evaluations: Evaluations, runs: Sequence[Run]) -> str:
    """Return the problem's line of the page.

    Args:
        evaluations: The problem.
        runs: Recorded on it.
    """
    knowledge = evaluations.knowledge(2, damage=True)
    told = evaluations.table.arrays(evaluations.proposals)
    table = [np.maximum(told[knob.knob.name], 0.0) / knowledge.scale for knob in knowledge.tables]
    whole = single_choices(evaluations, knowledge)
    flat, true = (np.concatenate([each.ravel() for each in group]) for group in (table, whole))
    rows, at = np.unique(np.concatenate([rows_of(knowledge, run) for run in runs]), axis=0, return_index=True)
    drops = np.concatenate([[values[0] for values in run.values] for run in runs])[at]
    link = Link(knowledge.shift, knowledge.ceiling)
    sums = [
        [link.rise(each) for each in table],
        table,
        [link.rise(np.maximum(each, 0.0)) for each in whole],
    ]
    ranks = [spearmanr(_total(knowledge, each, rows), drops)[0] for each in sums]
    seconds = np.mean([run.evaluate_s / len(run.values) for run in runs])
    choices = sum(math.prod(each.shape) for each in whole)
    return (
        f"| {evaluations.problem.name} | {evaluations.table_s / seconds:.0f} | {spearmanr(flat, true)[0]:.2f} "
        f"| {np.abs(flat - true).mean():.2f} | {len(rows):,} | {' | '.join(f'{rank:.3f}' for rank in ranks)} "
        f"| {choices} |\n"
    )


def _total(knowledge: SpaceKnowledge, damages: Sequence[Floats], rows: NDArray[np.int64]) -> Floats:
    total = np.zeros(len(rows))
    for number, damage in enumerate(damages):
        total += damage[knowledge.picked(rows, number)]
    return total


def write_page(lines: Sequence[str], out: Path) -> None:
    """Write ``damage.md``."""
    (out / "damage.md").write_text(HEAD + "".join(lines), encoding="utf-8")
