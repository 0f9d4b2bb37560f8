"""The loop of a study: what is kept, what is run again, what ends it; with a runner that costs nothing."""

import functools
import itertools
import tempfile
import time
from pathlib import Path

import optuna
import pytest
import torch
from small_task import small_net
from stub_study import SPACE, StubRunner, make

from autoprune.errors import RunDirectoryError, RunError, TaskError
from autoprune.search import loop, storage
from autoprune.search import study as study_module
from autoprune.search.about import identity
from autoprune.search.ledger import Ledger
from autoprune.search.local import LocalExecutor
from autoprune.search.stored import read_study
from autoprune.spec.front import hypervolume_history
from autoprune.spec.record import Timings


@pytest.fixture(autouse=True)
def _stub(monkeypatch):
    monkeypatch.setattr(study_module, "TrialRunner", StubRunner)


def trials_of(directory):
    return storage.load_existing(None, directory).get_trials()


def configs(directory):
    study = storage.load_existing(None, directory)
    return [
        t.config.signature
        for t in read_study(study).trials
        if t.state != "pruned" and t.origin not in ("dense", "uniform")
    ]


def test_a_study_starts_with_the_dense_model_and_a_uniform_ladder(tmp_path):
    study = make(tmp_path)
    front = study.run()
    records = study.records()
    assert [t.origin for t in records.trials][:3] == ["dense", "uniform", "uniform"]
    assert sum(t.state != "pruned" for t in records.trials) == 12
    assert {t.number for t in front} <= {t.number for t in records.trials}
    assert [t.number for t in records.trials] == [t.number for t in trials_of(tmp_path)]


def test_run_again_does_nothing_and_more_trials_go_on(tmp_path):
    make(tmp_path).run()
    before = [t.number for t in trials_of(tmp_path)]
    make(tmp_path).run()
    assert [t.number for t in trials_of(tmp_path)] == before
    longer = make(tmp_path, trials=15)
    longer.run()
    assert sum(t.state != "pruned" for t in longer.records().trials) == 15


@functools.cache
def uninterrupted(sampler):
    """Return the configs that a sampler proposes when nothing happens, sorted."""
    with tempfile.TemporaryDirectory() as directory:
        make(directory, sampler=sampler).run()
        return sorted(configs(Path(directory)))


@pytest.mark.parametrize(("sampler", "at"), [("random", 0), ("random", 6), ("qmc", 6), ("tpe", 6), ("nsga2", 6)])
def test_an_interrupted_study_proposes_what_an_uninterrupted_one_does(tmp_path, sampler, at):
    def interrupt(runs):
        if runs == at:
            raise KeyboardInterrupt

    first = make(tmp_path / "broken", sampler=sampler)
    first.runner.behave = interrupt
    first.run()
    assert first.stopped == "stopped by Ctrl-C. The same command goes on"
    second = make(tmp_path / "broken", sampler=sampler)
    second.run()
    assert sum(t.state != "pruned" for t in second.records().trials) == 12
    assert [t.origin for t in second.records().trials].count("dense") == 1
    assert sorted(configs(tmp_path / "broken")) == uninterrupted(sampler)
    assert {t.state.name for t in trials_of(tmp_path / "broken")} <= {"COMPLETE", "PRUNED", "FAIL"}


class Killed(BaseException):
    """Stands for a process that dies: nothing of ours runs after it."""


@pytest.mark.parametrize("step", ["suggest", "run", "record", "tell"])
@pytest.mark.parametrize("trial", [0, 4])
def test_a_process_that_dies_at_any_step_loses_at_most_its_trial(tmp_path, monkeypatch, step, trial):
    study = make(tmp_path / "broken")
    count = {"n": 0}

    def dies(function):
        def wrapped(*args, **kwargs):
            if step in ("suggest", "run") or args[1:2] == (storage.RECORD,) or step == "tell":
                count["n"] += 1
                if count["n"] == trial + 1:
                    raise Killed
            return function(*args, **kwargs)

        return wrapped

    with monkeypatch.context() as patch:
        if step == "suggest":
            patch.setattr(type(study.proposals), "suggest", dies(type(study.proposals).suggest))
        elif step == "run":
            patch.setattr(LocalExecutor, "wait", dies(LocalExecutor.wait))
        elif step == "record":
            patch.setattr(optuna.trial.Trial, "set_user_attr", dies(optuna.trial.Trial.set_user_attr))
        else:
            patch.setattr(Ledger, "_tell", dies(Ledger._tell))
        with pytest.raises(Killed):
            study.run()
    kept = [t for t in trials_of(tmp_path / "broken") if storage.RECORD in t.user_attrs]
    again = make(tmp_path / "broken")
    again.run()
    records = {t.number: t for t in again.records().trials}
    for old in kept:
        assert records[old.number].to_data() == storage.record_of(old).to_data(), "nothing finished is lost or changed"
    assert sum(t.state != "pruned" for t in records.values()) == 12
    assert [t.origin for t in records.values()].count("dense") == 1
    assert sorted(configs(tmp_path / "broken")) == uninterrupted("random")
    told = {t.number: t.values for t in trials_of(tmp_path / "broken") if t.state.name == "COMPLETE"}
    assert all(told[n][1] == r.values["macs"] for n, r in records.items() if r.state == "complete")


