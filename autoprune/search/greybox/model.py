"""What a greybox sampler believes of candidates: computed costs, a process for what is not computed, bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from autoprune.pareto import nondominated
from autoprune.search.greybox.domain import Codes, Domain, Floats
from autoprune.search.greybox.gain import (
    Front,
    Stairs,
    expected_gain,
    expected_gain_of_uncertain,
    stairs_of,
)
from autoprune.search.greybox.history import History, Told
from autoprune.search.greybox.knowledge import FULL, Earlier, Knowledge
from autoprune.search.greybox.link import Link
from autoprune.search.greybox.surrogate import Hyperparameters, Observations, Prior, Process, fit

SHIFT = 0.02
"""Of a problem of which nothing is known: differences below this share of the front's range hardly count."""

BOLD = 0.8
"""Share of a prediction's deviation that counts in the expected gain: a search with a few dozen trials does better to
take what it expects than to try what it knows least of."""

WORST = 10
"""The worst of so many values, at least three of them, tell what a broken network loses."""

LARGEST = 20.0
"""Values beyond this many times the reference are told as this."""

MOST = 500
"""Observations that the process holds: beyond, the best and the latest, so that a proposal costs the same for ever."""

FEWEST_PAIRS = 5
"""Trials that must have both a cheaper reading and the full value before the cheaper one counts alone."""

GROWTH = 1.12
"""Hyperparameters are fitted anew whenever there are this many times as many trials."""


@dataclass(frozen=True)
class Belief:
    """One modelled value: its latent as a Gaussian process.

    Attributes:
        process: Its posterior.
        coordinates: From candidates to where they lie.
        trend: From candidates to the known functions whose factors are fitted.
        link: Between values and latents.
    """

    process: Process
    coordinates: Callable[[Codes], Floats]
    trend: Callable[[Codes], Floats]
    link: Link

    def __call__(self, codes: Codes) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of the latent, shape (n,) each."""
        return self.process.posterior(self.coordinates(codes), self.trend(codes))


@dataclass(frozen=True)
class Model:
    """The beliefs at one moment.

    Attributes:
        rows: Canonical rows of all trials with values, shape (n, axes).
        first: Their first objective, scaled, shape (n,).
        others: Their other objectives, scaled, shape (n, m - 1).
        feasible: Which break no bound.
        knobs: Of each axis.
        canonical: From candidates to the ones that stand for them.
        belief: Of the first objective.
        beliefs: Of other objectives that are not computed, by column of ``others``.
        costs: Computed objectives, shape (n, m - 1); None: nothing is computed.
        allowed: Which candidates break no computed bound.
        bounds: Beliefs of constraint values, shifted so that at most 1 is feasible.
    """

    rows: Codes
    first: Floats
    others: Floats
    feasible: NDArray[np.bool_]
    knobs: NDArray[np.int64]
    canonical: Callable[[Codes], Codes]
    belief: Belief
    beliefs: dict[int, Belief]
    costs: Callable[[Codes], Floats] | None
    allowed: Callable[[Codes], NDArray[np.bool_]] | None
    bounds: tuple[Belief, ...] = ()

    def stairs(self, pending: Codes) -> Stairs:
        """Return the front, with pending trials where the model expects them."""
        first, others = self.first[self.feasible], self.others[self.feasible]
        if len(pending):
            mean, _ = self.belief(pending)
            first = np.append(first, self.belief.link.value(mean))
            others = np.concatenate([others, self._others(pending)[0]])
        return stairs_of(Front(first, others))

    def gain(self, codes: Codes, stairs: Stairs) -> Floats:
        """Return the expected gain of candidates in hypervolume, times the probability that they are feasible."""
        if not len(codes):
            return np.zeros(0)
        mean, deviation = self.belief(codes)
        below = self.belief.link.below(stairs.levels, mean, BOLD * deviation)
        others, spread = self._others(codes)
        if self.beliefs:
            gain = expected_gain_of_uncertain(stairs, below, others, spread)
        else:
            gain = expected_gain(stairs, below, others)
        for bound in self.bounds:
            mean, deviation = bound(codes)
            gain = gain * ndtr((bound.link.latent(np.ones(1)) - mean) / deviation)
        if self.allowed is not None:
            gain = np.where(self.allowed(codes), gain, -1.0)
        return gain

    def _others(self, codes: Codes) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of the other objectives."""
        columns = self.others.shape[1]
        mean = self.costs(codes) if self.costs is not None else np.zeros((len(codes), columns))
        spread = np.zeros(mean.shape)
        for column, belief in self.beliefs.items():
            log_mean, log_deviation = belief(codes)
            # The Gaussian with the lognormal's mean and deviation.
            variance = np.minimum(log_deviation**2, 2.0)
            center = np.exp(log_mean + variance / 2)
            mean[:, column] = center - belief.link.shift
            spread[:, column] = center * np.sqrt(np.expm1(variance))
        return mean, spread


