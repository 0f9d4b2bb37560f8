"""The damage table: probes kept over a resume, criteria dropped with a reason, seeds near the best of all configs."""

import copy

import numpy as np
import optuna
import pytest
import torch
from torch import nn

from autoprune.search.damage import DAMAGE, DamageTable, damage_table
from autoprune.search.greybox import seeds as seeds_module
from autoprune.search.greybox.seeds import descent, hopeless, seeds
from autoprune.search.greybox.space import SpaceKnowledge
from autoprune.search.proposals import make_proposals
from autoprune.search.study import Study
from autoprune.spec.config import LayerChoice, ModelIdentity, PruningConfig
from autoprune.spec.findings import DamageRecord
from autoprune.spec.space import SpaceSpec
from autoprune.spec.study import StudySpec
from autoprune.trial.damage import DamageMeter, Probe, dense_score_and_samples, probe_samples
from autoprune.trial.pruned import pruned_model
from autoprune.trial.runner import TrialRunner
from tests import small_task

SPACE = {
    "schema": "autoprune/space/1",
    "name": "small",
    "rules": [
        {
            "granularity": ["channel"],
            "criterion": ["magnitude_l2", "random"],
            "sparsity": {"low": 0.0, "high": 0.8, "step": 0.2},
        }
    ],
}


def small_spec(**search):
    return StudySpec(
        task="tests.small_task:task",
        device="raspberry-pi-4",
        space=SpaceSpec.model_validate(SPACE),
        objectives=("accuracy_drop", "macs"),
        search={"sampler": "greybox", "trials": 14, **search},
    )


@pytest.fixture(scope="module")
def runner():
    return TrialRunner(small_task.task(), small_spec())


@pytest.fixture(scope="module")
def proposals(runner):
    return make_proposals(runner.spec.space, runner.graph, runner.recovery, 0, runner.book)


def probed(runner, proposals):
    study = optuna.create_study()
    return study, damage_table(study, runner, proposals)


def test_what_was_tried_is_kept_and_not_tried_again(runner, proposals, monkeypatch):
    study, table = probed(runner, proposals)
    kept = study.user_attrs[DAMAGE]["probes"]
    # Two criteria at the middle, the better one at both ends: 0.2 (or less, where there are few units) and 0.8.
    assert [r.name for r in table.records] == [k.name for k in proposals.knobs for _ in range(4)]
    assert len(kept) == len(table.records)
    monkeypatch.setattr("autoprune.search.damage.DamageMeter", None)  # making one would fail
    monkeypatch.setattr("autoprune.search.damage.dense_score_and_samples", None)
    assert damage_table(study, runner, proposals) == table


def test_more_damage_goes_with_more_sparsity_and_macs_are_those_of_the_network(runner, proposals):
    _, table = probed(runner, proposals)
    dense = runner.costs.of_config(runner.dense_config).values["macs"]
    for knob in proposals.knobs:
        values = table.arrays(proposals)[knob.name]
        assert values.shape == (2, 5)
        assert (values[:, 0] == 0).all()
        assert (np.diff(values, axis=1) >= 0).all()
        assert all(0 < record.macs < dense for record in table.records if record.name == knob.name)
    drops = [table.arrays(proposals)[knob.name][0, -1] for knob in proposals.knobs]
    assert max(drops) > 0


def test_a_probe_is_the_loss_of_one_pass_with_the_batch_s_own_statistics(runner):
    meter = DamageMeter(runner, 0.9, samples=32)
    name = next(iter(runner.graph.groups))
    choice = LayerChoice(granularity="channel", criterion="magnitude_l2", sparsity=0.5)
    before = {key: value.clone() for key, value in runner.model.state_dict().items()}
    drop = meter(name, choice).drop
    assert all(torch.equal(value, before[key]) for key, value in runner.model.state_dict().items())
    identity = ModelIdentity(fingerprint=runner.graph.fingerprint)
    config = PruningConfig(model=identity, seed=0, layers={name: (choice,)})
    smaller = pruned_model(runner.model, runner.graph, runner.book, config).model

    def loss(model):
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.track_running_stats, module.running_mean, module.running_var = False, None, None
        batches = [nn.functional.cross_entropy(model.eval()(inputs), labels) for inputs, labels in runner.data.walk()]
        return float(np.mean(batches))

    with torch.no_grad():
        rise = loss(smaller) - loss(copy.deepcopy(runner.model))
    assert drop == pytest.approx(0.9 * (1 - np.exp(-rise)), abs=1e-5)


