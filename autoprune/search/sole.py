"""A storage that one process alone writes: what it wrote it need not read again.

Optuna reads every trial that is not finished anew at each look, for another process might have changed it. With 64
trials in flight that was two thirds of what a proposal costs the driver. A run directory's own ``study.db`` is held by
one search at a time, so that its trials can be kept in memory; every write goes to the file first.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Container, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState


class SoleWriter(BaseStorage):
    """Optuna's storage interface, reads from memory.

    Args:
        kept: Where everything is written; nobody else writes to it meanwhile.
    """

    def __init__(self, kept: BaseStorage) -> None:
        self._kept = kept
        self._lock = threading.RLock()
        self._forget()

    def __getstate__(self) -> BaseStorage:
        """Return what a copy starts from."""
        return self._kept

    def __setstate__(self, kept: BaseStorage) -> None:
        """Start from what :meth:`__getstate__` gave."""
        self.__init__(kept)  # type: ignore[misc]

    def _forget(self) -> None:
        self._studies: dict[int, dict[int, FrozenTrial]] = {}
        """Study to its trials by number."""
        self._places: dict[int, tuple[int, int]] = {}
        """Trial to its study and number."""
        self._attrs: dict[int, dict[str, Any]] = {}

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """Make the study."""
        return self._kept.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        """Delete the study."""
        with self._lock:
            self._kept.delete_study(study_id)
            self._forget()

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Write an attribute of the study."""
        with self._lock:
            self._kept.set_study_user_attr(study_id, key, value)
            if study_id in self._attrs:
                self._attrs[study_id] = {**self._attrs[study_id], key: _as_read(value)}

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Write an attribute of Optuna's own."""
        self._kept.set_study_system_attr(study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        """Return the study's id."""
        return self._kept.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        """Return the study's name."""
        return self._kept.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Return the directions of the objectives."""
        return self._kept.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the study's attributes."""
        with self._lock:
            if study_id not in self._attrs:
                self._attrs[study_id] = self._kept.get_study_user_attrs(study_id)
            return dict(self._attrs[study_id])

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return Optuna's own attributes of the study."""
        return self._kept.get_study_system_attrs(study_id)

    def get_all_studies(self) -> list[Any]:
        """Return the studies."""
        return self._kept.get_all_studies()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Make a trial and return its id."""
        with self._lock:
            trials = self._of(study_id)
            made = self._kept.create_new_trial(study_id, template_trial)
            trial = self._kept.get_trial(made)
            trials[trial.number] = trial
            self._places[made] = study_id, trial.number
            return made

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Write a parameter."""

        def change(trial: FrozenTrial) -> None:
            value = distribution.to_external_repr(param_value_internal)
            trial.params = {**trial.params, param_name: value}
            trial.distributions = {**trial.distributions, param_name: distribution}

        self._write(
            trial_id,
            change,
            lambda: self._kept.set_trial_param(trial_id, param_name, param_value_internal, distribution),
        )

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        """Return the id of a trial.

        Raises:
            KeyError: There is none of this number.
        """
        with self._lock:
            return int(self._of(study_id)[trial_number]._trial_id)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Write a trial's state, and its values; tell whether that was possible."""
        with self._lock:
            done = self._kept.set_trial_state_values(trial_id, state, values)
            if trial_id in self._places:  # with the times that the storage notes
                study_id, number = self._places[trial_id]
                self._studies[study_id][number] = self._kept.get_trial(trial_id)
            return done

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Write a value of a trial's course."""

        def change(trial: FrozenTrial) -> None:
            trial.intermediate_values = {**trial.intermediate_values, step: intermediate_value}

        self._write(
            trial_id, change, lambda: self._kept.set_trial_intermediate_value(trial_id, step, intermediate_value)
        )

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write an attribute of a trial."""

        def change(trial: FrozenTrial) -> None:
            trial.user_attrs = {**trial.user_attrs, key: _as_read(value)}

        self._write(trial_id, change, lambda: self._kept.set_trial_user_attr(trial_id, key, value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write an attribute of Optuna's own."""

        def change(trial: FrozenTrial) -> None:
            trial.system_attrs = {**trial.system_attrs, key: _as_read(value)}

        self._write(trial_id, change, lambda: self._kept.set_trial_system_attr(trial_id, key, value))

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return a trial as it is now; later writes leave what was returned alone.

        Raises:
            KeyError: There is none of this id.
        """
        with self._lock:
            if trial_id not in self._places:
                return self._kept.get_trial(trial_id)
            study_id, number = self._places[trial_id]
            trial = self._studies[study_id][number]
            if trial.state.is_finished():
                return trial
            trial = copy.copy(trial)  # Optuna adds what it suggests and is told to what it got here
            for part in ("params", "distributions", "user_attrs", "system_attrs", "intermediate_values"):
                setattr(trial, part, dict(getattr(trial, part)))
            return trial

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the trials by number."""
        with self._lock:
            trials = self._of(study_id)
            found = [trials[number] for number in range(len(trials))]
        if states is not None:
            found = [trial for trial in found if trial.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def remove_session(self) -> None:
        """Close the connection of this thread."""
        self._kept.remove_session()

    def _of(self, study_id: int) -> dict[int, FrozenTrial]:
        if study_id not in self._studies:
            read = self._kept.get_all_trials(study_id)
            self._studies[study_id] = {trial.number: trial for trial in read}
            self._places |= {trial._trial_id: (study_id, trial.number) for trial in read}
        return self._studies[study_id]

    def _write(self, trial_id: int, change: Callable[[FrozenTrial], None], keep: Callable[[], None]) -> None:
        """Write to the file, then put a changed copy in the place of a trial: whoever holds the old one keeps it."""
        with self._lock:
            keep()
            if trial_id in self._places:
                study_id, number = self._places[trial_id]
                trial = copy.copy(self._studies[study_id][number])
                change(trial)
                self._studies[study_id][number] = trial


def _as_read(value: Any) -> Any:
    """Return a value as it comes back from the file: lists for tuples, text for keys."""
    return json.loads(json.dumps(value))
