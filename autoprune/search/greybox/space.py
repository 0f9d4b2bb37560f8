"""What is known of a pruning space: exact costs of any candidate, which candidates are the same network, damage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from autoprune.cost.candidates import Candidates
from autoprune.cost.device import DeviceCost, DeviceCosts
from autoprune.cost.predict import LatencyPredictor
from autoprune.cost.table import DENSE as NO_PATTERN
from autoprune.pruning.granularity import DEPTH, granularity, removed_count
from autoprune.search import storage
from autoprune.search.greybox.domain import Axis, Codes, Domain, Floats, grid_axis
from autoprune.search.greybox.knowledge import Earlier, Reading
from autoprune.search.greybox.link import Link
from autoprune.search.prior import Prior
from autoprune.search.proposals import NONE, PRECISION, Knob, Proposals
from autoprune.spec.config import LayerChoice, Precision
from autoprune.spec.front import DROP
from autoprune.spec.objectives import Limit
from autoprune.spec.study import LAST_RUNG
from autoprune.trial.costs import TrialCosts

COMPUTED = (
    "macs",
    "effective_macs",
    "params",
    "size_bytes",
    "dram_bytes",
    "llc_bytes",
    "activation_bytes",
    "latency_ms",
    "energy_mj",
)
"""Metrics that follow from counts; latency by the models, or as it was learned on the device."""

_SHIFT = 0.02
_NOISE = 0.005
"""Validation sets of a few hundred to a few thousand samples tell accuracy to about this."""

_LEAST_SCALE = 0.01
"""Of the score: where no drop is allowed at all, or hardly any, drops up to this are still told apart."""

CRITERION_SHARE = 0.6
"""How far apart two criteria lie at full sparsity, beside the distance of 1 between dense and full sparsity."""


class SpaceKnowledge:
    """Knowledge of a pruning space on one device.

    Args:
        proposals: The space; no knob of it removes whole blocks, whose costs depend on which go.
        devices: Costs from counts, in each precision that the space has.
        objectives: Metrics; the accuracy drop is one of them, the others are of :data:`COMPUTED`.
        worst_drop: The reference point's accuracy drop.
        score: Of the dense model.
        limits: Computed metric to its upper bound, as a share of dense.
        table: Estimated damage of each choice, by knob name, shape (methods, sparsities) each, in the score's unit;
            None where it was not estimated.
        predicted: Latency as it was learned on the device; None: the models say it.
        prior: Trials of earlier studies; None where there were none.
        higher_is_better: Whether the score falls where the model is damaged: then the drop is at most the score.

    Attributes:
        domain: The parameters, in the order of knobs.
        knobs: Knob of each axis.
        dense: The row of the dense model.
        tables: What is known of each knob's choices.
        scale: The reference drop.
        ceiling: The most that the drop can reach, scaled.
        shift: Drops far below this share of it are mostly noise.
    """

    def __init__(
        self,
        proposals: Proposals,
        devices: Mapping[Precision, DeviceCosts],
        objectives: Sequence[str],
        worst_drop: float,
        score: float,
        limits: Mapping[str, float] | None = None,
        table: Mapping[str, Floats] | None = None,
        predicted: PredictedLatency | None = None,
        prior: Prior | None = None,
        higher_is_better: bool = True,
    ) -> None:
        self._predicted = predicted
        self._prior = prior
        self._devices = [devices[precision] for precision in proposals.precisions]
        self._others = tuple(name for name in objectives if name != DROP)
        self.scale = max(worst_drop, _LEAST_SCALE * abs(score), 1e-9)
        self.shift = max(_SHIFT, _NOISE * abs(score) / self.scale)
        self.ceiling = score / self.scale if higher_is_better and score > self.scale else math.inf
        self._limits = dict(limits or {})
        self._graph = self._devices[0].model.graph
        axes: list[Axis] = []
        knobs: list[int] = []
        self._places: list[tuple[int | None, int | None]] = []
        for number, knob in enumerate(proposals.knobs):
            where: list[int | None] = []
            for name, choices in (*knob.parameters().items(), *([] if knob.sparsities else [("", ())])):
                where.append(len(axes) if len(choices) > 1 else None)
                if len(choices) > 1:
                    axes.append(grid_axis(name, choices))
                    knobs.append(number)
            self._places.append((where[0], where[1]))
        self._precision = len(axes) if len(proposals.precisions) > 1 else None
        if self._precision is not None:
            axes.append(grid_axis(PRECISION, proposals.precisions))
            knobs.append(len(proposals.knobs))
        self.domain = Domain(tuple(axes))
        self.knobs: NDArray[np.int64] = np.array(knobs, np.int64)
        self.tables = [_KnobTable(knob) for knob in proposals.knobs]
        link = Link(self.shift, self.ceiling)
        self._damage = (
            None
            if table is None
            else [link.rise(np.maximum(table[knob.name], 0.0) / self.scale) for knob in proposals.knobs]
        )
        self._groups = {name: n for n, name in enumerate(self._graph.groups)}
        self._layers = {name: n for n, name in enumerate(self._graph.layers)}
        self._units = np.array([group.units for group in self._graph.groups.values()], np.int64)
        self._column = objectives.index(DROP)
        self._patterns = list(
            dict.fromkeys(key for t in self.tables for key in t.keys if key and not granularity(key).removed)
        )

        # Shares of dense by the same models: a measured latency may lie elsewhere, and only gains are compared.
        dense = self.domain.encode(proposals.uniform(0.0))
        assert dense is not None
        self.dense = dense
        self._dense = {name: float(self.metrics(dense[None], [name])[0, 0]) for name in (*self._others, *self._limits)}

    def picked(self, codes: Codes, knob: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the method and the sparsity of a knob in each row, by their numbers, shape (n,) each."""
        method, sparsity = self._places[knob]
        nothing = np.zeros(len(codes), np.int64)
        return (
            nothing if method is None else codes[:, method],
            nothing if sparsity is None else codes[:, sparsity],
        )

    def put(self, row: Codes, knob: int, place: tuple[int, int]) -> None:
        """Set a knob of a row, in place, to a method and a sparsity by their numbers."""
        for axis, number in zip(self._places[knob], place, strict=True):
            if axis is not None:
                row[axis] = number

    def table(self, knob: int) -> Floats:
        """Return the estimated rises of a knob's choices, scaled, shape (methods, sparsities); there is a table."""
        assert self._damage is not None
        return self._damage[knob]

    def canonical(self, codes: Codes) -> Codes:
        """Return the first of the rows that give the same config."""
        out = codes.copy()
        for knob, table in enumerate(self.tables):
            method, sparsity = self.picked(codes, knob)
            for place, first in zip(self._places[knob], table.first, strict=True):
                if place is not None:
                    out[:, place] = first[method, sparsity]
        return out

    def coordinates(self, codes: Codes) -> tuple[Floats, NDArray[np.int64]]:
        """Return for each knob the fraction that goes, once for each granularity, and a little for each criterion."""
        columns, owner = [], []
        for knob, table in enumerate(self.tables):
            method, sparsity = self.picked(codes, knob)
            columns.append(table.coordinates[method, sparsity])
            owner += [knob] * table.coordinates.shape[2]
        if self._precision is not None:
            columns.append(codes[:, self._precision, None] / 2)
            owner.append(len(self.tables))
        return np.concatenate(columns, axis=1), np.array(owner, np.int64)

    def damage(self, codes: Codes) -> Floats | None:
        """Return the sum of the estimated rises of the choices, scaled."""
        if self._damage is None:
            return None
        total = np.zeros(len(codes))
        for knob, damage in enumerate(self._damage):
            total += damage[self.picked(codes, knob)]
        return total

    def metrics(self, codes: Codes, names: Sequence[str]) -> Floats:
        """Return computed metrics in their own units, shape (n, names)."""
        out = np.zeros((len(codes), len(names)))
        which = np.zeros(len(codes), np.int64) if self._precision is None else codes[:, self._precision]
        for number, device in enumerate(self._devices):
            rows = np.flatnonzero(which == number)
            if len(rows) and names:
                out[rows] = _metrics(device, self._candidates(codes[rows]), names, self._predicted)
        return out

    def costs(self, codes: Codes) -> Floats:
        """Return the objectives beside the drop, as shares of dense."""
        return self.metrics(codes, self._others) / [self._dense[name] for name in self._others]

    def allowed(self, codes: Codes) -> NDArray[np.bool_]:
        """Say which candidates keep every bound on a computed metric."""
        names = list(self._limits)
        if not names:
            return np.ones(len(codes), np.bool_)
        most = [self._limits[name] * self._dense[name] for name in names]
        return np.asarray((self.metrics(codes, names) <= most).all(axis=1), np.bool_)

    def readings(self, trial: FrozenTrial) -> Sequence[Reading]:
        """Return the drop that a trial measured and those of its rungs; nothing where a bound stopped it before."""
        record = storage.record_of(trial)
        if record is None:
            return [Reading(float(trial.values[self._column]))] if trial.values else []
        found = [Reading(rung.drop, rung.name) for rung in record.rungs or () if rung.name != LAST_RUNG]
        if record.state == "complete" and DROP in record.values:
            found.append(Reading(record.values[DROP]))
        return found

    def earlier(self, rows: Codes, values: Floats) -> Earlier | None:
        """Return the trials of earlier studies that this space can tell, their noise as repeated configs show it."""
        if self._prior is None:
            return None
        here = [(self.domain.decode(row), float(value * self.scale)) for row, value in zip(rows, values, strict=True)]
        told = [(self.domain.encode(trial.params), trial) for trial in self._prior.against(here).trials]
        found = [(row, trial.drop, trial.noise) for row, trial in told if row is not None]
        if not found:
            return None
        codes, drops, noise = zip(*found, strict=True)
        return Earlier(np.array(codes, np.int64), np.array(drops) / self.scale, np.array(noise) / self.scale)

    def _candidates(self, codes: Codes) -> Candidates:
        kept = np.tile(self._units, (len(codes), 1))
        pattern = np.full((len(codes), len(self._layers)), NO_PATTERN, np.int64)
        fraction = np.zeros(pattern.shape)
        for knob, table in enumerate(self.tables):
            method, sparsity = self.picked(codes, knob)
            if table.knob.group is not None:
                kept[:, self._groups[table.knob.group.name]] -= table.gone[method, sparsity]
            if any(key and not granularity(key).removed for key in table.keys):
                column = self._layers[table.knob.name]
                numbers = np.array(
                    [self._patterns.index(key) if key in self._patterns else NO_PATTERN for key in table.keys]
                )
                fraction[:, column] = table.masked[method, sparsity]
                pattern[:, column] = np.where(fraction[:, column] > 0, numbers[method], NO_PATTERN)
        return self._devices[0].model.asked.fractions(kept, pattern, fraction, self._patterns)


