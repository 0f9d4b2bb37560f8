"""Rungs: who is stopped and who climbs, what a study keeps of it, and what a killed one goes on with."""

import pytest
from test_study_loop import Killed, StubRunner, configs, make, trials_of

from autoprune.errors import TaskError
from autoprune.ranks import order_margin
from autoprune.search import storage
from autoprune.search import study as study_module
from autoprune.search.errands import OwnHands
from autoprune.search.executors import EXECUTORS, ExecutorEntry
from autoprune.search.local import run_job
from autoprune.search.rungs import LEAST_CLIMBED, Rungs, known_costs
from autoprune.spec.findings import RungRecord
from autoprune.spec.front import front
from autoprune.spec.record import TrialRecord
from autoprune.spec.study import LAST_RUNG, RungSpec, StudySpec
from autoprune.trial.rungs import RungScorer

RUNGS = [{"samples": 100}, {}]
TRIALS = 20


class ClimbingRunner(StubRunner):
    """As the stub, with two rungs before the whole: drops on a sample are twice those on all data, in order.

    Choosing at random costs accuracy and saves nothing.
    """

    def run(self, config, number, origin, dense, rung=None):
        whole = super().run(config, number, origin, dense)
        rungs = self.spec.search.rungs or ()
        luck = 0.1 * sum(choice.criterion == "random" for _, choice in config.choices())
        if whole.score is not None:
            drop = whole.values["accuracy_drop"] + luck
            whole = whole.model_copy(update={"score": 1 - drop, "values": whole.values | {"accuracy_drop": drop}})
        if whole.score is None or rung is None or rung >= len(rungs):
            return whole
        drop = whole.values["accuracy_drop"] * (2 - rung)
        reached = RungRecord(name=rungs[rung].name, score=1 - drop, drop=drop, seconds=0.5)
        costs = {"macs": whole.values["macs"]}
        return TrialRecord(number=number, state="pruned", origin=origin, config=config, values=costs, rungs=(reached,))


@pytest.fixture(autouse=True)
def _stub(monkeypatch):
    monkeypatch.setattr(study_module, "TrialRunner", ClimbingRunner)


def climb(directory, trials=TRIALS, **changes):
    search = {"rungs": RUNGS, **changes.pop("search", {})}
    return make(directory, trials=trials, search=search, recovery={"finetune_steps": 5}, **changes)


def trial(number, macs, drops, origin="tpe", names=("100 samples", LAST_RUNG)):
    rungs = tuple(
        RungRecord(name=name, score=1 - drop, drop=drop, seconds=1.0) for name, drop in zip(names, drops, strict=False)
    )
    return TrialRecord(number=number, state="complete", origin=origin, values={"macs": macs}, rungs=rungs)


SPEC = StudySpec(
    task="a:b", space="channels", objectives=("accuracy_drop", "macs"), search={"rungs": [RungSpec(samples=100)]}
)
LADDER = [trial(n, 100.0 - 10 * n, (0.05 * n, 0.05 * n), "uniform") for n in range(1, LEAST_CLIMBED + 1)]


@pytest.mark.parametrize(
    ("macs", "drop", "others", "stopped"),
    [
        (80.0, 0.30, LADDER, "trial 2"),  # a ladder step costs as much and loses 0.10
        (80.0, 0.14, LADDER, ""),  # no further apart than the sampling error of 100 images
        (45.0, 0.30, LADDER, ""),  # nobody as cheap has come so far with less
        (80.0, 0.30, LADDER[:-1], ""),  # too few have climbed to know what the rung is worth
        (80.0, 0.30, [t.model_copy(update={"origin": "dense"}) for t in LADDER[:1]] + LADDER[1:-1], ""),
    ],
)
def test_who_is_clearly_worse_is_stopped(macs, drop, others, stopped):
    said = Rungs(SPEC).verdict(trial(50, macs, (drop,)), others)
    assert (stopped in said and said.startswith("stopped on rung '100 samples'")) if stopped else said == ""


