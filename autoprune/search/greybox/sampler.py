"""The sampler: what is known is computed, what is not is modelled, and the largest expected gain is proposed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

from autoprune.pareto import nondominated
from autoprune.search.greybox.candidates import candidates, neighbours
from autoprune.search.greybox.domain import Codes, Domain, domain_of
from autoprune.search.greybox.history import History
from autoprune.search.greybox.knowledge import Knowledge
from autoprune.search.greybox.model import Model, drop_model, plain_model

CANDIDATES = 2000
"""Candidates of the first look; the best are then improved one knob at a time."""

START = 8
"""Trials before a model is made: drawn at random, unless the study has first trials."""

START_WITH_DAMAGE = 4
"""As many where damage is estimated: the model needs no more to learn how far the estimate is off."""

FEW = 400
"""As many where there are more than two objectives: traffic, latency and energy take far longer than counts."""

AROUND = 600
"""Neighbours that are looked at in one climb, drawn at random where there are more; fewer with many objectives."""

CLIMBS = 2
STARTS = 6

LONG = 2000
"""Trials beyond which the first front alone gives parents: it is large enough then."""

TOGETHER = 256
"""Of the candidates that were looked at, the best so many are those from which a batch is filled."""


class GreyboxSampler(BaseSampler):
    """An Optuna sampler for problems of which some objectives can be computed, or none.

    It keeps nothing that decides a proposal: all of it comes from the study's trials and the seed, so that any process
    proposes the same.

    Args:
        seed: Of every draw, together with the number of finished trials.
        knowledge: What is computed beside the first objective; None: every objective is modelled from the trials, over
            the parameters that all of them share (categories, integers and numbers, with or without steps).
        history: Trials that were read before: one for all samplers of a study saves reading them again.
        batch: Proposals that are wanted at this moment. More than one are chosen together, each as if those before it
            were running, and kept in the history for the asks that follow before a trial is told.
    """

    def __init__(
        self,
        seed: int = 0,
        knowledge: Knowledge | None = None,
        history: History | None = None,
        batch: int = 1,
    ) -> None:
        self._seed, self._batch = seed, batch
        self._knowledge = knowledge
        self._history = history or History()
        self._random = RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the parameters that all finished trials share."""
        trials = study.get_trials(deepcopy=False)
        if self._knowledge is not None:  # one space for all trials: no need to walk through them
            names = {axis.name for axis in self._knowledge.domain.axes}
            whole = (t.distributions for t in trials if t.state.is_finished() and names <= t.distributions.keys())
            return {name: each for name, each in next(whole, {}).items() if name in names}
        space = optuna.search_space.intersection_search_space(trials)
        return {name: distribution for name, distribution in space.items() if not distribution.single()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the parameters with the largest expected gain; nothing while there are too few trials."""
        if not search_space:
            return {}
        domain = self._knowledge.domain if self._knowledge else domain_of(search_space)
        trials = [each for each in study.get_trials(deepcopy=False) if each.number != trial.number]
        readings = self._knowledge.readings if self._knowledge else None
        pending = self._history.read(trials, domain, study.directions, readings, (id(study._storage), study._study_id))
        complete = sum(told.values is not None for told in self._history.told.values())
        if complete < self._start():
            return {}
        number, history = len(self._history.told), self._history
        if not history.planned or history.planned_at != number:
            rng = np.random.default_rng([self._seed, number, len(pending)])
            model = drop_model(self._knowledge, history) if self._knowledge else plain_model(domain, history)
            history.planned, history.planned_at = _best(model, domain, pending, rng, self._batch), number
        return domain.decode(history.planned.pop(0)) if history.planned else {}

    def _start(self) -> int:
        known = self._knowledge
        no_row = np.zeros((0, len(known.domain.axes)), np.int64) if known is not None else None
        guided = known is not None and no_row is not None and known.damage(no_row) is not None
        return START_WITH_DAMAGE if guided else START

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw a parameter at random: at the start, and where trials do not share it."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Do nothing but for the random start: proposals are seeded by the trials."""
        self._random.reseed_rng()


def _best(model: Model, domain: Domain, pending: Codes, rng: np.random.Generator, batch: int) -> list[Codes]:
    """Return candidates with the largest expected gain that were not tried, at most ``batch``; fewer if few are left.

    The second is the best one when the first is expected to give what the model says, and so on.
    """
    if batch > 1 and model.costs is not None:
        model = replace(model, costs=_once(model.costs))
    pending = model.canonical(pending) if len(pending) else pending
    known = {row.tobytes() for row in model.rows} | {row.tobytes() for row in pending}
    stairs = model.stairs(pending)
    order = np.lexsort((model.first, model.others.sum(axis=1)))
    parents = model.rows[order][_good(model, order)]
    few = model.others.shape[1] > 1
    looked = _new(model.canonical(candidates(domain, model.knobs, parents, rng, FEW if few else CANDIDATES)), known)
    gains = model.gain(looked, stairs)
    for _ in range(1 if few else CLIMBS):
        best = np.argsort(-gains, kind="stable")[:STARTS]
        around = [neighbours(domain, looked[i]) for i in best]
        if not around:
            break
        near = np.concatenate(around)
        most = 150 if few else AROUND
        near = near if len(near) <= most else near[rng.permutation(len(near))[:most]]
        fresh = _new(model.canonical(near), known)
        looked, gains = np.concatenate([looked[best], fresh]), np.concatenate([gains[best], model.gain(fresh, stairs)])
    chosen: list[Codes] = []
    kept = np.argsort(-gains, kind="stable")[:TOGETHER] if batch > 1 else np.arange(len(looked))
    looked, gains = looked[kept], gains[kept]
    while len(looked):
        first = int(np.argmax(gains))
        chosen.append(looked[first])
        looked = np.delete(looked, first, axis=0)
        if len(chosen) >= batch or not len(looked):
            break
        gains = model.gain(looked, model.stairs(np.concatenate([pending, np.array(chosen)])))
    return chosen


def _once(costs: Callable[[Codes], NDArray[np.float64]]) -> Callable[[Codes], NDArray[np.float64]]:
    """Return costs that are computed once for each row."""
    kept: dict[bytes, NDArray[np.float64]] = {}

    def of(codes: Codes) -> NDArray[np.float64]:
        fresh = {row.tobytes(): row for row in codes if row.tobytes() not in kept}
        if fresh:
            kept.update(zip(fresh, costs(np.array(list(fresh.values()))), strict=True))
        return np.array([kept[row.tobytes()] for row in codes])

    return of


def _good(model: Model, order: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark the first front and, in a study that is not long, the second one, within the reference."""
    points = np.column_stack([np.maximum(model.first, 0.0), model.others])[order]
    inside = np.flatnonzero((points <= 1).all(axis=1) & model.feasible[order])
    good = np.zeros(len(points), np.bool_)
    for _ in range(2 if len(inside) <= LONG else 1):
        rest = inside[~good[inside]]
        if len(rest):
            good[rest[nondominated(points[rest])]] = True
    return good


def _new(rows: Codes, known: set[bytes]) -> Codes:
    """Return the rows that are not known, each once."""
    seen = set(known)
    stays = []
    for number, row in enumerate(rows):
        key = row.tobytes()
        if key not in seen:
            seen.add(key)
            stays.append(number)
    return rows[stays]