@dataclass(frozen=True)
class PredictedLatency:
    """Latency as it was learned on the device, in the place of the roofline's.

    Attributes:
        predictors: Ratios to dense in float32, of networks in each precision.
        dense_s: Latency of the dense model.
    """

    predictors: Mapping[Precision, LatencyPredictor]
    dense_s: float

    def seconds(self, precision: Precision, candidates: Candidates, cost: DeviceCost) -> Floats:
        """Return seconds of one run in a precision, shape (n,)."""
        return self.predictors[precision].predict(candidates, cost).ratio * self.dense_s


def _metrics(
    device: DeviceCosts, candidates: Candidates, names: Sequence[str], predicted: PredictedLatency | None = None
) -> Floats:
    counts = device.model.counts(candidates)
    values = {name: np.asarray(getattr(counts, name), float) for name in COMPUTED if hasattr(counts, name)}
    if any(name not in values for name in names):
        cost = device.costs(candidates)
        seconds = cost.latency_s if predicted is None else predicted.seconds(device.model.precision, candidates, cost)
        values |= {
            "dram_bytes": cost.dram_bytes,
            "llc_bytes": cost.llc_bytes,
            "activation_bytes": cost.activation_bytes,
            "latency_ms": seconds * 1e3,
        }
        if "energy_mj" in names:
            values["energy_mj"] = device.energy_j(cost, seconds) * 1e3
    return np.column_stack([values[name] for name in names])


