"""Schedules against their formulas, and what they refuse."""

import math

import pytest

from autoprune.errors import UsageError
from autoprune.testing import check_schedule
from autoprune.training.schedules import (
    SCHEDULES,
    ConstantSchedule,
    CubicSchedule,
    ExponentialSchedule,
    IterativeSchedule,
    OneCycleSchedule,
    OneShotSchedule,
    PolynomialSchedule,
    Schedule,
)

FORMULAS = {
    CubicSchedule: lambda t: 0.8 + (0.2 - 0.8) * (1 - t) ** 3,
    PolynomialSchedule: lambda t: 0.8 + (0.2 - 0.8) * (1 - t) ** 3.0,
    ExponentialSchedule: lambda t: 1 - math.exp(math.log(0.8) + t * (math.log(0.2) - math.log(0.8))),
    OneCycleSchedule: lambda t: 0.2 + 0.6 * (1 + math.exp(-9)) / (1 + math.exp(5 - 14 * t)),
    ConstantSchedule: lambda t: 0.8,
}


@pytest.mark.parametrize("kind", FORMULAS, ids=lambda kind: kind.__name__)
def test_a_ramp_follows_its_formula(kind):
    schedule = kind(begin=10, end=50, every=4, initial=0.2)
    for step in range(10, 50):
        assert schedule.sparsity(step, 0.8) == pytest.approx(FORMULAS[kind]((step - 10) / 40), abs=1e-12)
    assert schedule.sparsity(9, 0.8) == 0
    assert schedule.sparsity(50, 0.8) == schedule.sparsity(5000, 0.8) == 0.8, "exactly the config's"
    assert [step for step in range(100) if schedule.due(step)] == list(range(10, 51, 4))


def test_the_last_change_is_at_the_end_whatever_the_distance():
    assert [step for step in range(30) if CubicSchedule(begin=0, end=20, every=7).due(step)] == [0, 7, 14, 20]


def test_a_layer_below_the_initial_sparsity_starts_at_its_own():
    assert CubicSchedule(begin=0, end=10, every=1, initial=0.5).sparsity(0, 0.3) == 0.3


def test_zhu_and_gupta_published_values():
    """With s_i = 0, s_f = 0.875 halfway through the ramp 7/8 of the way is done: 0.765625."""
    assert CubicSchedule(begin=0, end=100, every=1).sparsity(50, 0.875) == pytest.approx(0.765625)


def test_iterative_rounds_are_equal_portions_at_equal_distances():
    schedule = IterativeSchedule(begin=100, end=500, rounds=5)
    assert [step for step in range(1000) if schedule.due(step)] == [100, 200, 300, 400, 500]
    reached = [schedule.sparsity(step, 0.5) for step in (99, 100, 250, 300, 500, 900)]
    assert reached == pytest.approx([0, 0.1, 0.2, 0.3, 0.5, 0.5])


def test_one_shot_is_one_step():
    schedule = OneShotSchedule(at=7)
    assert [step for step in range(20) if schedule.due(step)] == [7]
    assert (schedule.sparsity(6, 0.5), schedule.sparsity(7, 0.5)) == (0, 0.5)


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_every_schedule_rises_to_the_config_and_is_a_value(name):
    schedule = SCHEDULES.get(name)()
    assert isinstance(schedule, Schedule)
    assert schedule == SCHEDULES.get(name)()
    check_schedule(schedule)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: CubicSchedule(begin=10, end=10),
            "ends at step 10, which is not after its begin at step 10; give an end",
        ),
        (lambda: ExponentialSchedule(begin=10, end=5), "ends at step 5, which is not after its begin"),
        (lambda: IterativeSchedule(begin=10, end=5), "ends at step 5, which is not after its begin"),
        (lambda: IterativeSchedule(begin=0, end=2, rounds=9), "at least 2 rounds and at most one a step"),
        (lambda: OneCycleSchedule(every=0), "every is a whole number of at least 1, not 0"),
        (lambda: CubicSchedule(begin=-1), "begin is a whole number of at least 0, not -1"),
        (lambda: CubicSchedule(begin=0.5), "begin is a whole number of at least 0, not 0.5"),
        (lambda: CubicSchedule(initial=1.0), "initial sparsity is at least 0 and below 1, not 1.0"),
        (lambda: PolynomialSchedule(power=0), "power of a polynomial schedule is above 0, not 0"),
        (lambda: OneShotSchedule(at=-1), "a whole number of at least 0, not -1"),
    ],
)
def test_what_cannot_be_is_one_sentence(make, sentence):
    with pytest.raises(UsageError, match=sentence):
        make()