def test_the_samples_of_a_probe_follow_what_a_trial_sends_through_the_network(runner):
    score, seen = dense_score_and_samples(runner)
    assert score == runner.task.evaluate(runner.model)
    assert seen == runner.recovery.batchnorm_samples + 256
    assert probe_samples(400, 40.0) == 160
    assert probe_samples(10, 1_000.0) == 0, "the meter has bounds of its own"


def test_losers_of_a_contest_stand_as_far_behind_as_few_samples_say(proposals, monkeypatch):
    class Meter:
        def __init__(self, *_):
            pass

        def __call__(self, name, choice, few=False):
            worse = 0.07 if choice.criterion == "random" else 0.0
            return Probe(name, choice, choice.sparsity + worse + (0.5 if few else 0.0))

    monkeypatch.setattr("autoprune.search.damage.DamageMeter", Meter)
    fresh = TrialRunner(small_task.task(), small_spec())  # what a runner keeps, the real meter is among it
    _, table = probed(fresh, proposals)
    for knob in proposals.knobs:
        mine = [record for record in table.records if record.name == knob.name]
        assert [record.criterion for record in mine] == ["magnitude_l2", "random", "magnitude_l2", "magnitude_l2"]
        assert [record.drop - record.sparsity for record in mine] == pytest.approx([0, 0.07, 0, 0])


def record(criterion, drop, sparsity=0.4, name="stem"):
    return DamageRecord(name=name, granularity="channel", criterion=criterion, sparsity=sparsity, drop=drop, macs=1.0)


def test_a_criterion_that_is_clearly_worse_leaves_the_space_with_its_numbers(proposals):
    table = DamageTable((record("magnitude_l2", 0.02), record("random", 0.08)), proposals, 0.9)
    (dropped,) = table.dropped
    assert (dropped.name, dropped.criterion) == ("stem", "random")
    assert dropped.reason == "alone at 40% it costs 0.08, magnitude_l2 0.02"
    kept = {knob.name: knob.methods for knob in table.proposals.knobs}
    assert kept.pop("stem") == ("channel/magnitude_l2",)
    assert all(methods == ("channel/magnitude_l2", "channel/random") for methods in kept.values())


@pytest.mark.parametrize("worse", [0.02, 0.045, 0.015])
def test_what_may_be_noise_stays(proposals, worse):
    table = DamageTable((record("magnitude_l2", 0.02), record("random", worse)), proposals, 0.9)
    assert table.proposals == proposals


def test_the_descent_trades_damage_for_exact_macs(runner, proposals):
    cheap, dear = proposals.knobs[0].name, proposals.knobs[1].name
    records = tuple(
        record(criterion, drop * (2.0 if name == dear else 0.01), sparsity, name)
        for name in (cheap, dear)
        for criterion, drop, sparsity in (
            ("magnitude_l2", 0.1, 0.2),
            ("magnitude_l2", 0.3, 0.4),
            ("random", 0.31, 0.4),
            ("magnitude_l2", 0.9, 0.8),
        )
    )
    table = DamageTable(records, proposals, 1.0)
    known = SpaceKnowledge(
        proposals, runner.costs.devices, ("accuracy_drop", "macs"), 1.0, 1.0, table=table.arrays(proposals)
    )
    path = descent(known)
    costs, damage = known.costs(path)[:, 0], known.damage(path)
    assert costs[0] == 1.0
    assert damage[0] == 0.0
    assert (np.diff(costs) < 0).all()
    assert (np.diff(damage) >= -1e-12).all()
    params = [known.domain.decode(row) for row in path]
    first_dear = next(n for n, p in enumerate(params) if p[f"{dear}|sparsity"] > 0)
    assert params[first_dear - 1][f"{cheap}|sparsity"] == 0.8, "what costs nothing goes first"
    best = {}
    for row in (
        np.array(np.meshgrid(*[range(size) for size in known.domain.sizes])).reshape(len(known.domain.axes), -1).T
    ):
        key = round(float(known.costs(row[None])[0, 0]), 6)
        best[key] = min(best.get(key, np.inf), float(known.damage(row[None])[0]))
    for cost, lost in zip(costs, damage, strict=True):
        least = min(value for key, value in best.items() if key <= cost + 1e-6)
        assert lost <= 1.5 * least + 0.05, "far from the best of all configs that are as cheap"
    some = seeds(known, 4)
    assert 1 < len(some) <= 4


