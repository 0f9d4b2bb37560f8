"""The greybox sampler: its gain against brute force, its model against truth, its proposals against plain search."""

import math

import numpy as np
import optuna
import pytest
from numpy.testing import assert_allclose
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from autoprune.pareto import hypervolume
from autoprune.search.greybox import Domain, GreyboxSampler, History
from autoprune.search.greybox import sampler as sampler_module
from autoprune.search.greybox.domain import domain_of, grid_axis
from autoprune.search.greybox.gain import (
    Front,
    expected_gain,
    expected_gain_of_uncertain,
    stairs_of,
)
from autoprune.search.greybox.knowledge import Earlier, Reading
from autoprune.search.greybox.link import Link
from autoprune.search.greybox.model import drop_model
from autoprune.search.greybox.surrogate import Hyperparameters, Observations, Prior, Process, fit

optuna.logging.set_verbosity(optuna.logging.ERROR)


def gained(front, point):
    """The gain in hypervolume by its definition."""
    corner = np.ones(front.shape[1])
    return hypervolume(np.vstack([front, point]), corner) - hypervolume(front, corner)


@pytest.mark.parametrize(("others", "tolerance"), [(0, 1e-6), (1, 1e-6), (2, 0.01), (3, 0.01)])
def test_the_gain_of_a_certain_point_is_its_hypervolume(others, tolerance):
    rng = np.random.default_rng(others)
    front = rng.random((12, 1 + others))
    points = rng.random((20, 1 + others)) * 0.8
    stairs = stairs_of(Front(front[:, 0], front[:, 1:]))
    below = np.maximum(stairs.levels[None] - points[:, :1], 0.0)
    got = expected_gain(stairs, below, points[:, 1:])
    assert_allclose(got, [gained(front, point) for point in points], atol=tolerance)
    certain = expected_gain_of_uncertain(stairs, below, points[:, 1:], np.zeros((20, others)))
    if others != 1:  # with one, an edge inside a cell counts by the cell's middle
        assert_allclose(certain, got, atol=0.01)


def test_a_long_front_has_the_level_of_its_best_point_in_every_cell():
    rng = np.random.default_rng(0)
    first, others = rng.random(700), rng.random((700, 2)) ** 0.3  # few points reach a corner: many blocks are looked at
    stairs = stairs_of(Front(first, others))
    within = (others[None] <= stairs.corners[:, None]).all(axis=2)
    best = np.where(within, first[None], 1.0).min(axis=1)
    assert_allclose(stairs.levels[stairs.level], best)
    assert stairs.levels[-1] == 1.0
    assert set(stairs.level) | {len(stairs.levels) - 1} == set(range(len(stairs.levels))), "no level that holds nowhere"


def test_the_expected_gain_is_the_mean_over_draws():
    rng = np.random.default_rng(0)
    front = np.column_stack([np.linspace(0.05, 0.9, 8), np.linspace(0.9, 0.1, 8)])
    stairs = stairs_of(Front(front[:, 0], front[:, 1:]))
    mean, deviation, shift, cost = -1.5, 0.8, 0.02, 0.45
    below = Link(shift).below(stairs.levels, np.array([mean]), np.array([deviation]))
    got = expected_gain(stairs, below, np.array([[cost]]))[0]
    drops = np.maximum(np.exp(rng.normal(mean, deviation, 1500)) - shift, 0.0)
    drawn = [gained(front, np.array([drop, cost])) for drop in drops]
    assert abs(got - np.mean(drawn)) < 4 * np.std(drawn) / np.sqrt(len(drawn))


@pytest.mark.parametrize("top", [math.inf, 1.6])
def test_a_link_takes_values_to_latents_and_back_and_knows_their_distribution(top):
    link, rng = Link(0.02, top), np.random.default_rng(0)
    values = np.array([0.0, 0.01, 0.3, 1.0, 1.4])
    assert_allclose(link.value(link.latent(values)), values, atol=1e-12)
    small = np.array([1e-4])
    assert_allclose(link.rise(small), small, rtol=1e-3)
    levels, mean, deviation = np.array([0.0, 0.05, 0.4, 1.0]), np.array([-3.0, -1.0, 0.5]), np.array([0.1, 0.8, 0.3])
    drawn = np.maximum(link.value(rng.normal(mean, deviation, (200_000, 3))), 0.0)
    expected = np.maximum(levels[None, None] - drawn[..., None], 0.0).mean(axis=0)
    assert_allclose(link.below(levels, mean, deviation), expected, atol=2e-3)