class _KnobTable:
    """Everything about the choices of one knob, as arrays (methods, sparsities).

    Attributes:
        knob: The knob.
        keys: Granularity of each method; empty for none.
        gone: Units that go of its group.
        masked: Fraction of units that a mask removes.
        first: For both axes, the first place that gives the same choice.
        coordinates: Shape (methods, sparsities, d).
    """

    def __init__(self, knob: Knob) -> None:
        self.knob = knob
        sparsities = knob.sparsities or (0.0,)
        parts = [
            ("", "") if method == NONE else (method.partition("/")[0], method.partition("/")[2])
            for method in knob.methods
        ]
        self.keys = [key for key, _ in parts]
        shape = (len(knob.methods), len(sparsities))
        self.gone = np.zeros(shape, np.int64)
        self.masked = np.zeros(shape)
        self.first = (np.zeros(shape, np.int64), np.zeros(shape, np.int64))
        granularities = [key for key in dict.fromkeys(self.keys) if key]
        criteria = [name for name in dict.fromkeys(name for _, name in parts) if name]
        self.coordinates = np.zeros((*shape, len(granularities) + (len(criteria) if len(criteria) > 1 else 0)))
        seen: dict[LayerChoice | None, tuple[int, int]] = {}
        for m, (key, criterion) in enumerate(parts):
            for s, sparsity in enumerate(sparsities):
                choice = knob.choice({f"{knob.name}|method": knob.methods[m], f"{knob.name}|sparsity": sparsity})
                place = seen.setdefault(choice, (m, s))
                self.first[0][m, s], self.first[1][m, s] = place
                if choice is None:
                    continue
                fraction = choice.fraction
                if granularity(key).removed and key != DEPTH:
                    assert knob.group is not None
                    self.gone[m, s] = removed_count(knob.group.units, fraction)
                elif key != DEPTH:
                    self.masked[m, s] = fraction
                self.coordinates[m, s, granularities.index(key)] = fraction
                if len(criteria) > 1:
                    self.coordinates[m, s, len(granularities) + criteria.index(criterion)] = CRITERION_SHARE * fraction