def test_a_rung_that_tells_nothing_stops_nobody():
    backwards = [trial(n, 100.0 - 10 * n, (0.05 * n, 0.5 - 0.05 * n), "uniform") for n in range(1, 9)]
    assert Rungs(SPEC).verdict(trial(50, 95.0, (0.9,)), backwards) == ""


def test_the_dense_model_stops_what_loses_and_saves_nothing():
    dense = TrialRecord(number=0, state="complete", origin="dense", values={"macs": 100.0})
    assert "trial 0" in Rungs(SPEC).verdict(trial(50, 100.0, (0.5,)), [dense, *LADDER])


def test_baselines_climb_all_rungs():
    assert Rungs(SPEC).verdict(trial(50, 80.0, (0.9,), "uniform"), LADDER) == ""


def test_costs_that_must_be_measured_are_compared_by_what_drives_them():
    assert known_costs(SPEC) == ("macs",)
    measured = SPEC.model_copy(update={"objectives": ("accuracy_drop", "params", "latency_ms")})
    assert known_costs(measured) == ("params", "macs", "dram_bytes")


def test_the_margin_is_the_smallest_that_keeps_the_order():
    """Against a count over all pairs, for every margin that could be."""
    a, b = [0.0, 0.1, 0.2, 0.3, 0.9, 1.0, 1.0], [0.2, 0.0, 0.1, 0.05, 0.8, 1.0, 0.9]
    for kept in (0.5, 0.9, 1.0):

        def holds(margin, kept=kept):
            pairs = [(i, j) for i in range(7) for j in range(7) if a[i] - a[j] > margin + 1e-12]
            return bool(pairs) and sum(b[i] >= b[j] for i, j in pairs) >= kept * len(pairs)

        gaps = sorted({0.0, *(x - y for x in a for y in a if x > y)})
        assert order_margin(a, b, kept) == pytest.approx(min(gap for gap in gaps if holds(gap)))
    assert order_margin([0, 1], [1, 0], 0.9) == float("inf")
    assert order_margin([1, 1], [1, 0], 0.9) == float("inf")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A study that nothing happened to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_module, "TrialRunner", ClimbingRunner)
        study = climb(tmp_path_factory.mktemp("undisturbed"))
        study.run()
    return study


def test_stopped_trials_are_pruned_and_promoted_ones_carry_all_rungs(undisturbed):
    records = undisturbed.records()
    stopped = [t for t in records.trials if t.state == "pruned" and t.rungs]
    whole = [t for t in records.trials if t.state == "complete" and t.origin != "dense"]
    assert stopped
    assert all(t.error.startswith("stopped on rung") and t.score is None for t in stopped)
    assert all([r.name for r in t.rungs] == ["100 samples", "all samples", LAST_RUNG] for t in whole)
    assert all(t.rungs[-1].drop == t.values["accuracy_drop"] == t.rungs[0].drop / 2 for t in whole)
    assert not {t.number for t in stopped} & {t.number for t in front(records)}
    assert len(stopped) + len(whole) + 1 == TRIALS, "what a rung stopped counts as a trial"
    states = {t.number: t.state.name for t in trials_of(undisturbed.directory)}
    assert {states[t.number] for t in stopped} == {"PRUNED"}


def test_whoever_is_whole_is_what_it_is_without_rungs(undisturbed, tmp_path):
    whole = make(tmp_path, trials=TRIALS, recovery={"finetune_steps": 5})
    whole.run()
    with_rungs, without = (
        {t.config.signature: t.values for t in study.records().trials if t.state == "complete"}
        for study in (undisturbed, whole)
    )
    assert len(with_rungs) < len(without)
    assert all(without[signature] == values for signature, values in with_rungs.items())


def ladder(study):
    """What became of each config: state, rungs, why."""
    records = study.records()
    return sorted(
        (t.config.signature, t.state, t.rungs, (t.error or "").split(" of trial")[0]) for t in records.trials if t.rungs
    )


