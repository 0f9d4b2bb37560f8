"""``autoprune profile``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.text import Text

from autoprune.cli.streams import err, out


@click.command()
@click.argument("study", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Run directory  [default: runs/<name of STUDY>]")
@click.option("--devices", default="", metavar="A,B,C", help="Further devices to model the same network on.")
def profile(study: Path, output: Path | None, devices: str) -> None:
    """Show where time, bytes and energy go in the dense model of STUDY, and what pruning pays on its device.

    The run directory gets profile.html, profile.md and profile.json.
    """
    from autoprune.spec.study import load_study

    spec = load_study(study)
    directory = output or Path("runs") / study.stem

    from autoprune.results import profile_tables as tables
    from autoprune.results.profile_report import write_profile
    from autoprune.results.table import to_rich
    from autoprune.trial.profile.run import profile_study
    from autoprune.trial.task import load_task

    with err.status("Running the network, its modules and pruned versions of them ..."):
        directory.mkdir(parents=True, exist_ok=True)
        others = [name.strip() for name in devices.split(",") if name.strip()]
        found = profile_study(load_task(spec.task, directory), spec, others, str(study))
    paths = write_profile(found, directory)
    shown = (tables.layer_table(found.device, most=12), *tables.findings(found))
    for table in shown:
        out.print(to_rich(table, out.width))
    for sentence in (tables.headline(found), f"Profile: {paths.html}", tables.next_step(found)):
        out.print(Text(sentence), soft_wrap=True)