def test_a_broken_network_is_told_as_broken_however_broken_it_is():
    link = Link(0.02, 1.6)
    assert link.latent(np.array([1.55]))[0] == link.latent(np.array([1.9]))[0] > link.latent(np.array([1.4]))[0]


def test_a_point_that_the_front_dominates_gains_next_to_nothing():
    stairs = stairs_of(Front(np.array([0.1]), np.array([[0.2]])))
    below = Link(0.02).below(stairs.levels, np.log(np.array([0.5, 0.01])), np.full(2, 1e-3))
    gains = expected_gain(stairs, below, np.array([[0.5], [0.1]]))
    assert gains[0] < 1e-6 < 0.1 < gains[1]


def sample(count, knobs=5, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.random((count, knobs))
    return x, np.sin(3 * x[:, 0]) + x[:, 1] ** 2


def observed(x, y, extra=0.0):
    return Observations(x, np.arange(x.shape[1]), np.ones((len(x), 1)), y, np.full(len(x), extra))


def test_the_process_learns_what_matters_and_predicts_it():
    x, y = sample(80)
    found = fit(observed(x, y), Prior(np.full(5, -1.6), spread=1.5))
    assert found.weights[:2].min() > found.weights[2:].max()
    fresh, truth = sample(200, seed=1)
    mean, deviation = Process(observed(x, y), found).posterior(fresh, np.ones((200, 1)))
    assert np.sqrt(np.mean((mean - truth) ** 2)) < 0.1 * truth.std()
    assert np.mean(np.abs(mean - truth) < 3 * deviation + 0.02) > 0.95


def test_an_observation_with_more_noise_counts_less():
    x = np.array([[0.2], [0.8]])
    seen = Observations(x, np.array([0]), np.ones((2, 1)), np.array([0.0, 1.0]), np.array([0.0, 4.0]))
    mean, deviation = Process(seen, Hyperparameters(np.array([2.0]), 0.0, -9.0)).posterior(x, np.ones((2, 1)))
    assert abs(mean[0]) < 0.01
    assert mean[1] < 0.5
    assert deviation[0] < deviation[1]


def test_a_domain_reads_every_distribution():
    domain = domain_of(
        {
            "a": FloatDistribution(0.0, 0.8, step=0.1),
            "b": CategoricalDistribution(["x", "y", None]),
            "c": IntDistribution(1, 100_000, log=True),
            "d": FloatDistribution(0, 1),
            "e": CategoricalDistribution(["alone"]),
        }
    )
    assert [axis.name for axis in domain.axes] == ["a", "b", "c", "d"]
    params = {"a": 0.3, "b": None, "c": 100_000, "d": 0.5}
    row = domain.encode(params)
    assert domain.decode(row) == params
    assert domain.encode({**params, "b": "z"}) is None
    at, owner = domain.coordinates(np.array([row]))
    assert owner.tolist() == [0, 1, 1, 1, 2, 3]
    assert_allclose(at[0, [0, 4, 5]], [0.375, 1.0, 0.5])


class Toy:
    """Ten layers: the drop grows with the square of what goes, the cost with the product of neighbouring widths."""

    def __init__(self, layers=10):
        names = [f"layer{n}|sparsity" for n in range(layers)]
        self.domain = Domain(tuple(grid_axis(name, [round(0.1 * i, 10) for i in range(9)]) for name in names))
        self.knobs = np.arange(layers)
        self.scale, self.shift, self.ceiling = 0.5, 0.02, math.inf
        self.weights = np.geomspace(0.02, 1.0, layers)

    def gone(self, codes):
        return 0.1 * np.asarray(codes)

    def drop(self, codes):
        return self.gone(codes) ** 2 @ self.weights

    def canonical(self, codes):
        return codes

    def coordinates(self, codes):
        return self.gone(codes), self.knobs

    def damage(self, codes):
        return None

    def costs(self, codes):
        kept = 1 - self.gone(codes)
        return (kept[:, 1:] * kept[:, :-1]).mean(axis=1, keepdims=True)

    def allowed(self, codes):
        return np.ones(len(codes), bool)

    def readings(self, trial):
        return [Reading(trial.values[0])] if trial.values else []

    def earlier(self, rows, values):
        return None


def searched(sampler, toy, trials, told=None):
    study = optuna.create_study(directions=["minimize", "minimize"])
    for step in range(9):
        study.enqueue_trial({axis.name: axis.choices[step] for axis in toy.domain.axes})
    for number in range(trials):
        study.sampler = sampler(number)
        trial = study.ask()
        params = {axis.name: trial.suggest_float(axis.name, 0, 0.8, step=0.1) for axis in toy.domain.axes}
        row = toy.domain.encode(params)[None]
        study.tell(trial, [float(toy.drop(row)[0]), float(toy.costs(row)[0, 0])])
    return study


def reached(study):
    return hypervolume(np.array([t.values for t in study.trials]) / [0.5, 1.0], np.ones(2))


def test_it_needs_a_fraction_of_the_trials_of_tpe():
    toy = Toy()
    history = History()
    ours = searched(lambda n: GreyboxSampler(n, toy, history), toy, 35)
    theirs = searched(lambda n: optuna.samplers.TPESampler(seed=n, multivariate=True), toy, 80)
    assert reached(ours) > reached(theirs)
    rows = {tuple(trial.params.values()) for trial in ours.trials}
    assert len(rows) == len(ours.trials), "a row was proposed twice"


def test_earlier_studies_count_as_much_as_their_noise_lets_them():
    toy, rng = Toy(), np.random.default_rng(0)
    study = searched(lambda n: optuna.samplers.RandomSampler(seed=n), toy, 15)
    rows = rng.integers(0, 9, (80, 10))
    asked = rng.integers(0, 9, (50, 10))
    truth = np.log(toy.drop(asked) / toy.scale + toy.shift)

    def error(deviation):
        drops = toy.drop(rows) / toy.scale
        toy.earlier = lambda *_: None if deviation is None else Earlier(rows, drops, np.full(80, deviation) * drops)
        history = History()
        history.read(study.trials, toy.domain, study.directions, toy.readings, "a study")
        return float(np.sqrt(np.mean((drop_model(toy, history).belief(asked)[0] - truth) ** 2)))

    assert error(0.05) < 0.5 * error(None)
    assert error(0.05) < 0.8 * error(50.0)


def test_what_was_measured_here_is_not_taken_from_an_earlier_study():
    toy = Toy()
    study = searched(lambda n: optuna.samplers.RandomSampler(seed=n), toy, 15)
    here = np.array([toy.domain.encode(trial.params) for trial in study.trials])
    history = History()
    history.read(study.trials, toy.domain, study.directions, toy.readings, "a study")
    alone = drop_model(toy, history).belief(here)
    toy.earlier = lambda *_: Earlier(here, np.full(15, 9.0), np.full(15, 1e-3))
    assert_allclose(drop_model(toy, history).belief(here), alone)


def test_any_process_proposes_the_same():
    toy = Toy()
    history = History()
    study = searched(lambda n: GreyboxSampler(n, toy, history), toy, 20)
    found = []
    for sampler in (GreyboxSampler(7, toy, history), GreyboxSampler(7, toy)):
        copy = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
        copy.add_trials(study.trials)
        trial = copy.ask()
        found.append([trial.suggest_float(axis.name, 0, 0.8, step=0.1) for axis in toy.domain.axes])
    assert found[0] == found[1]


def test_what_is_pending_is_not_proposed_again():
    toy = Toy()
    study = searched(lambda n: GreyboxSampler(n, toy), toy, 12)
    study.sampler = GreyboxSampler(3, toy)
    found = set()
    for _ in range(4):
        trial = study.ask()
        found.add(tuple(trial.suggest_float(axis.name, 0, 0.8, step=0.1) for axis in toy.domain.axes))
    assert len(found) == 4


def asked(study, sampler, toy, count):
    found = []
    for left in range(count, 0, -1):
        study.sampler = sampler(left)
        trial = study.ask()
        found.append(tuple(trial.suggest_float(axis.name, 0, 0.8, step=0.1) for axis in toy.domain.axes))
    return found


def test_what_is_wanted_at_one_moment_is_chosen_together(monkeypatch):
    toy, history = Toy(), History()
    study = searched(lambda n: GreyboxSampler(n, toy, history), toy, 12)
    looks = []
    look = sampler_module.candidates
    monkeypatch.setattr(sampler_module, "candidates", lambda *args: looks.append(1) or look(*args))
    before = {tuple(trial.params.values()) for trial in study.trials}
    alone = asked(optuna_copy(study), lambda left: GreyboxSampler(3, toy), toy, 1)
    together = asked(study, lambda left: GreyboxSampler(3, toy, history, left), toy, 8)
    assert len(looks) == 2, "one look for the eight"
    assert len(set(together)) == 8
    assert not set(together) & before
    assert together[0] == alone[0], "the first is what a single ask would have given"
    study.tell(study.trials[-1].number, [0.1, 0.5])
    again = asked(study, lambda left: GreyboxSampler(4, toy, history, left), toy, 3)
    assert len(looks) == 3, "what was told since is looked at"
    assert not set(again) & (before | set(together))


def optuna_copy(study):
    copy = optuna.create_study(directions=["minimize", "minimize"])
    copy.add_trials(study.trials)
    return copy


def reached_by_fours(together, seed, toy):
    study = optuna.create_study(directions=["minimize", "minimize"])
    study.add_trials(searched(lambda n: GreyboxSampler(n, toy), toy, 9).trials)
    history = History()
    while len(study.trials) < 37:
        trials = []
        for left in range(4, 0, -1):
            study.sampler = GreyboxSampler(seed + len(study.trials), toy, history, left if together else 1)
            trials.append(study.ask())
            for axis in toy.domain.axes:
                trials[-1].suggest_float(axis.name, 0, 0.8, step=0.1)
        for trial in trials:
            row = toy.domain.encode(trial.params)[None]
            study.tell(trial, [float(toy.drop(row)[0]), float(toy.costs(row)[0, 0])])
    return reached(study)


def test_four_chosen_together_gain_about_what_four_gain_that_are_chosen_one_after_the_other():
    toy = Toy()
    together, apart = (np.mean([reached_by_fours(way, seed, toy) for seed in (0, 1000)]) for way in (True, False))
    assert together > 0.9 * apart


def test_a_bound_on_a_cost_is_kept():
    toy = Toy()
    toy.allowed = lambda codes: toy.costs(codes)[:, 0] <= 0.3
    study = searched(lambda n: GreyboxSampler(n, toy), toy, 16)
    assert max(trial.values[1] for trial in study.trials[9:]) <= 0.3


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_any_optuna_study_can_use_it(objectives):
    def objective(trial):
        x = trial.suggest_float("x", -1, 1)
        kind = trial.suggest_categorical("kind", ["a", "b", "c"])
        n = trial.suggest_int("n", 1, 8)
        trial.set_constraint("n", n - 6)
        values = [(x - 0.3) ** 2 + (kind != "b") + 0.1 * abs(n - 5), -(x**2), 0.1 * n][:objectives]
        return values if objectives > 1 else values[0]

    def best(sampler):
        directions = ["minimize", "maximize", "minimize"][:objectives]
        study = optuna.create_study(directions=directions, sampler=sampler)
        study.optimize(objective, n_trials=20)
        values = np.array([trial.values for trial in study.trials if trial.params["n"] <= 6])
        values[:, 1:2] *= -1
        return hypervolume(values, np.full(objectives, 1.0))

    ours = best(GreyboxSampler(0))
    theirs = [best(optuna.samplers.RandomSampler(seed)) for seed in range(10)]
    assert ours > np.quantile(theirs, 0.8)