def test_a_refused_config_that_was_recorded_but_not_told_is_told(tmp_path, monkeypatch):
    study = make(tmp_path, constraints={"macs": "1%"})
    original = Ledger._tell

    def tell(self, number, record):
        if record.violations and record.score is None:
            raise Killed
        original(self, number, record)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "_tell", tell)
        with pytest.raises(Killed):
            study.run()
    make(tmp_path, constraints={"macs": "1%"}).run()
    assert all(t.state.is_finished() for t in trials_of(tmp_path))


def test_what_a_bound_on_the_score_comes_to_is_told_with_the_dense_model(tmp_path):
    seen = []
    make(tmp_path, trials=2, constraints={"accuracy": "at least 90%"}).run(seen.append)
    assert seen[1].warnings == ("the constraint on the score comes to score at least 0.9 (0.9 of the dense 1)",)
    assert seen[2].warnings == ()
    study = make(tmp_path / "above", trials=2, constraints={"accuracy": "at least 1.5"})
    study.run()
    assert any(
        "the dense model itself does not meet the constraint score at least 1.5" in n
        for n in study.records().study.notes
    )


def test_failed_trials_keep_their_traceback_and_the_search_goes_on(tmp_path):
    study = make(tmp_path)
    errors = {2: ValueError("boom"), 3: MemoryError(), 4: torch.OutOfMemoryError("CUDA"), 5: SystemExit(3)}

    def behave(runs):
        if runs in errors:
            raise errors[runs]

    study.runner.behave = behave
    study.run()
    failed = [t for t in study.records().trials if t.state == "failed"]
    last = [t.error.strip().splitlines()[-1] for t in failed]
    assert last == ["ValueError: boom", "MemoryError", "torch.OutOfMemoryError: CUDA", "SystemExit: 3"]
    assert all("Traceback" in t.error for t in failed)
    assert all(t.config is not None for t in failed)
    assert sum(t.state != "pruned" for t in study.records().trials) == 12


def test_ten_failures_in_a_row_end_it_with_the_cause_and_its_records(tmp_path):
    study = make(tmp_path, trials=40)

    def behave(runs):
        if runs > 1:
            raise ValueError("the data is away")

    study.runner.behave = behave
    with pytest.raises(RunError, match="10 trials in a row failed, the last with ValueError: the data is away; mend"):
        study.run()
    assert [t.state for t in study.records().trials].count("failed") == 10


def test_nine_failures_in_a_row_do_not(tmp_path):
    study = make(tmp_path, trials=14)

    def behave(runs):
        if runs in range(2, 11):
            raise ValueError("x")

    study.runner.behave = behave
    study.run()
    assert not study.stopped


def test_a_space_that_is_exhausted_ends_it(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "MOST_REPEATS", 5)
    tiny = {
        **SPACE,
        "rules": [{"names": "stem", "granularity": "weight", "criterion": "random", "sparsity": [0.0, 0.5]}],
    }
    study = make(tmp_path, trials=30, space=tiny)
    study.run()
    assert "the space is exhausted. Widen it to go on" in study.stopped
    done = [t for t in study.records().trials if t.state == "complete"]
    assert len({t.config.signature for t in done}) == len(done)
    assert len(done) == 3, "dense as it is, recovered only, and the one config"


def test_the_time_may_be_up(tmp_path):
    study = make(tmp_path, trials=500, search={"timeout": "0.3s"})
    study.runner.behave = lambda runs: time.sleep(0.1)
    study.run()
    assert study.stopped == "the time of 0.3s is up. The same command goes on"
    assert len(study.records().trials) < 10


def test_the_budget_of_trial_time_may_be_spent_over_several_runs(tmp_path):
    study = make(tmp_path, trials=500, search={"budget": "0.5s"})
    study.runner.behave = lambda runs: time.sleep(0.05)
    study.runner.run = spending(study.runner.run)
    study.run()
    assert study.stopped == "the budget of 0.5s of trial time is spent. Give a larger one to go on"
    records = study.records()
    spent = [t.timings.total_s for t in records.trials]
    assert sum(spent) > 0.5 >= sum(spent) - max(spent)
    assert records.study.stopped == study.stopped
    again = make(tmp_path, trials=500, search={"budget": "0.5s"})
    again.run()
    assert again.runner.runs == 0
    assert again.stopped == study.stopped


def spending(run):
    """A runner's run that tells a tenth of a second."""

    def timed(*args):
        return run(*args).model_copy(update={"timings": Timings(evaluate_s=0.1)})

    return timed


