"""``autoprune export``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from autoprune.cli.streams import out
from autoprune.errors import UsageError


@click.command()
@click.argument("pruned", type=click.Path(path_type=Path))
@click.option("--task", "reference", required=True, metavar="MODULE:FUNCTION", help="The task, as in the study.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="FILE.onnx or FILE.pt2.")
@click.option("--dynamic-batch", is_flag=True, help="Take any batch size.")
@click.option("--int8", is_flag=True, help="Quantise on the task's batches (ONNX, any batch size).")
@click.option("--directory", type=click.Path(path_type=Path), help="Where the task keeps its files.")
def export(pruned: Path, reference: str, output: Path, dynamic_batch: bool, int8: bool, directory: Path | None) -> None:
    """Write the network of a PRUNED file for another runtime, run the result, and compare."""
    from autoprune.deploy.export import export as write
    from autoprune.deploy.pruned_file import read_pruned
    from autoprune.deploy.save import load_pruned
    from autoprune.trial.task import load_task

    config = read_pruned(pruned).config
    task = load_task(reference, directory)
    smaller = load_pruned(task.model, pruned)
    output.parent.mkdir(parents=True, exist_ok=True)
    if not int8:
        made = write(smaller, output, task.example_inputs, config=config, dynamic_batch=dynamic_batch)
        out.print(Text(str(made)), soft_wrap=True)
        return
    if task.batches is None:
        raise UsageError("int8 needs calibration data, and the task has no batches; give Task.batches")
    from autoprune.deploy.quantize import quantize

    record = quantize(smaller, output, task.example_inputs, task.batches, config=config, evaluate=task.evaluate)
    table = Table("", "float32", "int8", title=f"{record.runtime}, {output}", title_justify="left")
    table.add_row("validation score", f"{record.float_score:.4f}", f"{record.score:.4f}")
    table.add_row("file", f"{record.float_size_bytes:,} B", f"{record.size_bytes:,} B")
    latency = record.latency
    interval = f"{latency.ratio:.2f}× ({latency.ratio_low:.2f} to {latency.ratio_high:.2f})"
    table.add_row("latency", f"{latency.dense_ms:.3f} ms", interval)
    table.add_row("largest difference", "", f"{record.difference:.1e} of the largest output")
    out.print(table)
