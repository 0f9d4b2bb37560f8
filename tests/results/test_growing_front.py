"""The front that a search keeps while it runs, against the front of all its records."""

import random

import pytest
from synthetic_run import run_records

from autoprune.spec.front import GrowingFront, front, hypervolume_of


@pytest.mark.parametrize("seed", range(6))
def test_a_front_that_grows_is_the_front_of_all_whatever_the_order(seed):
    """Trials end in any order, some repeat a config, some have equal values; taken one by one and some together."""
    rng = random.Random(seed)
    records = run_records(60, seed=seed)
    trials = list(records.trials)
    good = [trial for trial in trials if trial.feasible]
    for number in range(60, 75):
        twin = rng.choice(good)
        changes = {"number": number, "config": rng.choice([twin.config, rng.choice(good).config])}
        trials.append(twin.model_copy(update=changes))
    rng.shuffle(trials)
    growing, at = GrowingFront(records.study, trials[:3]), 3
    while at < len(trials):
        at += rng.choice([0, 1, 1, 4])
        growing.take(trials[:at])
        whole = records.model_copy(update={"trials": tuple(trials[:at])})
        assert [trial.number for trial in growing.trials] == [trial.number for trial in front(whole)]
        assert growing.hypervolume == hypervolume_of(whole)
    assert len(growing.trials) > 3
