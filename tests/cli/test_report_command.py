"""``autoprune report``: one run, several runs, tables with types, and the check of bytes."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from autoprune import cli
from autoprune.spec.record import read_records

REFERENCE = Path(__file__).parents[2] / "reports" / "dscnn-kws" / "records.jsonl"


@pytest.fixture
def runs(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shutil.copy(REFERENCE, tmp_path / name / "records.jsonl")
    return tmp_path


def report(*arguments):
    return CliRunner().invoke(cli.command, ["report", *map(str, arguments)], catch_exceptions=False)


def test_runs_are_compared_and_the_comparison_is_checked(runs):
    both = (runs / "one", runs / "two", "-o", runs / "out")
    done = report(*both)
    assert done.exit_code == 0
    assert "Hypervolume with a common reference point, largest first: one 0." in done.output
    names = {path.name for path in (runs / "out").iterdir()}
    assert names == {
        "comparison.html",
        "comparison.md",
        *(f"comparison-{name}.svg" for name in ("macs", "latency_ms", "energy_mj", "hypervolume")),
    }
    assert report(*both, "--check").exit_code == 0
    (runs / "out" / "comparison.md").write_text("x")
    told = report(*both, "--check")
    assert told.exit_code == 1
    assert "comparison.md differs" in told.output
    assert not (runs / "one" / "report").exists(), "a comparison leaves the runs alone"


def test_tables_with_types_are_written_where_asked(runs):
    assert report(runs / "one", "--parquet").exit_code == 0
    records = read_records(REFERENCE)
    table = pq.read_table(runs / "one" / "report" / "trials.parquet")
    assert table["number"].to_pylist() == [t.number for t in records.trials]
    assert table["macs"].to_pylist() == [t.values.get("macs") for t in records.trials]
    (runs / "one" / "report" / "trials.parquet").write_text("of an earlier render")
    assert report(runs / "one").exit_code == 0
    assert pq.read_table(runs / "one" / "report" / "trials.parquet").num_rows == len(records.trials)
    assert report(runs / "one", "--check").exit_code == 0, "more files in the folder are no difference"
