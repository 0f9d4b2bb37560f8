"""The recorded race of samplers, replayed: the committed table says what the recorded trials say."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from autoprune.pareto import hypervolume
from tests.benchmarks.sampling import outside, recovered
from tests.benchmarks.sampling.table import read_probes, read_runs, volumes, write_table

REPORT = Path(__file__).parents[2] / "reports" / "samplers"
RUNS = read_runs(REPORT / "recorded")


@pytest.mark.parametrize("run", RUNS[:: max(1, len(RUNS) // 6)], ids=lambda run: f"{run.problem} {run.row} {run.seed}")
def test_a_replay_reaches_what_its_trials_dominate(run):
    curve = volumes(run)
    values, many = np.maximum(np.array(run.values), 0), run.objectives
    scaled = values[:, :many] / [1.0 if "gpt" in run.problem else 0.5, *values[0, 1:many]]
    for count in (20, len(curve)):
        assert curve[count - 1] == pytest.approx(hypervolume(scaled[:count], np.ones(many)), abs=1e-12)
    assert (np.diff(curve) >= 0).all()
    assert "plain" in run.row or len(set(run.codes)) == len(run.codes), "a config was tried twice"


def test_all_rows_start_with_the_same_trials():
    for problem in {run.problem for run in RUNS}:
        ours = [run for run in RUNS if run.problem == problem]
        starts = {run.codes[:9] for run in ours if run.row in {"random", "tpe", "nsga2", "greybox, no table"}}
        assert len(starts) == 1
        (start,) = starts
        assert all(run.codes[0] == start[0] for run in ours)
        for run in ours:
            if run.row == "greybox":  # it leaves out what is hopeless by its table
                common = [code for code in run.codes[: run.first] if code in start]
                assert common == [code for code in start if code in common]


def test_the_committed_table_is_that_of_the_recorded_runs(tmp_path):
    write_table(RUNS, read_probes(REPORT), tmp_path)
    for folder in ("recovered", "outside"):
        shutil.copytree(REPORT / folder, tmp_path / folder)
    recovered.write_page(tmp_path)
    outside.write_page(tmp_path, RUNS)
    for path in (each for each in tmp_path.iterdir() if each.is_file()):
        assert path.read_text() == (REPORT / path.name).read_text()


def test_a_pick_is_the_least_drop_within_its_share_of_the_macs():
    run = next(run for run in RUNS if run.problem == "digits-channels" and run.objectives == 2)
    code = recovered.best_within(run, 0.3, 80)
    drop, macs = next(values[:2] for values, known in zip(run.values, run.codes, strict=True) if known == code)
    assert macs <= 0.3 * run.values[0][1]
    assert all(values[0] >= drop for values in run.values[:80] if values[1] <= 0.3 * run.values[0][1])


def test_greybox_is_ahead_of_every_optuna_sampler_after_80_trials_and_level_with_their_320():
    for problem, objectives in {(run.problem, run.objectives) for run in RUNS}:
        here = [run for run in RUNS if (run.problem, run.objectives) == (problem, objectives)]
        ours = np.median([volumes(run)[79] for run in here if run.row == "greybox"])
        for row in {run.row for run in here} & {"random", "tpe", "nsga2"}:
            theirs = [volumes(run) for run in here if run.row == row]
            assert ours > np.median([curve[79] for curve in theirs])
            assert ours > 0.98 * np.median([curve[-1] for curve in theirs])