def space_knowledge(
    proposals: Proposals,
    costs: TrialCosts,
    objectives: Sequence[str],
    worst_drop: float,
    score: float,
    limits: Sequence[Limit],
    dense: Mapping[str, float],
    predictors: Mapping[Precision, LatencyPredictor] | None = None,
    table: Mapping[str, Floats] | None = None,
    prior: Prior | None = None,
    higher_is_better: bool = True,
) -> SpaceKnowledge | None:
    """Return what is known of a study's space; None where its costs do not follow from counts, or no drop is wanted.

    Args:
        proposals: The space.
        costs: Of the study's trials.
        objectives: Of the study.
        worst_drop: The reference point's accuracy drop.
        score: Of the dense model.
        limits: Of the study.
        dense: Metrics of the dense model.
        predictors: What predicts latency in each precision; None, or none of one: the models do.
        table: As in :class:`SpaceKnowledge`.
        prior: As there.
        higher_is_better: As there.
    """
    if why_unknown(proposals, costs, objectives) or not costs.devices:
        return None
    shares = {
        limit.metric: limit.value / dense[limit.metric]
        for limit in limits
        if limit.metric in COMPUTED and dense[limit.metric] > 0
    }
    predicted = None
    if predictors and set(proposals.precisions) <= set(predictors):
        predicted = PredictedLatency(predictors, dense["latency_ms"] * 1e-3)
    return SpaceKnowledge(
        proposals, costs.devices, objectives, worst_drop, score, shares, table, predicted, prior, higher_is_better
    )


def why_unknown(proposals: Proposals, costs: TrialCosts, objectives: Sequence[str]) -> str:
    """Return why costs of this space are not computed before a trial, in words; empty where they are."""
    other = [name for name in objectives if name not in (DROP, *COMPUTED)]
    if not costs.devices:
        return "the costs of this network do not follow from counts"
    if any(knob.stage is not None for knob in proposals.knobs):
        return "the space removes whole blocks, and their costs depend on which of them go"
    if DROP not in objectives:
        return f"{DROP} is no objective"
    return f"{', '.join(other)} cannot be computed" if other else ""
