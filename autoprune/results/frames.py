"""Trials as a pandas table, for notebooks and scripts."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from autoprune.results.tabular import trial_fields
from autoprune.spec.record import RunRecords, read_records

_DTYPES = {"text": "string", "integer": "Int64", "number": "Float64", "truth": "boolean"}
"""Types that know a missing value: a count stays a whole number where a trial has none."""


def trials_frame(run: RunRecords | Path | str) -> pd.DataFrame:
    """Return the trials of a run, one row each, whatever their state.

    The columns are those of ``trials.csv``: units stand in their names, what is missing is ``pandas.NA``, and texts are
    as they were recorded.

    Args:
        run: Records, or the directory of a search; one that goes on gives what is finished.

    Returns:
        The table, indexed by trial number.

    Raises:
        RunDirectoryError: The directory holds no records.
    """
    records = run if isinstance(run, RunRecords) else read_records(Path(run) / "records.jsonl")
    fields = trial_fields(records)
    table = pd.DataFrame({field.name: list(field.values) for field in fields}, dtype=object)
    return table.astype({field.name: _DTYPES[field.kind] for field in fields}).set_index("number")
