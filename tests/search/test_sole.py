"""The storage that one process alone writes: what it says from memory is what stands in the file, at any moment."""

import datetime

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import TrialState

from autoprune.search.sole import SoleWriter


@pytest.fixture
def opened(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    kept = RDBStorage(url)
    read = RDBStorage(url)
    yield SoleWriter(optuna.storages.get_storage(kept)), read
    for storage in (kept, read):
        storage.remove_session()
        storage.engine.dispose()


def suggest(trial):
    trial.suggest_categorical("method", ["none", "channel/magnitude_l1", 3, None])
    trial.suggest_float("sparsity", 0.0, 0.8, step=0.1)
    trial.suggest_int("count", 1, 7)


def check_same(study, read):
    read.remove_session()
    there = read.get_all_trials(read.get_study_id_from_name("s"))
    assert study.get_trials() == there
    assert study.get_trials(deepcopy=False, states=(TrialState.WAITING,)) == [
        trial for trial in there if trial.state == TrialState.WAITING
    ]
    assert study.user_attrs == read.get_study_user_attrs(study._study_id)
    for trial in there:
        assert study._storage.get_trial(trial._trial_id) == trial
        assert study._storage.get_trial_id_from_study_id_trial_number(study._study_id, trial.number) == trial._trial_id


def test_what_is_read_is_what_stands_in_the_file(opened):
    sole, read = opened
    sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=3)
    study = optuna.create_study(storage=sole, study_name="s", directions=["minimize"] * 2, sampler=sampler)
    study.set_user_attr("facts", {"shape": (1, 2), 3: "three"})
    study.enqueue_trial({"sparsity": 0.4}, user_attrs={"origin": "uniform"})
    check_same(study, read)
    asked = []
    for number in range(12):
        trial = study.ask()
        suggest(trial)
        trial.set_user_attr("record", {"values": (1.5, 2), "number": number})
        trial.set_constraint("macs", number - 5)
        asked.append(trial)
        if number % 3 == 0:
            check_same(study, read)
    for trial in asked[::-1]:
        state = [TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED][trial.number % 3]
        study.tell(trial.number, [1.0, 2.0] if state == TrialState.COMPLETE else None, state=state)
    check_same(study, read)
    assert all(isinstance(t.datetime_complete, datetime.datetime) for t in study.trials)
    assert study.trials[0].params["sparsity"] == 0.4


def test_a_study_that_is_opened_again_goes_on_from_the_file(opened):
    sole, read = opened
    study = optuna.create_study(storage=sole, study_name="s", directions=["minimize"])
    trial = study.ask()
    suggest(trial)
    again = optuna.load_study(study_name="s", storage=SoleWriter(optuna.storages.get_storage(read)))
    assert again.get_trials() == study.get_trials()
    again.tell(trial.number, 0.5)
    assert again.trials[0].value == 0.5


def test_what_was_read_before_stays_as_it_was(opened):
    sole, _ = opened
    study = optuna.create_study(storage=sole, study_name="s", directions=["minimize"])
    trial = study.ask()
    (before,) = study.get_trials(deepcopy=False)
    suggest(trial)
    trial.set_user_attr("a", 1)
    study.tell(trial, 1.0)
    assert (before.params, before.user_attrs, before.state) == ({}, {}, TrialState.RUNNING)


def test_a_trial_that_is_finished_is_not_changed(opened):
    sole, read = opened
    study = optuna.create_study(storage=sole, study_name="s", directions=["minimize"])
    trial = study.ask()
    study.tell(trial, 1.0)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        trial.set_user_attr("a", 1)
    check_same(study, read)
    with pytest.raises(KeyError):
        sole.get_trial_id_from_study_id_trial_number(study._study_id, 5)


class TestAsOptunaAsks(StorageTestCase):
    """Optuna's own suite of its storages."""

    @pytest.fixture
    def storage(self):
        kept = RDBStorage("sqlite:///:memory:")
        yield SoleWriter(optuna.storages.get_storage(kept))
        kept.remove_session()
        kept.engine.dispose()

    def test_pickle_storage(self, opened):
        super().test_pickle_storage(opened[0])
