"""CSV, Parquet and the schema of front.json, read back by independent readers."""

import csv
import io
import json
import sys
from pathlib import Path

import jsonschema
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic_run import HOSTILE, run_records, with_findings

from autoprune.errors import UsageError
from autoprune.results import export
from autoprune.results.export import FrontDocument, front_json
from autoprune.results.schema import json_schema
from autoprune.results.tabular import (
    Field,
    front_csv,
    front_fields,
    to_csv,
    to_parquet,
    trial_fields,
    trials_csv,
)

SCHEMA = Path(export.__file__).with_name("front-1.schema.json")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "＝cmd", '=HYPERLINK("http://x")'])
def test_no_text_begins_as_a_formula(text):
    written = to_csv([Field(text, "text", (text, "fine"))])
    head, first, second = list(csv.reader(io.StringIO(written)))
    assert head == first == [f"'{text}"]
    assert second == ["fine"]


def test_numbers_are_kept_to_the_last_digit_and_negative_ones_stay_numbers():
    written = to_csv([Field("a", "number", (-0.1, 1 / 3, None)), Field("b", "truth", (True, None, False))])
    assert written == "a,b\n-0.1,True\n0.3333333333333333,\n,False\n"


def test_an_error_that_is_a_formula_is_defused_in_the_table():
    rows = list(csv.DictReader(io.StringIO(trials_csv(run_records(8, errors=("=cmd|' /C calc'!A0",))))))
    assert rows[6]["error"] == "'=cmd|' /C calc'!A0"


def test_findings_have_columns_and_other_runs_do_not():
    found = with_findings(run_records(20))
    table = pd.read_csv(io.StringIO(trials_csv(found)))
    trial = found.trials[9]
    row = table[table.number == 9].iloc[0]
    assert row["predicted_latency_ms"] == trial.prediction.ms
    assert row["latency_ms on raspberry-pi-5"] == trial.devices["raspberry-pi-5"].latency_ms
    assert row["drop on 256 samples"] == trial.rungs[0].drop
    assert not [name for name in pd.read_csv(io.StringIO(trials_csv(run_records(20)))) if " on " in name]


def test_parquet_is_the_csv_with_types():
    records = with_findings(run_records(30))
    table = pq.read_table(pa.BufferReader(to_parquet(trial_fields(records))))
    text = pd.read_csv(io.StringIO(trials_csv(records)))
    assert table.column_names == list(text.columns)
    assert table.schema.field("number").type == pa.int64()
    assert table.schema.field("latency_converged").type == pa.bool_()
    assert table.schema.field("latency_ms").type == pa.float64()
    for name in ("number", "accuracy_drop", "latency_ratio", "energy_mj on nvidia-h200"):
        assert table[name].to_pylist() == [None if value != value else value for value in text[name].tolist()]
    assert to_parquet(front_fields(records)) == to_parquet(front_fields(records))
    assert pq.read_table(pa.BufferReader(to_parquet(trial_fields(run_records(0))))).num_rows == 0


def test_parquet_without_pyarrow_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install 'autoprune\[parquet\]'"):
        to_parquet(front_fields(run_records(3)))


def undescribed(schema):
    """A schema without its texts, which follow the docstrings at the next ``make reports``."""
    if isinstance(schema, dict):
        return {
            key: undescribed(value)
            for key, value in schema.items()
            if not isinstance(value, str) or key != "description"
        }
    return [undescribed(value) for value in schema] if isinstance(schema, list) else schema


def test_the_shipped_schema_is_that_of_the_model():
    described = json.loads(json_schema(FrontDocument))
    shipped = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert undescribed(shipped) == undescribed(described), "run make reports"
    jsonschema.Draft202012Validator.check_schema(described)
    for kind in (described, *described["$defs"].values()):
        for name, prop in kind["properties"].items():
            assert prop.get("description") or name in ("schema", "no_loss", "knee", "fastest"), name


@pytest.mark.parametrize("trials", [0, 1, 2, 40])
def test_front_json_meets_its_schema(trials):
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    document = json.loads(front_json(run_records(trials, names=list(HOSTILE))))
    validator.validate(document)
    golden = Path(__file__).parent / "golden" / "front-1.json"
    validator.validate(json.loads(golden.read_text(encoding="utf-8")))
    for broken in (
        {**document, "more": 1},
        {k: v for k, v in document.items() if k != "device"},
        {**document, "schema": "x"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(broken)


def test_an_empty_run_has_its_heading():
    assert front_csv(run_records(0)).startswith("number,state,origin,feasible,on_front,picks,score,test_score,")
