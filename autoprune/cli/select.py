"""``autoprune select``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click
from rich.text import Text

from autoprune.cli.records import run_records
from autoprune.cli.streams import err
from autoprune.errors import UsageError, unknown_name
from autoprune.spec.objectives import BOUNDABLE, Bound, parse_bound
from autoprune.spec.record import write_whole

T = TypeVar("T")


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--max",
    "maxima",
    multiple=True,
    metavar="METRIC=VALUE",
    help="Upper bound on a metric, a number or a percentage of dense (latency_ms=60%); may be repeated.",
)
@click.option(
    "--min",
    "minima",
    multiple=True,
    metavar="accuracy=VALUE",
    help="Lower bound on the accuracy (or score), a number or a percentage of dense.",
)
@click.option("--minimize", metavar="METRIC", help="Take the trial within the bounds with the smallest METRIC.")
@click.option(
    "--weights",
    metavar="METRIC=W,...",
    help="Take the one with the smallest weighted sum, each metric scaled to [0, 1] over what fits: "
    "accuracy_drop=2,latency_ms=1.",
)
@click.option("--knee", is_flag=True, help="Take the best compromise between accuracy and cost  [default]")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Where the config goes  [default: standard output]"
)
def select(
    directory: Path,
    maxima: tuple[str, ...],
    minima: tuple[str, ...],
    minimize: str | None,
    weights: str | None,
    knee: bool,
    output: Path | None,
) -> None:
    """Choose a config from the run DIRECTORY: within bounds, by one metric, by weights, or the knee."""
    from autoprune.results.selection import select as choose
    from autoprune.results.table import to_rich, trial_table
    from autoprune.results.text_plot import front_in_text

    if (minimize is not None) + (weights is not None) + knee > 1:
        raise UsageError("--minimize, --weights and --knee exclude one another; give one of them")
    bounds = [_bound("--max", "at most", text) for text in maxima] + [_bound("--min", "at least", t) for t in minima]
    twice = next((b.metric for i, b in enumerate(bounds) if b.metric in {c.metric for c in bounds[:i]}), None)
    if twice is not None:
        raise UsageError(f"{twice} is bounded twice; bound each metric once")
    weighed = None if weights is None else _weights(weights)
    records = run_records(directory)
    trial = choose(records, bounds, minimize=minimize, weights=weighed)
    assert trial.config is not None
    err.print(to_rich(trial_table(records, [trial], f"Trial {trial.number}"), err.width))
    drawn = front_in_text(records, trial, minimize, err.width, unicode=err.encoding.startswith("utf"))
    if drawn is not None:
        err.print(drawn, soft_wrap=True)
    if output is None:
        click.echo(trial.config.to_yaml(), nl=False)
    else:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_whole(output, trial.config.to_yaml())
        err.print(Text(f"Config: {output}"), soft_wrap=True)


def _bound(option: str, direction: str, text: str) -> Bound:
    name, value = _pair(option, text, lambda value: value if value.strip().endswith("%") else f"{float(value)!r}")
    if name not in BOUNDABLE:
        raise unknown_name("metric", name, BOUNDABLE)
    try:
        return parse_bound(name, f"{direction} {value}")
    except ValueError as error:
        raise UsageError(f"{option} is {text!r}: {error}") from error


def _weights(text: str) -> dict[str, float]:
    pairs = [_pair("--weights", part, float) for part in text.split(",")]
    if len(dict(pairs)) < len(pairs):
        raise UsageError(f"--weights is {text!r}, which weighs a metric twice; weigh each once")
    return dict(pairs)


def _pair(option: str, text: str, read: Callable[[str], T]) -> tuple[str, T]:
    name, _, value = text.partition("=")
    try:
        return name.strip(), read(value)
    except ValueError:
        raise UsageError(f"{option} is {text!r}; give METRIC=NUMBER, as in {option} {_EXAMPLES[option]}") from None


_EXAMPLES = {"--max": "accuracy_drop=0.01", "--min": "accuracy=0.9", "--weights": "accuracy_drop=2,latency_ms=1"}
