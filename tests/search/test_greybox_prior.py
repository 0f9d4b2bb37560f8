"""Trials of earlier studies on their way to the greybox model: rows of this space, scaled, with the noise they show."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import optuna
import pytest

from autoprune.search.greybox.space import SpaceKnowledge, why_unknown
from autoprune.search.prior import Prior, PriorTrial
from autoprune.search.proposals import make_proposals
from autoprune.search.samplers import SAMPLERS, SamplerRequest
from autoprune.search.study import Study
from autoprune.spec.space import SpaceSpec
from autoprune.spec.study import StudySpec
from autoprune.trial.runner import TrialRunner
from tests import small_task

RULE = {"granularity": ["channel"], "criterion": ["magnitude_l2"], "sparsity": {"low": 0.0, "high": 0.8, "step": 0.2}}
SPACE = {"schema": "autoprune/space/1", "name": "small", "rules": [RULE]}
OBJECTIVES = ("accuracy_drop", "macs")


@pytest.fixture(scope="module")
def known():
    spec = StudySpec(
        task="tests.small_task:task",
        device="raspberry-pi-4",
        space=SpaceSpec.model_validate(SPACE),
        objectives=OBJECTIVES,
    )
    runner = TrialRunner(small_task.task(), spec)
    proposals = make_proposals(spec.space, runner.graph, runner.recovery, 0, runner.book)

    def make(prior):
        return SpaceKnowledge(proposals, runner.costs.devices, OBJECTIVES, 0.5, 0.9, prior=prior)

    return make, proposals


def prior(proposals, sparsities):
    trials = [
        PriorTrial(
            params=proposals.searched(proposals.uniform(sparsity)),
            drop=sparsity / 2,
            noise=0.02,
            moved=0.0,
            costs={"macs": 1 - sparsity},
            source="runs/before",
        )
        for sparsity in sparsities
    ]
    return Prior(trials=tuple(trials))


def test_trials_become_rows_with_scaled_drops_and_noise(known):
    make, proposals = known
    knowledge = make(prior(proposals, (0.2, 0.6)))
    found = knowledge.earlier(np.zeros((0, len(knowledge.domain.axes)), np.int64), np.zeros(0))
    wanted = [knowledge.domain.encode(proposals.searched(proposals.uniform(s))) for s in (0.2, 0.6)]
    assert found.rows.tolist() == [row.tolist() for row in wanted]
    assert found.values == pytest.approx([0.2, 0.6])  # 0.1 and 0.3 of the reference's 0.5
    assert found.deviations == pytest.approx([0.04, 0.04])


def test_noise_grows_with_how_far_repeated_configs_missed(known):
    make, proposals = known
    knowledge = make(prior(proposals, (0.2, 0.4, 0.6)))
    rows = np.array([knowledge.domain.encode(proposals.searched(proposals.uniform(s))) for s in (0.2, 0.4, 0.6)])
    found = knowledge.earlier(rows, np.array([0.2, 0.4, 0.6]) + 0.12)  # each off by 0.06, three times its noise
    assert found.deviations == pytest.approx([0.12] * 3)


def test_a_trial_with_a_choice_that_left_the_space_is_not_told(known):
    make, proposals = known
    params = {**proposals.searched(proposals.uniform(0.2)), "stem|sparsity": 0.4}
    gone = PriorTrial(
        params={key: value for key, value in params.items() if key != "stem|sparsity"},
        drop=0.1,
        noise=0.1,
        moved=0.0,
        costs={"macs": 0.5},
        source="runs/before",
    )
    knowledge = make(Prior(trials=(gone,)))
    assert knowledge.earlier(np.zeros((0, len(knowledge.domain.axes)), np.int64), np.zeros(0)) is None
    assert make(None).earlier(np.zeros((0, len(knowledge.domain.axes)), np.int64), np.zeros(0)) is None


def test_what_keeps_costs_from_being_computed_is_said(known):
    _, proposals = known

    counted, uncounted = SimpleNamespace(devices={"fp32": None}), SimpleNamespace(devices=None)
    assert why_unknown(proposals, counted, OBJECTIVES) == ""
    assert why_unknown(proposals, uncounted, OBJECTIVES) == "the costs of this network do not follow from counts"
    assert why_unknown(proposals, counted, ("macs",)) == "accuracy_drop is no objective"
    assert why_unknown(proposals, counted, (*OBJECTIVES, "smiles")) == "smiles cannot be computed"
    block = replace(proposals.knobs[0], stage=object())
    told = why_unknown(replace(proposals, knobs=(block, *proposals.knobs[1:])), counted, OBJECTIVES)
    assert told == "the space removes whole blocks, and their costs depend on which of them go"


def test_a_study_says_at_the_start_that_costs_are_not_computed(tmp_path, monkeypatch):
    monkeypatch.setattr("autoprune.search.study.why_unknown", lambda *_: "no counts")
    spec = StudySpec(
        task="tests.small_task:task",
        device="raspberry-pi-4",
        space=SpaceSpec.model_validate(SPACE),
        objectives=OBJECTIVES,
        search={"sampler": "greybox", "trials": 2},
    )
    said = []
    Study(small_task.task(), spec, tmp_path).run(say=said.append)
    assert said[0] == "greybox leaves the proposals to tpe, for costs are not known before a trial: no counts"


def test_greybox_is_tpe_where_nothing_is_known():
    blind = SAMPLERS.get("greybox").make(SamplerRequest(0, 3, 10))
    assert isinstance(blind, optuna.samplers.TPESampler)
    values = []
    for name in ("greybox", "tpe"):
        study = optuna.create_study(directions=["minimize"])
        for number in range(15):
            study.sampler = SAMPLERS.get(name).make(SamplerRequest(0, number, 15))
            study.tell(trial := study.ask(), trial.suggest_float("x", 0, 1) ** 2)
        values.append(study.trials_dataframe()["params_x"].tolist())
    assert values[0] == values[1]
