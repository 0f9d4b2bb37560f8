"""``autoprune export``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.text import Text

from autoprune.cli.streams import out


@click.command()
@click.argument("pruned", type=click.Path(path_type=Path))
@click.option("--task", "reference", required=True, metavar="MODULE:FUNCTION", help="The task, as in the study.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="FILE.onnx or FILE.pt2.")
@click.option("--dynamic-batch", is_flag=True, help="Take any batch size.")
@click.option(
    "--int8",
    is_flag=True,
    help="Quantise on the task's batches (ONNX, any batch size); a config that asks for it needs no flag.",
)
@click.option("--directory", type=click.Path(path_type=Path), help="Where the task keeps its files.")
def export(pruned: Path, reference: str, output: Path, dynamic_batch: bool, int8: bool, directory: Path | None) -> None:
    """Write the network of a PRUNED file for another runtime, run the result, and compare."""
    from autoprune.deploy.export import export as write
    from autoprune.deploy.pruned_file import read_pruned
    from autoprune.deploy.save import load_pruned
    from autoprune.trial.task import load_task

    config = read_pruned(pruned).config
    int8 = int8 or (config is not None and config.precision == "int8")
    task = load_task(reference, directory)
    smaller = load_pruned(task.model, pruned)
    output.parent.mkdir(parents=True, exist_ok=True)
    if not int8:
        made = write(smaller, output, task.example_inputs, config=config, dynamic_batch=dynamic_batch)
        out.print(Text(str(made)), soft_wrap=True)
        return
    from autoprune.cli.int8 import show_int8, write_int8

    show_int8(write_int8(smaller, output, task, config))
    out.print(Text(f"Saved: {output}"), soft_wrap=True)
