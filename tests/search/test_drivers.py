"""Two drivers on one study: each trial once, as many as asked for, and what a lost driver left is taken over."""

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import types
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from stub_study import StubRunner, make

from autoprune.pareto import nondominated
from autoprune.search import drivers, storage
from autoprune.search import study as study_module


@pytest.fixture(autouse=True)
def _stub(monkeypatch):
    monkeypatch.setattr(study_module, "TrialRunner", StubRunner)


def run_both(studies):
    """Run several drivers at the same time, each in a thread; return what they raised."""
    raised = []

    def run(study):
        try:
            study.run()
        except Exception as error:  # noqa: BLE001 - the test looks at all of them
            raised.append(error)

    threads = [threading.Thread(target=run, args=(study,)) for study in studies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=300)
    return raised


def check_whole(url, studies, wanted):
    trials = optuna.load_study(study_name=storage.STUDY_NAME, storage=url).get_trials()
    records = [r for t in trials if (r := storage.record_of(t)) is not None]
    finished = [r for r in records if r.state != "pruned"]
    assert len(finished) == wanted
    assert all(t.state.is_finished() or t.state == TrialState.WAITING for t in trials), "none is RUNNING"
    assert len({r.number for r in records}) == len(records)
    tried = [r.config.signature for r in finished if r.state == "complete"]
    assert len(set(tried)) == len(tried), "no config was tried twice"
    assert [r.origin for r in finished].count("dense") == 1
    points = [[r.values["accuracy_drop"], r.values["macs"]] for r in finished]
    expected = {r.number for r, best in zip(finished, nondominated(points), strict=True) if best}
    for study in studies:
        assert {t.number for t in study.run()} == expected, "both see the same front"
    return finished