@pytest.mark.parametrize(("at", "how"), [(8, Killed), (21, KeyboardInterrupt), (24, Killed)])
def test_resuming_between_rungs_loses_nothing(undisturbed, tmp_path, at, how):
    def stop(runs):
        if runs == at:
            raise how

    study = climb(tmp_path / "broken")
    study.runner.behave = stop
    if how is Killed:
        with pytest.raises(Killed):
            study.run()
    else:
        study.run()
    open_ = [t for t in trials_of(tmp_path / "broken") if t.state.name == "RUNNING"]
    kept = [len(storage.record_of(t, storage.CLIMBING).rungs) for t in open_ if storage.CLIMBING in t.user_attrs]
    again = climb(tmp_path / "broken")
    again.run()
    assert ladder(again) == ladder(undisturbed)
    assert sorted(configs(tmp_path / "broken")) == sorted(configs(undisturbed.directory))
    assert study.runner.runs - 1 + again.runner.runs == undisturbed.runner.runs, "no rung is climbed twice"
    assert all(t.state.is_finished() for t in trials_of(tmp_path / "broken"))
    assert kept in ([], [1], [2])


class Several:
    """Four jobs at once, the last one taken done first."""

    capacity = 4
    ended = 0
    has_meter = False

    def perform(self, errands):
        return OwnHands(self.runner).perform(errands)

    def __init__(self, runner):
        self.runner, self.jobs, self.most = runner, [], 0

    def submit(self, job):
        self.jobs.append(job)
        self.most = max(self.most, len(self.jobs))

    def wait(self):
        job = self.jobs.pop()
        return job, run_job(self.runner, job)

    def close(self):
        assert not self.jobs


def test_several_trials_climb_at_once(tmp_path, monkeypatch):
    """Where jobs come back in any order: all climb in order, and no more are out than there is room for."""
    opened = []

    def start(request):
        opened.append(Several(request.runner))
        return opened[-1]

    monkeypatch.setitem(EXECUTORS._items, "local", ExecutorEntry(start, ""))
    study = climb(tmp_path)
    study.run()
    records = study.records()
    counted = [t for t in records.trials if t.state == "complete" or t.rungs]
    assert len(counted) == TRIALS
    names = ["100 samples", "all samples", LAST_RUNG]
    for t in counted[1:]:
        assert [r.name for r in t.rungs] == names[: len(t.rungs)]
        assert (len(t.rungs) == 3) == (t.state == "complete")
    assert any(t.state == "pruned" and t.rungs for t in records.trials)
    assert opened[0].most == 4


def test_a_trial_that_fails_on_a_rung_keeps_its_traceback(tmp_path):
    study = climb(tmp_path, trials=9)

    def behave(runs):
        if runs == 15:
            raise ValueError("boom")

    study.runner.behave = behave
    study.run()
    (failed,) = [t for t in study.records().trials if t.state == "failed"]
    assert "ValueError: boom" in failed.error


def test_a_task_without_samples_is_told():
    task = make_task()
    with pytest.raises(TaskError, match="asks for 100 validation samples, and the task has no evaluate_sample; give"):
        RungScorer(task, task.model, [RungSpec(), RungSpec(samples=100)])
    assert len(RungScorer(task, task.model, [RungSpec()])) == 1


def make_task():
    from small_task import task

    return task()


@pytest.mark.parametrize(
    ("rungs", "steps", "sentence"),
    [
        ([{}], 0, "'all samples' comes before 'all samples' \\(the last one"),
        ([{"samples": 100}, {"samples": 50}], 0, "'100 samples' comes before '50 samples';"),
        ([{"samples": 100, "finetune_steps": 9}, {}], 50, "'9 steps on 100 samples' comes before 'all samples'"),
        ([{"finetune_steps": 60}], 50, "'60 steps on all samples' comes before '50 steps on all samples'"),
    ],
)
def test_rungs_must_get_dearer(rungs, steps, sentence):
    with pytest.raises(ValueError, match=sentence):
        StudySpec(task="a:b", space="channels", search={"rungs": rungs}, recovery={"finetune_steps": steps})
