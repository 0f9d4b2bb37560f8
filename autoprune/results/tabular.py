"""Trials as a flat table: CSV for every tool, Parquet for those who want types.

A spreadsheet that opens a CSV file runs what begins as a formula does (``=``, ``+``, ``-``, ``@``, tab, return); a text
that does gets an apostrophe in front. Parquet keeps texts as they are.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from autoprune.errors import UsageError
from autoprune.results.export import config_path
from autoprune.results.picks import picks
from autoprune.results.table import in_several_precisions
from autoprune.spec.front import front
from autoprune.spec.record import RunRecords, TrialRecord

Value = bool | int | float | str | None
Kind = Literal["text", "integer", "number", "truth"]
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")


@dataclass(frozen=True)
class Field:
    """One column: its name, the kind of its values, and one value for each trial; None where there is none."""

    name: str
    kind: Kind
    values: tuple[Value, ...]


def front_fields(records: RunRecords) -> tuple[Field, ...]:
    """Return the front by number, one value a trial in every column."""
    return _fields(records, front(records))


def trial_fields(records: RunRecords) -> tuple[Field, ...]:
    """Return every trial by number, whatever its state."""
    return _fields(records, sorted(records.trials, key=lambda trial: trial.number))


def front_csv(records: RunRecords) -> str:
    """Return the front as CSV: one line for each front trial, by number."""
    return to_csv(front_fields(records))


def trials_csv(records: RunRecords) -> str:
    """Return every trial as CSV, by number, whatever its state."""
    return to_csv(trial_fields(records))


def to_csv(fields: Sequence[Field]) -> str:
    """Return columns as CSV (RFC 4180 with line feeds): numbers at full precision, no value an empty cell."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([_defused(field.name) for field in fields])
    for row in zip(*(field.values for field in fields), strict=True):
        writer.writerow([_written(value) for value in row])
    return stream.getvalue()


def to_parquet(fields: Sequence[Field]) -> bytes:
    """Return columns as a Parquet file with a type for each; the same pyarrow gives the same bytes.

    Raises:
        UsageError: pyarrow is not installed.
    """
    try:
        pa, pq = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise UsageError("Parquet needs pyarrow, which is not installed; pip install 'autoprune[parquet]'") from None
    types = {"text": pa.string(), "integer": pa.int64(), "number": pa.float64(), "truth": pa.bool_()}
    schema = pa.schema([(field.name, types[field.kind]) for field in fields])
    table = pa.Table.from_arrays([pa.array(field.values, type=types[field.kind]) for field in fields], schema=schema)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def _fields(records: RunRecords, trials: Sequence[TrialRecord]) -> tuple[Field, ...]:
    chosen, on_front = picks(records), {trial.number for trial in front(records)}

    def column(name: str, kind: Kind, value: Any) -> Field:
        return Field(name, kind, tuple(value(trial) for trial in trials))

    def of(part: str, name: str) -> Any:
        return lambda t: getattr(getattr(t, part), name) if getattr(t, part) is not None else None

    metrics = sorted({name for trial in records.trials for name in trial.values})
    bounds = sorted({name for trial in records.trials for name in trial.violations})
    listed = [
        column("number", "integer", lambda t: t.number),
        column("state", "text", lambda t: t.state),
        column("origin", "text", lambda t: t.origin),
        column("feasible", "truth", lambda t: t.feasible),
        column("on_front", "truth", lambda t: t.number in on_front),
        column("picks", "text", lambda t: "; ".join(chosen.titles(t))),
        column("score", "number", lambda t: t.score),
        column("test_score", "number", lambda t: t.test_score),
        *(column(name, "number", lambda t, name=name: t.values.get(name)) for name in metrics),
        *(column(f"above_{name}", "number", lambda t, name=name: t.violations.get(name)) for name in bounds),
        column("latency_ratio", "number", of("latency", "ratio")),
        column("latency_ratio_low", "number", of("latency", "ratio_low")),
        column("latency_ratio_high", "number", of("latency", "ratio_high")),
        column("latency_converged", "truth", of("latency", "converged")),
        column("energy_low_mj", "number", of("energy", "low_mj")),
        column("energy_high_mj", "number", of("energy", "high_mj")),
    ]
    if in_several_precisions(records):
        listed.append(column("precision", "text", lambda t: t.config.precision if t.config is not None else None))
    if any(trial.prediction is not None for trial in records.trials):
        listed += [
            column("predicted_latency_ms", "number", of("prediction", "ms")),
            column("predicted_latency_low_ms", "number", of("prediction", "low_ms")),
            column("predicted_latency_high_ms", "number", of("prediction", "high_ms")),
        ]
    for rung in dict.fromkeys(r.name for trial in records.trials for r in trial.rungs or ()):
        listed.append(column(f"drop on {rung}", "number", lambda t, rung=rung: _drop_on(t, rung)))
    for device in dict.fromkeys(key for trial in records.trials for key in trial.devices or {}):
        for name in ("latency_ms", "ratio", "energy_mj"):
            listed.append(column(f"{name} on {device}", "number", lambda t, d=device, n=name: _value_on(t, d, n)))
    listed += [
        column("trial_s", "number", lambda t: t.timings.total_s),
        column("config", "text", lambda t: config_path(t) if t.number in on_front else ""),
        column("finished_at", "text", lambda t: t.finished_at),
        column("error", "text", _last_line),
    ]
    return tuple(listed)


def _drop_on(trial: TrialRecord, rung: str) -> float | None:
    return next((r.drop for r in trial.rungs or () if r.name == rung), None)


def _value_on(trial: TrialRecord, device: str, name: str) -> float | None:
    values = (trial.devices or {}).get(device)
    return None if values is None else float(getattr(values, name))


def _last_line(trial: TrialRecord) -> str:
    lines = (trial.error or "").strip().splitlines()
    return lines[-1] if lines else ""


def _written(value: Value) -> str:
    if value is None or value != value:  # NaN is no value
        return ""
    return _defused(value) if isinstance(value, str) else str(value) if isinstance(value, bool) else repr(value)


def _defused(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