def test_a_greybox_study_probes_first_and_lets_the_sampler_read_what_it_found(tmp_path):
    study = Study(small_task.task(), small_spec(), tmp_path)
    study.run()
    records = study.records()
    assert len(records.study.damage) == 8
    origins = [trial.origin for trial in records.trials]
    assert origins[0] == "dense"
    assert "damage" not in origins, "greybox asks for what the table promises when it promises most"
    assert "greybox" in origins
    again = Study(small_task.task(), small_spec(trials=15), tmp_path)
    again.run()
    assert again.records().study.damage == records.study.damage
    assert again.records().trials[:14] == records.trials


def test_damage_between_probes_is_a_power_and_a_ratio_of_two_small_numbers_stays_near_one(proposals):
    # The stem has eight channels: 20, 40, 60 and 80 % of them are 1, 3, 4 and 6.
    probes = (
        record("magnitude_l2", 0.1, 0.25),
        record("magnitude_l2", 0.4, 0.375),
        record("random", 0.4, 0.375),
        record("magnitude_l2", 0.9, 0.75),
    )
    knob = proposals.knobs[0]
    table = DamageTable(probes, proposals, 1.0).arrays(proposals)[knob.name]
    known = next(m for m, method in enumerate(knob.methods) if method.endswith("magnitude_l2"))
    between = 0.42 * (0.92 / 0.42) ** (np.log(0.5 / 0.375) / np.log(2)) - 0.02
    assert table[known] == pytest.approx([0.0, 0.1 * 0.5**2, 0.4, between, 0.9])
    tiny = (record("magnitude_l2", 1e-5, 0.4), record("random", 1e-3, 0.4), record("magnitude_l2", 0.5, 0.8))
    rows = DamageTable(tiny, proposals, 1.0).arrays(proposals)[knob.name]
    assert rows.max() < 0.5 * 1.1, "a hundred times next to nothing is next to nothing"


def test_what_the_table_says_is_broken_is_no_first_trial(runner, proposals, tmp_path, monkeypatch):
    name = proposals.knobs[0].name
    probes = (record("magnitude_l2", 0.01, 0.2, name), record("magnitude_l2", 0.9, 0.8, name))
    known = SpaceKnowledge(
        proposals,
        runner.costs.devices,
        ("accuracy_drop", "macs"),
        0.2,
        1.0,
        table=DamageTable(probes, proposals, 1.0).arrays(proposals),
    )
    assert hopeless(known, proposals.uniform(0.8))
    assert not hopeless(known, proposals.uniform(0.2))
    assert not hopeless(known, {}), "nothing is known of a part of a config"
    monkeypatch.setattr(seeds_module, "HOPELESS", -1.0)
    study = Study(small_task.task(), small_spec(trials=5), tmp_path)
    study.run()
    origins = [trial.origin for trial in study.records().trials]
    assert origins == ["dense"] + 4 * ["greybox"]


def test_other_samplers_start_with_configs_that_follow_from_the_table(tmp_path):
    study = Study(small_task.task(), small_spec(sampler="random", probe=True, trials=12), tmp_path)
    study.run()
    origins = [trial.origin for trial in study.records().trials]
    assert 1 <= origins.count("damage") <= 12 // 5
    assert origins.index("damage") == 1


def test_probes_can_be_turned_off(tmp_path):
    study = Study(small_task.task(), small_spec(probe=False, trials=3), tmp_path)
    study.run()
    assert study.records().study.damage is None
    assert "damage" not in [trial.origin for trial in study.records().trials]
