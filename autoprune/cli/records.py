"""The records of a run directory."""

from __future__ import annotations

from pathlib import Path

from autoprune.errors import RunDirectoryError
from autoprune.spec.record import RunRecords, read_records, write_records


def run_records(directory: Path, *, write: bool = True) -> RunRecords:
    """Read the records of a run: from its storage where that is at hand, else from ``records.jsonl``.

    Args:
        directory: Of the run.
        write: Bring ``records.jsonl`` up to what the storage holds.
    """
    if not directory.is_dir():
        raise RunDirectoryError(f"{directory} is no directory; give the directory of a run of 'autoprune search'")
    try:
        from autoprune.search.storage import load_existing, shown_url, storage_errors
        from autoprune.search.stored import read_study
    except ImportError:  # a bare machine re-renders from the records alone
        return read_records(directory / "records.jsonl")
    from autoprune.spec.document import load_document
    from autoprune.spec.study import StudySpec

    resolved = directory / "study.yaml"
    url = load_document(StudySpec, resolved).storage if resolved.is_file() else None
    with storage_errors(shown_url(url, directory)):
        study = load_existing(url, directory)
        records = read_study(study) if study is not None else None
    if study is not None and records is None:
        raise RunDirectoryError(f"{directory} holds no finished trial yet; run 'autoprune search' again to go on")
    if records is None:
        return read_records(directory / "records.jsonl")
    if write:
        write_records(records, directory / "records.jsonl")
    return records
