"""A meter's recording: every sample of every measurement, so that a study replays without its device.

One JSON document a line: a header, then one line for each measurement, added as it ends.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from autoprune.errors import RunDirectoryError, SpecError
from autoprune.spec.document import Document, parse_document
from autoprune.spec.latency import LatencySpec
from autoprune.spec.record import LatencyConditions, MeasuredEnergy

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class RecordingHeader(Document):
    """What holds for a whole recording.

    Attributes:
        latency: As the study asked; the file's own name is left out.
        machine: Processor and system that the meter ran on.
        versions: Package to version.
    """

    schema_: Literal["autoprune/recording/1"] = Field("autoprune/recording/1", alias="schema")
    latency: LatencySpec
    machine: str
    versions: dict[str, str] = Field(default_factory=dict)


class RecordedLatency(Document):
    """One measurement.

    Attributes:
        networks: Key of what was measured: architectures, zeros and input shapes of both sides.
        dense_s: Samples of the reference, seconds for one run; absent where one network was measured alone.
        candidate_s: Samples of what was measured; the n-th belongs to the n-th of the reference.
        meter: What measured it, and how.
        converged: Whether the interval became as narrow as asked.
        reason: Why not.
        conditions: What was set.
        warmup_rounds: Rounds before the first sample.
        steady: Whether the warm-up saw a steady state.
        prepare_s: Seconds of compiling or exporting.
        slowed: Pairs beside these that were taken while the machine was slow.
        speed: The machine's speed over its best, where it was slow throughout.
        energy: What an energy meter counted.
    """

    networks: str
    dense_s: tuple[Seconds, ...] | None = None
    candidate_s: Annotated[tuple[Seconds, ...], Field(min_length=1)]
    meter: str
    converged: bool
    reason: str | None = None
    conditions: LatencyConditions | None = None
    warmup_rounds: int | None = None
    steady: bool | None = None
    prepare_s: float | None = None
    slowed: int | None = None
    speed: float | None = None
    energy: MeasuredEnergy | None = None

    @model_validator(mode="after")
    def _pairs(self) -> RecordedLatency:
        if self.dense_s is not None and len(self.dense_s) != len(self.candidate_s):
            raise ValueError(
                f"{len(self.dense_s)} samples of the reference stand beside {len(self.candidate_s)} of the candidate; "
                "a pair has one of each"
            )
        return self


class Recording(Document):
    """A recording, whole."""

    header: RecordingHeader
    measurements: tuple[RecordedLatency, ...]


def read_recording(path: Path) -> Recording:
    """Read a recording; a last line that a killed process left half written is no part of it.

    Raises:
        SpecError: The file is missing, damaged, or something else.
    """
    lines = _whole_lines(path)
    if not lines:
        raise SpecError(f"{path}: holds nothing where a recording is needed; record one with latency.record")
    try:
        header, *rest = [json.loads(line) for line in lines]
    except ValueError as error:
        raise SpecError(f"{path}: a line is no JSON ({error}); record it anew with latency.record") from error
    return Recording(
        header=parse_document(RecordingHeader, header, f"{path}, line 1"),
        measurements=tuple(
            parse_document(RecordedLatency, entry, f"{path}, line {n}") for n, entry in enumerate(rest, start=2)
        ),
    )


def append_recording(path: Path, header: RecordingHeader, measurement: RecordedLatency) -> None:
    """Add a measurement to a recording, which is begun where there is none.

    Raises:
        RunDirectoryError: The file holds measurements under other conditions.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [measurement.to_json()]
    if path.is_file() and _whole_lines(path):
        check_appendable(path, header)
        _drop_half_line(path)
    else:
        path.write_bytes(b"")
        lines.insert(0, header.to_json())
    data = "".join(f"{line}\n" for line in lines).encode()
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, data)  # one write: workers that record into one file do not mix their lines
    finally:
        os.close(handle)


def check_appendable(path: Path, header: RecordingHeader) -> None:
    """Check that a file, if there is one, is a recording of the same runtime under the same conditions.

    Raises:
        SpecError: It is no recording.
        RunDirectoryError: Its measurements were made otherwise.
    """
    lines = _whole_lines(path) if path.is_file() else []
    if not lines:
        return
    try:
        first = json.loads(lines[0])
    except ValueError as error:
        raise SpecError(f"{path}: is no recording ({error}); give latency.record another path") from error
    there = parse_document(RecordingHeader, first, f"{path}, line 1").latency
    if differing := differing_keys(there, header.latency, ("runtime", *CONDITIONS)):
        key = differing[0]
        raise RunDirectoryError(
            f"{path} holds measurements with {key} {getattr(there, key)!r} and the study asks for "
            f"{getattr(header.latency, key)!r}; give latency.record another path"
        )


CONDITIONS = ("batch", "threads", "dtype", "affinity")


def differing_keys(first: LatencySpec, second: LatencySpec, keys: Sequence[str]) -> list[str]:
    """Return those of ``keys`` in which two ``latency`` sections differ."""
    return [key for key in keys if getattr(first, key) != getattr(second, key)]


def _whole_lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(f"{path}: no such recording; record one with latency.record") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read as a recording ({error}); record one with latency.record") from error
    return [line for line in text[: text.rfind("\n") + 1].splitlines() if line]


def _drop_half_line(path: Path) -> None:
    data = path.read_bytes()
    if not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)
