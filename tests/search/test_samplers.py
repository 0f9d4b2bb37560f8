"""Samplers: the same seed and number give the same proposal, whatever was asked for in between."""

import optuna
import pytest

from autoprune.errors import UnknownNameError
from autoprune.search.samplers import SAMPLERS, SamplerRequest

GRID = [round(0.1 * i, 10) for i in range(9)]
METHODS = ["channel/magnitude_l1", "weight/random", "2:4/taylor"]


def study_with(history):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=["minimize", "minimize"])
    for i in range(history):
        params = {"a": GRID[i % 9], "b": METHODS[i % 3], "c": GRID[-1 - i % 9]}
        distributions = {name: distribution(params[name]) for name in params}
        study.add_trial(
            optuna.trial.create_trial(values=[params["a"], 1 - params["c"]], params=params, distributions=distributions)
        )
    return study


def distribution(value):
    if isinstance(value, str):
        return optuna.distributions.CategoricalDistribution(METHODS)
    return optuna.distributions.FloatDistribution(0.0, 0.8, step=0.1)


def proposal(name, seed, number, history=12, lost=0):
    study = study_with(history)
    for _ in range(lost):
        study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL))
    study.sampler = SAMPLERS.get(name).make(SamplerRequest(seed=seed, number=number, trials=40))
    trial = study.ask()
    found = {
        "a": trial.suggest_float("a", 0.0, 0.8, step=0.1),
        "b": trial.suggest_categorical("b", METHODS),
        "c": trial.suggest_float("c", 0.0, 0.8, step=0.1),
    }
    assert min(abs(found["a"] - value) for value in GRID) < 1e-9
    return found


@pytest.mark.parametrize("name", SAMPLERS.names())
def test_the_same_seed_and_number_propose_the_same(name):
    assert proposal(name, seed=3, number=12) == proposal(name, seed=3, number=12)


@pytest.mark.parametrize("name", ["random", "qmc", "tpe", "nsga2"])
def test_trials_that_were_lost_change_no_proposal(name):
    assert proposal(name, seed=3, number=12, lost=3) == proposal(name, seed=3, number=12)


@pytest.mark.parametrize("name", ["random", "qmc"])
def test_numbers_and_seeds_propose_differently(name):
    found = [tuple(proposal(name, seed, number).values()) for seed in (0, 1) for number in range(12, 24)]
    assert len(set(found)) > 18


def test_the_sobol_sequence_visits_categories_and_numbers_evenly():
    found = [proposal("qmc", seed=0, number=number) for number in range(64)]
    for name, values in (("a", GRID), ("b", METHODS), ("c", GRID)):
        visits = [sum(abs(f[name] - v) < 1e-9 if name != "b" else f[name] == v for f in found) for v in values]
        assert max(visits) - min(visits) <= 2, (name, visits)


def test_the_sobol_sequence_covers_pairs_better_than_chance():
    pairs = {(proposal("qmc", 0, number)["a"] >= 0.4, proposal("qmc", 0, number)["c"] >= 0.4) for number in range(4)}
    assert len(pairs) >= 3


def test_qmc_without_a_history_still_proposes():
    assert proposal("qmc", seed=0, number=0, history=0)


def test_an_unknown_sampler_is_told_with_the_nearest_name():
    with pytest.raises(UnknownNameError, match="unknown sampler 'tpee'; did you mean 'tpe'"):
        SAMPLERS.get("tpee")
