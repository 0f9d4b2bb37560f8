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
    from autoprune.errors import RunDirectoryError
    from autoprune.search.ray.jobs import fate_of, kept_job
    from autoprune.search.standing import standing_of

    job = kept_job(directory)
    fate = [] if job is None else [fate_of(job)]
    try:
        now = standing_of(directory)
    except RunDirectoryError:
        if job is None:
            raise
        _tell([*fate, "no trial has been asked for yet"])
        return
    states = ", ".join(f"{count} {state}" for state, count in sorted(now.states.items())) or "none settled"
    volume = "-" if now.hypervolume is None else f"{now.hypervolume:.3f}"
    done = now.finished >= now.wanted
    doing = "searching now" if now.searching else "done" if done else "no search runs: the same command goes on"
    _tell(
        [
            f"{now.finished}/{now.wanted} trials ({states}), {now.in_flight} in flight, {now.queued} queued; {doing}",
            f"front {now.front_size}, hypervolume {volume}{f'; last trial at {now.last}' if now.last else ''}",
            *fate,
            *now.lost,
        ]
    )


def _tell(lines: list[str]) -> None:
    for line in lines:
        out.print(Text(line), soft_wrap=True)