def test_two_drivers_share_a_study(tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    both = [make(tmp_path / name, trials=24, storage=url) for name in ("a", "b")]
    begun = threading.Barrier(2)
    for study in both:
        study.runner.behave = lambda runs: begun.wait(timeout=60) if 1 <= runs <= 2 else None  # both take part
    assert run_both(both) == []
    check_whole(url, both, 24)
    assert all(study.runner.runs > 1 for study in both)


def test_a_driver_looks_at_a_shared_storage_as_often_in_a_long_study_as_in_a_short_one(tmp_path, monkeypatch):
    looks, seen = [], []
    read = optuna.Study.get_trials
    monkeypatch.setattr(optuna.Study, "get_trials", lambda *args, **kwargs: looks.append(1) or read(*args, **kwargs))
    make(tmp_path, trials=20, storage=f"sqlite:///{tmp_path / 'shared.db'}").run(lambda _: seen.append(len(looks)))
    each = [after - before for before, after in itertools.pairwise(seen[2:])]
    assert set(each) == {5}, "what others did: one look; the seed: one; whether the trial is wanted: two; is new: one"


def test_of_two_drivers_that_begin_at_once_one_measures_the_dense_model(tmp_path):
    """Step by step: both have queued it, both ask, one gives way; what is queued twice is not run twice."""
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    a, b = (make(tmp_path / name, trials=8, storage=url) for name in "ab")
    with a.books() as first, b.books() as second:
        first.resume()
        second.resume()
        study = optuna.load_study(study_name=storage.STUDY_NAME, storage=url)
        (queued,) = study.get_trials(states=(TrialState.WAITING,))
        for _ in range(2):
            study.enqueue_trial(queued.system_attrs["fixed_params"], user_attrs={storage.ORIGIN: "dense"})
        mine, theirs = first.propose(), second.propose()
        assert not first.surplus(mine)
        assert first.repeat(mine) is None
        assert second.surplus(theirs), "the other one measures it"
        late = second.propose()
        first.settle(mine, a.runner.run_dense(mine.number))
        assert not second.surplus(late)
        assert "repeats the config of trial 0" in second.repeat(late).error, "it has just been measured"
        second.settle(late, second.repeat(late))
        while second.finished < 8:
            job = second.propose()
            assert job.dense is not None
            repeat = second.repeat(job)
            second.settle(job, repeat or b.runner.run(job.config, job.number, job.origin, job.dense))
    assert [r.origin for r in check_whole(url, (a, b), 8)].count("uniform") == 1


def test_of_two_that_ask_for_the_last_trial_one_gives_way(tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    a, b = (make(tmp_path / name, trials=4, storage=url) for name in "ab")
    with a.books() as first, b.books() as second:
        first.resume()
        job = first.propose()
        first.settle(job, a.runner.run_dense(job.number))
        second.resume()
        jobs = [first.propose(), first.propose(), second.propose(), first.propose()]
        drivers_of = [first, first, second, first]
        assert [ledger.surplus(job) for ledger, job in zip(drivers_of, jobs, strict=True)] == [
            False,
            False,
            False,
            True,
        ]
        for ledger, job in zip(drivers_of[:3], jobs, strict=False):
            ledger.settle(job, a.runner.run(job.config, job.number, job.origin, job.dense))
    check_whole(url, (a, b), 4)


def left_running(study, owner):
    """Leave a trial as a driver that dies in it does."""
    study.sampler = optuna.samplers.RandomSampler(seed=5)
    for trial in study.get_trials(states=(TrialState.WAITING,)):
        study.ask()
        study.tell(trial.number, state=TrialState.FAIL)
    trial = study.ask()
    if owner is not None:
        trial.set_user_attr(drivers.OWNER, owner)
    return trial


@pytest.mark.parametrize("owner", ["another host|/elsewhere|1234", None])
def test_what_a_lost_driver_left_is_taken_over_and_what_a_live_one_does_is_not(tmp_path, monkeypatch, owner):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    first = make(tmp_path / "a", trials=4, storage=url)
    first.run()
    study = optuna.load_study(study_name=storage.STUDY_NAME, storage=url)
    trial = left_running(study, owner)
    config = first.proposals.suggest(trial)
    again = make(tmp_path / "b", trials=8, storage=url)
    seen = []
    clock = types.SimpleNamespace(now=0.0, monotonic=lambda: clock.now)

    def behave(_):
        seen.append(study.get_trials()[trial.number].state)
        clock.now += drivers.LOST_AFTER_S + 1

    again.runner.behave = behave
    monkeypatch.setattr(drivers, "time", clock)
    again.run()
    assert seen[0] == TrialState.RUNNING, "it may be alive: nothing is taken from it at once"
    assert study.get_trials()[trial.number].state == TrialState.FAIL
    tried = [r.config.signature for r in again.records().trials if r.config is not None]
    assert config.signature in tried, "what it was to try is tried"
    assert sum(t.state != "pruned" for t in again.records().trials) == 8


def test_a_driver_takes_its_own_trials_back_at_once(tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    first = make(tmp_path / "a", trials=4, storage=url)
    first.run()
    study = optuna.load_study(study_name=storage.STUDY_NAME, storage=url)
    place = f"{drivers.platform.node()}|{(tmp_path / 'a').resolve()}|before"
    trial = left_running(study, place)
    config = first.proposals.suggest(trial)
    again = make(tmp_path / "a", trials=6, storage=url)
    states = []
    again.runner.behave = lambda runs: states.append(study.get_trials()[trial.number].state)
    again.run()
    assert states[0] == TrialState.FAIL
    assert config.signature in [r.config.signature for r in again.records().trials]


@contextlib.contextmanager
def postgres():
    """Run a PostgreSQL server of our own and give its URL; the test is skipped where there is none."""
    if shutil.which("initdb") is None or shutil.which("postgres") is None:
        pytest.skip("no PostgreSQL (initdb, postgres) on this machine")
    user = "postgres" if os.getuid() == 0 else None  # the server refuses to run as root
    with tempfile.TemporaryDirectory(prefix="autoprune-pg-", ignore_cleanup_errors=True) as folder:
        if user is not None:
            try:
                shutil.chown(folder, user)
            except LookupError:
                pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        data = Path(folder) / "data"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "user": user, "cwd": folder}
        subprocess.run(["initdb", "-D", data, "-A", "trust", "-U", "autoprune", "--no-sync"], check=True, **quiet)
        server = subprocess.Popen(["postgres", "-D", data, "-p", str(port), "-k", folder, "-F"], **quiet)
        try:
            for _ in range(200):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                threading.Event().wait(0.1)
            yield f"postgresql+psycopg2://autoprune@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(2)
            server.wait(timeout=60)


@pytest.mark.slow
def test_two_drivers_share_a_study_on_postgresql(tmp_path):
    with postgres() as url:
        both = [make(tmp_path / name, trials=24, storage=url) for name in ("a", "b")]
        begun = threading.Barrier(2)
        for study in both:
            study.runner.behave = lambda runs: begun.wait(timeout=60) if 1 <= runs <= 2 else None
        assert run_both(both) == []
        check_whole(url, both, 24)
