"""Whether a report on disk is what its records give, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autoprune.results.report import report_files, stale
from autoprune.spec.record import RunRecords


@dataclass(frozen=True)
class Difference:
    """A file of a report that is not what a fresh render gives.

    Attributes:
        path: In the report's folder.
        what: "differs", "is missing" or "is no part of the report".
    """

    path: str
    what: str


def check_report(records: RunRecords, directory: Path) -> tuple[Difference, ...]:
    """Compare a report with a fresh render of ``records``; nothing is written.

    Returns:
        The files that differ, in the order of the report; empty where every byte is the same.
    """
    texts = report_files(records)
    left = (Difference(name, "is no part of the report") for name in stale(directory, texts))
    return (*differences(texts, directory), *left)


def differences(texts: Mapping[str, str], directory: Path) -> tuple[Difference, ...]:
    """Compare files by path in ``directory`` with what they should hold."""
    found = []
    for name, text in texts.items():
        path = directory / name
        if not path.is_file():
            found.append(Difference(name, "is missing"))
        elif path.read_bytes() != text.encode("utf-8"):
            found.append(Difference(name, "differs"))
    return tuple(found)