def drop_model(knowledge: Knowledge, history: History) -> Model:
    """Return the model of a problem whose other objectives are computed."""
    told = [history.told[number] for number in sorted(history.told)]
    rows = knowledge.canonical(np.array([each.row for each in told]))
    full = {n: r.value / knowledge.scale for n, each in enumerate(told) for r in each.readings if r.source == FULL}
    at, values = np.array(list(full), np.int64), np.array(list(full.values()))
    cheap = _cheap(told, full, knowledge)
    before = _before(knowledge, rows[at], values)
    belief = _belief(
        np.concatenate([before.rows, rows[at], rows[cheap.at]]),
        np.concatenate([before.values, np.clip(values, 0.0, LARGEST), cheap.values]),
        np.concatenate([before.deviations**2, np.zeros(len(at)), cheap.noise]),
        lambda codes: knowledge.coordinates(codes)[0],
        knowledge.coordinates(rows[:1])[1],
        lambda codes: _trend(knowledge, codes),
        history,
        "drop",
        knowledge.shift,
        knowledge.ceiling,
    )
    measured = at[[told[n].values is not None for n in at]]
    picked = np.array([told[n].values is not None for n in at], np.bool_)
    feasible = knowledge.allowed(rows[measured]) & np.array([told[n].broken <= 0 for n in measured], np.bool_)
    return Model(
        rows=rows[measured],
        first=values[picked],
        others=_known_costs(knowledge, rows[measured], history),
        feasible=feasible,
        knobs=knowledge.knobs,
        canonical=knowledge.canonical,
        belief=belief,
        beliefs={},
        costs=knowledge.costs,
        allowed=knowledge.allowed,
    )


def _known_costs(knowledge: Knowledge, rows: Codes, history: History) -> Floats:
    """Return the costs of trials, each computed once."""
    kept: dict[bytes, Floats] = history.costs
    fresh = [row for row in rows if row.tobytes() not in kept]
    if fresh:
        for row, costs in zip(fresh, knowledge.costs(np.array(fresh)), strict=True):
            kept[row.tobytes()] = costs
    return np.array([kept[row.tobytes()] for row in rows])


def plain_model(domain: Domain, history: History) -> Model:
    """Return the model of a problem of which nothing is known but its trials."""
    told = [each for each in (history.told[number] for number in sorted(history.told)) if each.values is not None]
    rows = np.array([each.row for each in told])
    values = np.array([each.values for each in told])
    broken = np.array([each.broken for each in told])
    feasible = broken <= 0
    front = values[feasible][nondominated(values[feasible])] if feasible.any() else values
    low = front.min(axis=0)
    # The reference lies a tenth beyond the front's own worst values, so that its ends are worth something.
    span = np.maximum(1.1 * (front.max(axis=0) - low), 1e-3 * np.maximum(np.abs(low), 1e-9))
    span = np.where(np.ptp(front, axis=0) > 0, span, np.maximum(np.ptp(values, axis=0), span))
    scaled = (values - low) / span
    owner = domain.coordinates(rows[:1])[1]

    def belief(column: Floats, name: str) -> Belief:
        return _belief(
            rows,
            np.clip(column, 0.0, 4.0),
            np.zeros(len(rows)),
            lambda codes: domain.coordinates(codes)[0],
            owner,
            lambda codes: np.ones((len(codes), 1)),
            history,
            name,
            SHIFT,
            math.inf,
        )

    bounds: tuple[Belief, ...] = ()
    if (broken > 0).any():
        bounds = (belief(1 + broken / max(np.abs(broken).max(), 1e-12), "broken"),)
    return Model(
        rows=rows,
        first=scaled[:, 0],
        others=scaled[:, 1:],
        feasible=feasible,
        knobs=np.arange(len(domain.axes)),
        canonical=lambda codes: codes,
        belief=belief(scaled[:, 0], "0"),
        beliefs={column - 1: belief(scaled[:, column], str(column)) for column in range(1, values.shape[1])},
        costs=None,
        allowed=None,
        bounds=bounds,
    )


@dataclass(frozen=True)
class _Cheap:
    """Readings of trials that have no full one: rows by number, expected full values, noise variance of their log."""

    at: NDArray[np.int64]
    values: Floats
    noise: Floats


