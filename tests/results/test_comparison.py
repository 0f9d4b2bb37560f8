"""Runs beside one another, and reports against their records."""

import re

import pytest
from synthetic_run import HOSTILE, run_records

from autoprune.errors import UsageError
from autoprune.pareto import hypervolume
from autoprune.results.check import check_report
from autoprune.results.comparison import compare, coverage_table, picks_table, run_table
from autoprune.results.comparison_report import comparison_files, write_comparison
from autoprune.results.report import write_report
from autoprune.spec.front import dense_trial, front, hypervolume_of


def slower(records, factor):
    """The same run on a machine on which everything takes ``factor`` times as long."""

    def stretched(trial):
        if "latency_ms" not in trial.values:
            return trial
        latency = trial.latency.model_copy(update={"ms": trial.latency.ms * factor})
        values = trial.values | {"latency_ms": trial.values["latency_ms"] * factor}
        return trial.model_copy(update={"values": values, "latency": latency})

    reference = records.study.reference | {"latency_ms": records.study.reference["latency_ms"] * factor}
    study = records.study.model_copy(update={"reference": reference, "device_title": "slow"})
    return records.model_copy(update={"study": study, "trials": tuple(stretched(t) for t in records.trials)})


def test_the_volume_is_that_of_shares_of_dense_below_the_common_bound():
    one, two = run_records(40, seed=0), run_records(25, seed=1, constraints={"accuracy_drop": 0.02})
    two = two.model_copy(
        update={"study": two.study.model_copy(update={"reference": two.study.reference | {"accuracy_drop": 0.02}})}
    )
    found = compare([("runs/a", one), ("runs/b", two)])
    for run, records in zip(found.runs, (one, two), strict=True):
        dense = dense_trial(records).values
        points = [
            [
                max(t.values["accuracy_drop"], 0) / 0.02,
                *(t.values[n] / dense[n] for n in ("macs", "latency_ms", "energy_mj")),
            ]
            for t in front(run.common)
        ]
        assert hypervolume_of(run.common) == pytest.approx(hypervolume(points, [1, 1, 1, 1]))
    assert any("The constraints differ" in warning for warning in found.warnings)
    best = max(found.runs, key=lambda run: hypervolume_of(run.common)).label
    assert found.headline.startswith(f"Hypervolume with a common reference point, largest first: {best} ")


def test_a_slower_device_covers_the_same_volume_and_is_warned_about():
    one = run_records(30)
    found = compare([("a", one), ("b", slower(one, 2.0))])
    assert hypervolume_of(found.runs[0].common) == pytest.approx(hypervolume_of(found.runs[1].common))
    assert [cell.text for cell in coverage_table(found).rows[0].cells[1:]] == ["–", "100 %"]
    first, second = picks_table(found).rows[0], picks_table(found).rows[len(picks_table(found).rows) // 2]
    assert first.cells[-2].text == second.cells[-2].text, "the ratio is the same, whatever the milliseconds"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"fingerprint": "sha256:other"}, "The architectures differ, so neither fronts nor hypervolumes"),
        ({"dense_score": 0.9}, "The dense scores differ"),
        ({"task": "other:task"}, "The tasks differ"),
        ({"machine": "Other"}, "The machines that searched differ"),
    ],
)
def test_what_differs_is_warned_about(changes, sentence):
    found = compare([("a", run_records(12)), ("b", run_records(12, **changes))])
    assert [w for w in found.warnings if w.startswith(sentence)]
    comparable = "fingerprint" not in changes
    assert bool(found.objectives) == comparable
    assert (coverage_table(found) is None) == (not comparable)
    assert not compare([("a", run_records(12)), ("b", run_records(12))]).warnings


def test_common_objectives_are_compared():
    found = compare([("a", run_records(12)), ("b", run_records(12, objectives=("accuracy_drop", "macs")))])
    assert found.objectives == ("accuracy_drop", "macs")
    assert any("compared are accuracy_drop, macs" in warning for warning in found.warnings)
    assert set(comparison_files(found)) == {
        "comparison.html",
        "comparison.md",
        "comparison-macs.svg",
        "comparison-hypervolume.svg",
    }


@pytest.mark.parametrize("other", [run_records(0), run_records(1), run_records(12, objectives=("macs",))])
def test_empty_runs_and_runs_without_a_drop_are_compared(other, tmp_path):
    found = compare([("a", run_records(12)), ("b", other)])
    page = write_comparison(found, tmp_path / "out")
    assert len(run_table(found).rows) == 2
    assert "nan" not in re.findall(r"\w+", page.read_text(encoding="utf-8").lower())


def test_names_are_short_and_unique():
    one = run_records(3)
    assert [r.label for r in compare([("runs/a", one), ("runs/b", one)]).runs] == ["a", "b"]
    assert [r.label for r in compare([("x/digits", one), ("y/digits", one)]).runs] == ["x/digits", "y/digits"]
    assert [r.label for r in compare([("a", one), ("a", one)]).runs] == ["a (1)", "a (2)"]
    with pytest.raises(UsageError, match="at least two runs"):
        compare([("a", one)])


def test_hostile_names_stay_text_and_nothing_is_loaded(tmp_path):
    hostile = run_records(12, device_title=HOSTILE[1], machine=HOSTILE[0], task="<script>/x.py:f")
    files = comparison_files(compare([(name, hostile) for name in HOSTILE[:4]]))
    page = files["comparison.html"]
    assert not re.search(r"<(script|svg|iframe)\b", page)
    assert page.count("<img") == page.count('<img src="data:image/svg+xml;base64,')
    assert "default-src 'none'" in page
    assert not re.search(r"<\w", files["comparison.md"])


def test_a_comparison_is_the_same_bytes_twice():
    runs = [("a", run_records(20)), ("b", run_records(20, seed=3)), ("c", run_records(20, seed=4))]
    assert comparison_files(compare(runs)) == comparison_files(compare(runs))


def test_a_report_is_checked_byte_by_byte(records, tmp_path):
    write_report(records, tmp_path)
    assert check_report(records, tmp_path) == ()
    (tmp_path / "report.md").write_text("other")
    (tmp_path / "front.csv").unlink()
    (tmp_path / "configs" / "777.yaml").write_text("old")
    (tmp_path / "mine.txt").write_text("stays")
    found = {d.path: d.what for d in check_report(records, tmp_path)}
    assert found == {"report.md": "differs", "front.csv": "is missing", "configs/777.yaml": "is no part of the report"}
    assert (tmp_path / "report.md").read_text() == "other", "nothing is written"
