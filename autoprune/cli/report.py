"""``autoprune report``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

from autoprune.cli.records import run_records
from autoprune.cli.streams import err, out
from autoprune.errors import UsageError

if TYPE_CHECKING:
    from autoprune.results.check import Difference
    from autoprune.spec.record import RunRecords


@click.command()
@click.argument("directories", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Folder of the report  [default: DIRECTORIES/report]"
)
@click.option(
    "--check",
    is_flag=True,
    help="Write nothing: compare the files there with a fresh render, byte by byte; exit 1 if one differs.",
)
@click.option("--parquet", is_flag=True, help="Write front.parquet and trials.parquet too (needs pyarrow).")
@click.pass_context
def report(
    context: click.Context, directories: tuple[Path, ...], output: Path | None, check: bool, parquet: bool
) -> None:
    """Render the report of a run anew from its records, or compare several runs.

    With one run directory: its report. With several: one page that compares them, in the folder of -o.
    """
    if len(directories) > 1:
        if output is None:
            raise UsageError("a comparison of runs belongs to none of them; give the folder for it with -o DIR")
        if parquet:
            raise UsageError("--parquet writes the tables of one run; give one run directory")
        _compare(context, directories, output, check)
        return
    from autoprune.results.report import write_report
    from autoprune.results.summary import headline

    folder = output or directories[0] / "report"
    records = run_records(directories[0], write=not check)
    if check:
        from autoprune.results.check import check_report

        _tell(context, folder, check_report(records, folder), str(directories[0]))
        return
    known = (folder / "trials.parquet").is_file()  # a table of an earlier render would no longer be true
    tables = _parquet(records) if parquet or known else {}
    paths = write_report(records, folder)
    for name, content in tables.items():
        (folder / name).write_bytes(content)
    out.print(Text(headline(records).main), soft_wrap=True)
    out.print(Text(f"Report: {paths.html}"), soft_wrap=True)


def _parquet(records: RunRecords) -> dict[str, bytes]:
    from autoprune.results.tabular import front_fields, to_parquet, trial_fields

    return {
        "front.parquet": to_parquet(front_fields(records)),
        "trials.parquet": to_parquet(trial_fields(records)),
    }


def _tell(context: click.Context, folder: Path, found: Sequence[Difference], again: str) -> None:
    """Say what differs, and exit with 1 if anything does."""
    for difference in found:
        out.print(Text(f"{folder / difference.path} {difference.what}"), soft_wrap=True)
    if found:
        told = f"{len(found)} files of {folder} are not what the records give; run 'autoprune report {again}'"
        err.print(Text(told), soft_wrap=True)
        context.exit(1)
    out.print(Text(f"{folder} is what the records give, byte for byte."), soft_wrap=True)


def _compare(context: click.Context, directories: Sequence[Path], output: Path, check: bool) -> None:
    from autoprune.results.check import differences
    from autoprune.results.comparison import compare
    from autoprune.results.comparison_report import comparison_files, write_comparison

    found = compare([(str(directory), run_records(directory, write=not check)) for directory in directories])
    if check:
        names = " ".join(str(directory) for directory in directories)
        _tell(context, output, differences(comparison_files(found), output), f"{names} -o {output}")
        return
    page = write_comparison(found, output)
    for warning in found.warnings:
        err.print(Text(f"Note: {warning}"), soft_wrap=True)
    out.print(Text(found.headline), soft_wrap=True)
    out.print(Text(f"Comparison: {page}"), soft_wrap=True)
