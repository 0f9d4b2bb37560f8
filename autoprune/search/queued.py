"""What is tried before a sampler is asked: what every study starts with, and what was lost on its way."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from autoprune.search import storage
from autoprune.search.drivers import Drivers
from autoprune.search.greybox.seeds import DAMAGE_ORIGIN, MOST_SEEDS, hopeless, seeds
from autoprune.search.greybox.space import SpaceKnowledge
from autoprune.search.opening import FirstTrial, opening
from autoprune.search.prior import prior_of
from autoprune.search.proposals import Proposals
from autoprune.spec.front import DENSE, WARM
from autoprune.trial.runner import TrialRunner


class Queue:
    """The trials of a study that wait for somebody to take them.

    Args:
        study: The Optuna study.
        runner: What trials share.
        proposals: The space.
        drivers: Who else works on the study.
        knowledge: Returns what is known of the space where single choices were probed, else None.
    """

    def __init__(
        self,
        study: optuna.Study,
        runner: TrialRunner,
        proposals: Proposals,
        drivers: Drivers,
        knowledge: Callable[[], SpaceKnowledge | None],
    ) -> None:
        self._study, self._runner, self._proposals = study, runner, proposals
        self._drivers, self._knowledge = drivers, knowledge

    def fill(self, dense_known: bool) -> None:
        """Queue what every study starts with and this one lacks: the dense model, and after it the baselines."""
        trials = self._study.get_trials(deepcopy=False)
        present = {_key(_fixed(t)) for t in trials if t.state == TrialState.WAITING}
        present |= {_key(_fixed(t)) for t in self._drivers.others(trials)}
        begun = (storage.RECORD, storage.CLIMBING)
        present |= {_key(t.params) for t in trials if any(key in t.user_attrs for key in begun)}
        first = self._first_trials() if dense_known else self._opening()[:1]
        for origin, params in first:
            searched = params if origin == WARM else self._proposals.searched(params)
            if _key(searched) not in present:
                present.add(_key(searched))
                self._enqueue(searched, origin)

    def put_back(self, trial: FrozenTrial) -> None:
        """Close a trial that came to no record, and queue what it was to try.

        One that was lost before all of its parameters were drawn is drawn again, with the same seed. The dense model
        needs no place: where it is missing, whatever is asked for next measures it. Where another driver closes a trial
        at the same moment, that one queues it.
        """
        with contextlib.suppress(ValueError, UpdateFinishedTrialError):
            self._study.tell(trial.number, state=TrialState.FAIL)
            origin = str(trial.user_attrs.get(storage.ORIGIN, self._sampler))
            wanted = self._proposals.searched(self._proposals.uniform(0.0)).keys()
            whole = [params for params in (trial.params, _fixed(trial)) if params.keys() == wanted]
            if whole and origin != DENSE:
                self._enqueue(whole[0], origin)

    def give_up(self, number: int) -> None:
        """Close a trial that is not wanted now; what was queued is queued again, for a study that is to go on."""
        trial = self._study.get_trials(deepcopy=False)[number]
        if _fixed(trial):
            self.put_back(trial)
        else:
            with contextlib.suppress(ValueError, UpdateFinishedTrialError):
                self._study.tell(number, state=TrialState.FAIL)

    def rival(self, number: int, trials: list[FrozenTrial]) -> int | None:
        """Return the trial of another driver that tries the same as one of ours at this moment.

        What was queued twice is the earlier trial's; of two that were drawn at the same moment both may give way.

        Args:
            number: Of our trial.
            trials: All of the study, as they are now.
        """
        mine = trials[number]
        for other in self._drivers.others(trials):
            queued = _fixed(mine) and _fixed(other)
            same = _key(_fixed(other) if queued else other.params) == _key(mine.params)
            if same and (not queued or other.number < number):
                return int(other.number)
        return None

    @property
    def _sampler(self) -> str:
        return self._runner.spec.search.sampler

    def _opening(self) -> list[FirstTrial]:
        return opening(self._proposals, self._runner.graph, self._runner.book, self._runner.spec.search.trials)

    def _first_trials(self) -> list[FirstTrial]:
        first, wanted = self._opening(), self._runner.spec.search.trials
        prior = prior_of(self._study)
        if prior is not None:
            first[1:1] = [FirstTrial(WARM, dict(trial.params)) for trial in prior.warmest(wanted)]
        known = self._knowledge()
        if known is not None and self._sampler == "greybox":  # it reads the table itself
            return [first[0], *(each for each in first[1:] if each.origin == WARM or not hopeless(known, each.params))]
        if known is not None:
            rows = seeds(known, min(wanted // 5, MOST_SEEDS))
            first[1:1] = [FirstTrial(DAMAGE_ORIGIN, {**first[0].params, **known.domain.decode(row)}) for row in rows]
        return first

    def _enqueue(self, params: dict[str, Any], origin: str) -> None:
        self._study.enqueue_trial(params, user_attrs={storage.ORIGIN: origin})


def _fixed(trial: FrozenTrial) -> dict[str, Any]:
    return dict(trial.system_attrs.get("fixed_params", {}))


def _key(params: Any) -> str:
    return json.dumps({name: params[name] for name in sorted(params)}, default=str)
