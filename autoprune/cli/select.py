"""``autoprune select``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.text import Text

from autoprune.cli.records import run_records
from autoprune.cli.streams import err
from autoprune.errors import UsageError
from autoprune.spec.record import write_whole


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--max", "maxima", multiple=True, metavar="METRIC=VALUE", help="Upper bound on a metric; may be repeated."
)
@click.option("--minimize", required=True, metavar="METRIC", help="Metric to minimise within the bounds.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Where the config goes  [default: standard output]"
)
def select(directory: Path, maxima: tuple[str, ...], minimize: str, output: Path | None) -> None:
    """Choose a config from the run DIRECTORY by bounds and one metric to minimise."""
    from autoprune.results.picks import select as choose
    from autoprune.results.table import to_rich, trial_table

    records = run_records(directory)
    bounds = [_bound(text) for text in maxima]
    if len(dict(bounds)) < len(bounds):
        raise UsageError("--max bounds a metric twice; bound each once")
    trial = choose(records, dict(bounds), minimize)
    assert trial.config is not None
    err.print(to_rich(trial_table(records, [trial], f"Trial {trial.number}"), err.width))
    if output is None:
        click.echo(trial.config.to_yaml(), nl=False)
    else:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_whole(output, trial.config.to_yaml())
        err.print(Text(f"Config: {output}"), soft_wrap=True)


def _bound(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError:
        raise UsageError(f"--max is {text!r}; give METRIC=NUMBER, as in --max accuracy_drop=0.01") from None
