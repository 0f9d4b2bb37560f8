"""The committed reference reports are, byte for byte, what their records give: golden files of the whole report."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from autoprune import cli
from autoprune.results.check import check_report
from autoprune.spec.record import read_records

REPORTS = Path(__file__).parents[2] / "reports"
RUNS = sorted(path.parent.name for path in REPORTS.glob("*/records.jsonl"))


def test_there_are_reference_reports():
    assert {"resnet20-cifar10", "dscnn-kws"} <= set(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_a_reference_report_is_what_its_records_give(name):
    folder = REPORTS / name
    records = read_records(folder / "records.jsonl")
    found = {d.path: d.what for d in check_report(records, folder / "report")}
    assert not found, "run make reports"
    assert (folder / "records.jsonl").stat().st_size < 1.5e6
    assert all((folder / file).is_file() for file in ("study.yaml", "README.md"))
    assert len(records.trials) >= 30


def test_the_command_checks_and_tells(tmp_path):
    (tmp_path / "records.jsonl").write_bytes((REPORTS / RUNS[0] / "records.jsonl").read_bytes())

    def check():
        return CliRunner().invoke(cli.command, ["report", str(tmp_path), "--check"], catch_exceptions=False)

    assert check().exit_code == 1, "nothing is there"
    assert CliRunner().invoke(cli.command, ["report", str(tmp_path)], catch_exceptions=False).exit_code == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert check().exit_code == 0
    (tmp_path / "report" / "index.html").unlink()
    (tmp_path / "report" / "report.md").write_text("x")
    told = check()
    assert told.exit_code == 1
    assert "index.html is missing" in told.output
    assert "report.md differs" in told.output
    del before[tmp_path / "report" / "index.html"], before[tmp_path / "report" / "report.md"]
    assert all(path.read_bytes() == content for path, content in before.items()), "a check writes nothing"