def test_patience_ends_a_search_that_gains_nothing(tmp_path):
    study = make(tmp_path, trials=200, search={"patience": 6})
    study.run()
    assert study.stopped.startswith("the last 6 trials gained no hypervolume (")
    records = study.records()
    records = records.model_copy(update={"trials": tuple(t for t in records.trials if t.state != "pruned")})
    history = hypervolume_history(records)
    assert len(history) < 200
    assert history[-1] <= history[-7] * 1.001 < history[-1] * 1.002
    assert history[-7] > history[-8] * 1.001, "the one before the last six did gain"
    longer = make(tmp_path, trials=len(history) + 1, search={"patience": 50})
    longer.run()
    assert longer.stopped == ""
    assert longer.records().study.stopped is None


def test_patience_does_not_end_what_has_found_nothing_yet(tmp_path):
    study = make(tmp_path, trials=14, search={"patience": 3}, constraints={"macs": "1%"})
    study.run()
    assert study.stopped == ""
    assert sum(t.state != "pruned" for t in study.records().trials) == 14


def test_a_dense_model_that_cannot_be_scored_leaves_a_study_that_can_go_on(tmp_path):
    study = make(tmp_path)

    def behave(runs):
        raise TaskError("Task.evaluate returned nan")

    study.runner.behave = behave
    with pytest.raises(TaskError, match="returned nan"):
        study.run()
    again = make(tmp_path)
    again.run()
    assert sum(t.state != "pruned" for t in again.records().trials) == 12


def test_a_test_that_cannot_run_is_told_before_the_search(tmp_path):
    def test(model):
        raise ValueError("no test data")

    study = make(tmp_path, test=test)
    with pytest.raises(TaskError, match=r"Task.test raised ValueError: no test data on the dense model"):
        study.run()
    assert study.runner.runs == 0


def test_a_criterion_without_its_data_is_told_before_the_search(tmp_path):
    said = []
    rules = [SPACE["rules"][0] | {"criterion": ["magnitude_l1", "taylor"]}] * 2
    study = make(tmp_path, space=SPACE | {"rules": rules})
    study.run(say=said.append)
    assert said == ["Criterion 'taylor' is left out: it needs Task.batches and Task.loss, and the task has none."]


def test_test_data_is_touched_once_for_each_trial_of_the_front(tmp_path):
    calls = []
    study = make(tmp_path, test=lambda model: calls.append(1) or 0.5)
    study.runner.test_score = lambda config, seen=calls: seen.append(config.signature) or 0.5
    front = study.run()
    assert len(calls) == len(set(calls)) == len(front)
    study.run()
    assert len(calls) == len(front)


@pytest.mark.parametrize("what", ["seed", "space", "network", "checkpoint"])
def test_a_directory_of_another_study_is_left_alone(tmp_path, what):
    make(tmp_path).run()
    assert not (tmp_path / "study.db-wal").exists(), "the log is taken in when a search ends, not at any later moment"
    before = (tmp_path / "study.db").read_bytes(), (tmp_path / "records.jsonl").read_bytes()
    other = small_net(16 if what == "network" else 8)
    if what == "checkpoint":
        other.head.bias.data += 1
    changes = {"seed": {"search": {"seed": 5}}, "space": {"space": {**SPACE, "name": "t"}}}.get(what, {})
    key = {"seed": "search.seed", "space": "space.name", "network": "fingerprint", "checkpoint": "checkpoint"}[what]
    with pytest.raises(RunDirectoryError, match=rf"belongs to another study \({key} is"):
        make(tmp_path, model=other, **changes).run()
    assert before == ((tmp_path / "study.db").read_bytes(), (tmp_path / "records.jsonl").read_bytes())


def test_two_searches_do_not_run_in_one_directory(tmp_path):
    study = make(tmp_path)
    other = make(tmp_path)

    def behave(runs):
        if runs == 3:
            with pytest.raises(RunDirectoryError, match="another search is running"):
                other.run()

    study.runner.behave = behave
    study.run()
    other.run()


def test_progress_counts_what_is_finished(tmp_path):
    seen = []
    study = make(tmp_path)
    study.run(seen.append)
    assert [p.finished for p in seen] == list(range(13))
    assert seen[0].last is None
    assert all(a.hypervolume <= b.hypervolume for a, b in itertools.pairwise(seen[1:]))


def test_a_password_of_the_storage_stands_in_no_record(tmp_path):
    url = f"sqlite:///{tmp_path / 'x.db'}"
    study = make(tmp_path / "run", storage=url)
    study.run()
    assert study.records().study.spec.storage == url
    secret = make(tmp_path / "run", storage="postgresql://user:secret@host/db")
    assert "secret" not in secret._shown_spec.to_json()
    assert "secret" not in str(identity(secret._shown_spec, secret.runner))
