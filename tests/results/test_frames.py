"""Trials as a pandas table."""

import pandas as pd
import pytest
from synthetic_run import run_records, with_findings

import autoprune as ap
from autoprune.errors import RunDirectoryError
from autoprune.spec.front import front
from autoprune.spec.record import write_records


def test_a_run_becomes_a_table_with_one_row_a_trial(tmp_path):
    records = with_findings(run_records(20))
    write_records(records, tmp_path / "records.jsonl")
    table = ap.trials_frame(tmp_path)
    assert list(table.index) == sorted(trial.number for trial in records.trials)
    for trial in records.trials:
        row = table.loc[trial.number]
        assert row["state"] == trial.state
        assert [row[name] for name in trial.values] == list(trial.values.values())
        assert (row["feasible"], pd.isna(row["score"])) == (trial.feasible, trial.score is None)
    on_front = {trial.number for trial in front(records)}
    assert set(table.index[table["on_front"]]) == on_front


def test_what_is_missing_keeps_the_type_of_its_column():
    table = ap.trials_frame(with_findings(run_records(20)))
    assert table["latency_converged"].dtype == "boolean"
    assert table["error"].dtype == "string"
    assert table["macs"].dtype == "Float64"


def test_a_directory_without_records_is_refused(tmp_path):
    with pytest.raises(RunDirectoryError, match=r"records\.jsonl"):
        ap.trials_frame(tmp_path)