def _cheap(told: Sequence[Told], full: Mapping[int, float], knowledge: Knowledge) -> _Cheap:
    """Return what cheaper sources say of trials that were never scored whole.

    How a source goes along with the full value is a line in the logarithms, from the trials that have both; what they
    scatter about it is the noise of its readings. A source with fewer than :data:`FEWEST_PAIRS` of them says nothing.
    """
    by_source: dict[str, dict[int, float]] = {}
    for number, each in enumerate(told):
        for reading in each.readings:
            if reading.source != FULL:
                value = np.log(np.clip(reading.value / knowledge.scale, 0.0, LARGEST) + knowledge.shift)
                by_source.setdefault(reading.source, {})[number] = float(value)
    best: dict[int, tuple[float, float]] = {}
    for source in by_source.values():
        both = [number for number in source if number in full]
        x = np.array([source[number] for number in both])
        if len(both) < FEWEST_PAIRS or np.ptp(x) == 0:
            continue
        y = np.log(np.clip([full[number] for number in both], 0.0, LARGEST) + knowledge.shift)
        slope, start = np.polyfit(x, y, 1)
        scatter = float(((y - start - slope * x) ** 2).sum() / (len(both) - 2))
        for number, value in source.items():
            if number not in full and scatter < best.get(number, (0.0, np.inf))[1]:
                best[number] = (start + slope * value, scatter)
    values = np.maximum(np.exp([value for value, _ in best.values()]) - knowledge.shift, 0.0)
    return _Cheap(np.array(list(best), np.int64), values, np.array([noise for _, noise in best.values()]))


def _before(knowledge: Knowledge, rows: Codes, values: Floats) -> Earlier:
    """Return what earlier studies saw of configs that are not among ``rows``, with deviations of its logarithm."""
    earlier = knowledge.earlier(rows, values)
    if earlier is None:
        return Earlier(np.zeros((0, len(knowledge.domain.axes)), np.int64), np.zeros(0), np.zeros(0))
    there, known = knowledge.canonical(earlier.rows), {row.tobytes() for row in rows}
    new = np.array([row.tobytes() not in known for row in there], np.bool_)
    told = np.clip(earlier.values[new], 0.0, LARGEST)
    return Earlier(there[new], told, earlier.deviations[new] / (told + knowledge.shift))


def _trend(knowledge: Knowledge, codes: Codes) -> Floats:
    damage = knowledge.damage(codes)
    one = np.ones((len(codes), 1))
    return one if damage is None else np.column_stack([one, np.log(damage + knowledge.shift)])


def _belief(
    rows: Codes,
    values: Floats,
    noise: Floats,
    coordinates: Callable[[Codes], Floats],
    owner: NDArray[np.int64],
    trend: Callable[[Codes], Floats],
    history: History,
    name: str,
    shift: float,
    ceiling: float,
) -> Belief:
    # In the order of trials, so that hyperparameters are fitted on the same ones whoever asks.
    count, step = len(rows), 8
    while int(step * GROWTH) + 1 <= count:
        step = int(step * GROWTH) + 1
    step = min(step, count)
    link = Link(shift, _top(values[:step], ceiling))
    values = link.latent(values)
    seen = Observations(coordinates(rows), owner, trend(rows), values, noise)
    prior = _prior(owner)
    early = Observations(seen.coordinates[:step], owner, seen.trend[:step], values[:step], seen.extra[:step])
    found = history.remembered((name, step, values[:step].tobytes(), noise[:step].tobytes()), lambda: fit(early, prior))
    assert isinstance(found, Hyperparameters)
    if count > MOST:
        best = np.argsort(values, kind="stable")[: MOST // 2]
        rest = np.setdiff1d(np.arange(count), best)[-(MOST - len(best)) :]
        keep = np.sort(np.concatenate([best, rest]))
        seen = Observations(seen.coordinates[keep], owner, seen.trend[keep], values[keep], seen.extra[keep])
    return Belief(Process(seen, found), coordinates, trend, link)


def _top(values: Floats, ceiling: float) -> float:
    """Return the most that a value reaches: a little more than the worst that were seen, beyond the reference."""
    if math.isinf(ceiling) or not len(values):
        return math.inf
    worst = np.sort(values)[-max(3, len(values) // WORST) :]
    return float(max(1.2, min(ceiling, 1.03 * float(np.median(worst)))))


def _prior(owner: NDArray[np.int64]) -> Prior:
    knobs = int(owner.max()) + 1
    return Prior(np.full(knobs, 1.0 - np.log(knobs)), spread=1.5)
