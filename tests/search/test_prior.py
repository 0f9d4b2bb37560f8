"""Warm start: what a study takes from earlier ones, how far it trusts it, and what it cannot start from."""

import functools
import shutil

import pytest
from small_task import small_net
from test_study_loop import SPACE, StubRunner, make, trials_of

from autoprune.errors import RunDirectoryError
from autoprune.search import storage
from autoprune.search import study as study_module
from autoprune.search.prior import LEAST_NOISE, Prior, PriorTrial, gather, prior_of
from autoprune.spec.front import WARM

FINER = {
    **SPACE,
    "name": "finer",
    "rules": [{**SPACE["rules"][0], "sparsity": {"low": 0.0, "high": 0.8, "step": 0.05}}],
}


@pytest.fixture(autouse=True)
def _stub(monkeypatch):
    monkeypatch.setattr(study_module, "TrialRunner", StubRunner)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_module, "TrialRunner", StubRunner)
        study = make(tmp_path_factory.mktemp("earlier"), trials=20)
        study.run()
    return study


def warm(directory, earlier, **changes):
    return make(directory, trials=20, space=FINER, search={"seed": 1, "warm_start": [str(earlier)]}, **changes)


def told(directory):
    return prior_of(storage.load_existing(None, directory))


def test_the_best_of_the_earlier_study_is_tried_first_and_all_of_it_is_offered(tmp_path, earlier):
    study = warm(tmp_path / "new", earlier.directory)
    study.run()
    records, old = study.records(), [t for t in earlier.records().trials if t.score is not None][1:]
    tried = [t for t in records.trials if t.origin == WARM]
    assert [t.number for t in tried] == list(range(1, len(tried) + 1)), "right after the dense model"
    assert 2 <= len(tried) <= 4, "at most a fifth of the trials"
    best = {
        str(t.config.layers)
        for t in old
        if not any(
            o.values["macs"] <= t.values["macs"] and o.values["accuracy_drop"] < t.values["accuracy_drop"] for o in old
        )
    }
    assert {str(t.config.layers) for t in tried} <= best, "the coarser grid is part of the finer one: the same configs"
    prior = told(tmp_path / "new")
    assert len(prior.trials) == len(old)
    assert [t.drop for t in prior.trials] == [t.values["accuracy_drop"] for t in old]
    assert all(t.moved == 0 and t.noise >= LEAST_NOISE for t in prior.trials)
    names = set(study.proposals.searched(study.proposals.uniform(0.0)))
    assert all(set(t.params) == names for t in prior.trials)


def test_it_goes_on_without_the_earlier_directory(tmp_path, earlier):
    shutil.copytree(earlier.directory, tmp_path / "copy")

    def interrupt(runs):
        if runs == 7:
            raise KeyboardInterrupt

    study = warm(tmp_path / "new", tmp_path / "copy")
    study.runner.behave = interrupt
    study.run()
    shutil.rmtree(tmp_path / "copy")
    again = warm(tmp_path / "new", tmp_path / "copy")
    again.run()
    assert sum(t.state != "pruned" for t in again.records().trials) == 20
    assert all(t.state.is_finished() for t in trials_of(tmp_path / "new"))


def test_another_architecture_is_told(tmp_path, earlier):
    with pytest.raises(
        RunDirectoryError, match=r"is of another architecture \(fingerprint \w+, this model's is \w+\); give"
    ):
        warm(tmp_path, earlier.directory, model=small_net(16)).run()


def test_a_directory_without_records_is_told(tmp_path):
    with pytest.raises(RunDirectoryError, match=r"holds no records.jsonl; give the directory of a run"):
        warm(tmp_path / "new", tmp_path / "nothing").run()


def test_a_coarser_grid_moves_configs_and_trusts_them_less(earlier):
    coarse = {**SPACE, "rules": [{**SPACE["rules"][0], "sparsity": [0.0, 0.4, 0.8]}]}
    study = functools.partial(make, earlier.directory.parent / "unused", trials=20)
    same, moved = (gather([str(earlier.directory)], study(space=space).proposals) for space in (SPACE, coarse))
    assert sum(t.moved > 0 for t in moved.trials) > 3
    assert not any(t.moved for t in same.trials)
    for a, b in zip(same.trials, moved.trials, strict=True):
        assert b.noise >= a.noise
        assert (b.noise > a.noise) == (b.moved > 0)


def test_repeated_configs_say_how_far_the_prior_is_to_be_trusted():
    trials = tuple(
        PriorTrial(params={"a": float(n)}, drop=0.1, noise=0.02, moved=0.0, costs={"macs": 0.5}, source="x")
        for n in range(5)
    )
    prior = Prior(trials=trials)
    here = [({"a": float(n)}, 0.1 + 0.06 * (-1) ** n) for n in range(4)]
    assert [t.noise for t in prior.against(here).trials] == pytest.approx([0.06] * 5)
    assert prior.against(here[:2]) is prior
