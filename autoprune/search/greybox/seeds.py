"""From estimated damage to configs for any budget: the steepest descent from the dense model, by exact costs.

Each step makes the one change that saves most for the damage that it adds, over the next choice on each knob's lower
hull. That is the allocation by Lagrange multipliers of a separable problem (Shoham and Gersho 1988,
doi:10.1109/29.90373), walked from dense to smallest; but costs are not separable, because a layer's multiply-adds go
with the product of its own width and its neighbours'. So what a change saves is computed anew, exactly, for the config
that stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from autoprune.search.greybox.domain import Codes, Floats
from autoprune.search.greybox.space import SpaceKnowledge

DAMAGE_ORIGIN = "damage"
"""Who proposed a trial that follows from the damage table."""

MOST_SEEDS = 12

HOPELESS = 4.0
"""Estimated rise, as a share of the reference drop, from which on a config is not worth a trial: tables err by half."""

LEAST = 1e-4
"""Damage, as a share of the reference, below which two choices count the same: the noise of a probe."""


def descent(knowledge: SpaceKnowledge) -> Codes:
    """Return configs from dense to smallest, each one step from the one before; shape (steps, axes).

    Args:
        knowledge: A space with a damage table.
    """
    ladders = [_ladder(knowledge, knob) for knob in range(len(knowledge.tables))]
    at = [0] * len(ladders)
    row = knowledge.dense.copy()
    path = [row]
    cost = float(knowledge.costs(row[None]).mean())
    while True:
        open_knobs = [knob for knob, ladder in enumerate(ladders) if at[knob] + 1 < len(ladder)]
        if not open_knobs:
            return np.array(path)
        tried = np.repeat(row[None], len(open_knobs), axis=0)
        for n, knob in enumerate(open_knobs):
            knowledge.put(tried[n], knob, ladders[knob][at[knob] + 1][0])
        costs = knowledge.costs(tried).mean(axis=1)
        added = np.array([ladders[knob][at[knob] + 1][1] - ladders[knob][at[knob]][1] for knob in open_knobs])
        best = int(np.argmax((cost - costs) / np.maximum(added, LEAST)))
        knob = open_knobs[best]
        at[knob] += 1
        row, cost = tried[best], float(costs[best])
        path.append(row)


def seeds(knowledge: SpaceKnowledge, count: int) -> Codes:
    """Return configs of a descent, evenly spread over its costs; shape (at most count, axes)."""
    path = descent(knowledge)
    costs = knowledge.costs(path).mean(axis=1)
    # From nearly dense to a tenth of the dense cost: below, everything is broken before it is recovered.
    wanted = np.linspace(0.95, max(0.1, float(costs.min())), count)
    places = [int(np.argmin(np.abs(costs - cost))) for cost in wanted]
    return path[list(dict.fromkeys(places))]


def hopeless(knowledge: SpaceKnowledge, params: Mapping[str, Any]) -> bool:
    """Say whether a config is estimated to lose far more than the reference; False where nothing is estimated.

    Args:
        knowledge: A space, with or without a damage table.
        params: A full set of its parameters.
    """
    row = knowledge.domain.encode(params)
    estimate = None if row is None else knowledge.damage(row[None])
    return estimate is not None and float(estimate[0]) > HOPELESS


def _ladder(knowledge: SpaceKnowledge, knob: int) -> list[tuple[tuple[int, int], float]]:
    """Return the choices of a knob on the lower hull of damage over cost, dense first, with their damage."""
    table = knowledge.table(knob)
    places = [(m, s) for m in range(table.shape[0]) for s in range(table.shape[1])]
    rows = np.repeat(knowledge.dense[None], len(places), axis=0)
    for row, place in zip(rows, places, strict=True):
        knowledge.put(row, knob, place)
    costs = knowledge.costs(rows).mean(axis=1)
    damage: Floats = np.array([table[place] for place in places])
    dense = float(knowledge.costs(knowledge.dense[None]).mean())
    start = next(place for place, row in zip(places, rows, strict=True) if (row == knowledge.dense).all())
    hull: list[tuple[tuple[int, int], float]] = [(start, 0.0)]
    here, lost = dense, 0.0
    while True:
        cheaper = np.flatnonzero(costs < here - 1e-9)
        if not len(cheaper):
            return hull
        slope = (np.maximum(damage[cheaper] - lost, 0.0) + LEAST) / (here - costs[cheaper])
        best = int(cheaper[np.argmin(slope)])
        here, lost = float(costs[best]), max(float(damage[best]), lost)
        hull.append((places[best], lost))
