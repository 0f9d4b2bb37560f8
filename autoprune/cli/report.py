"""``autoprune report``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.text import Text

from autoprune.cli.records import run_records
from autoprune.cli.streams import out


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Folder of the report  [default: DIRECTORY/report]"
)
def report(directory: Path, output: Path | None) -> None:
    """Render the report of a run DIRECTORY anew from its records."""
    from autoprune.results.report import write_report
    from autoprune.results.summary import headline

    records = run_records(directory)
    paths = write_report(records, output or directory / "report")
    out.print(Text(headline(records).main), soft_wrap=True)
    out.print(Text(f"Report: {paths.html}"), soft_wrap=True)
