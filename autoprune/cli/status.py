"""``autoprune status``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.text import Text

from autoprune.cli.streams import out


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
def status(directory: Path) -> None:
    """Tell how far the search in DIRECTORY is, also while it runs or after it was killed."""
    from autoprune.search.standing import standing_of

    now = standing_of(directory)
    states = ", ".join(f"{count} {state}" for state, count in sorted(now.states.items())) or "none settled"
    volume = "-" if now.hypervolume is None else f"{now.hypervolume:.3f}"
    done = now.finished >= now.wanted
    doing = "searching now" if now.searching else "done" if done else "no search runs: the same command goes on"
    lines = [
        f"{now.finished}/{now.wanted} trials ({states}), {now.in_flight} in flight, {now.queued} queued; {doing}",
        f"front {now.front_size}, hypervolume {volume}{f'; last trial at {now.last}' if now.last else ''}",
        *now.lost,
    ]
    for line in lines:
        out.print(Text(line), soft_wrap=True)
