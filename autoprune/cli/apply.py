"""``autoprune apply``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table
from rich.text import Text

from autoprune.cli.streams import out
from autoprune.errors import RunError, UsageError
from autoprune.spec.record import TrialRecord, read_records

if TYPE_CHECKING:
    from torch import nn

    from autoprune.spec.config import PruningConfig
    from autoprune.trial.task import Task


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--task", "reference", required=True, metavar="MODULE:FUNCTION", help="The task, as in the study.")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="The safetensors file to write; FILE.onnx for a config that asks for int8.",
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    help="Where the task keeps its files  [default: the run that the config names, if it is there]",
)
@click.option("--max-drop", type=click.FloatRange(min=0), help="Fail if the validation score drops by more.")
def apply(config: Path, reference: str, output: Path, directory: Path | None, max_drop: float | None) -> None:
    """Build the smaller network of a CONFIG from the task's checkpoint, check it, and save it."""
    from autoprune.spec.config import load_config

    chosen = load_config(config)
    as_int8 = output.suffix == ".onnx"
    if as_int8 and chosen.precision != "int8":
        raise UsageError(
            f"{config} does not ask for int8, so what is written is safetensors, and {output} ends in .onnx; name it "
            ".safetensors, then 'autoprune export' writes ONNX"
        )

    from autoprune.cli.int8 import quantised_drop, show_int8, write_int8
    from autoprune.deploy.apply import apply as build
    from autoprune.deploy.save import load_pruned, save_pruned
    from autoprune.trial.task import load_task

    if directory is None and chosen.provenance is not None and chosen.provenance.run is not None:
        directory = Path(chosen.provenance.run) if Path(chosen.provenance.run).is_dir() else None
    task = load_task(reference, directory)
    smaller = build(
        task.model, chosen, task.example_inputs, batches=task.batches, loss=task.loss, finetune=task.finetune
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    asked = _trial_of(chosen, directory) or chosen
    if as_int8:
        quantised = write_int8(smaller, output, task, chosen)
        show_int8(quantised)
        _compare(smaller, asked, task, output, quantised_drop(quantised, task, task.model), max_drop)
        out.print(Text(f"Saved: {output} (for ONNX Runtime)"), soft_wrap=True)
        return
    size = save_pruned(smaller, output, chosen)
    loaded = load_pruned(task.model, output)  # what is told is told of the file, as its user will load it
    drop = _show(task, loaded, size)
    _compare(loaded, asked, task, output, drop, max_drop)
    out.print(Text(f"Saved: {output} (load with autoprune.load_pruned(model, {str(output)!r}))"), soft_wrap=True)
    if chosen.precision == "int8":
        said = f"The config asks for int8: 'autoprune export {output} --task {reference} -o FILE.onnx' writes that."
        out.print(Text(said), soft_wrap=True)


def _show(task: Task, loaded: nn.Module, size: int) -> float:
    """Print the dense network beside the pruned one; return the drop of the validation score, positive for a loss."""
    from autoprune.cost.macs import count_macs
    from autoprune.trial.task import score

    table = Table("", "dense", "pruned", title="Applied", title_justify="left")
    drop = 0.0
    for name, evaluate in (("validation score", task.evaluate), ("test score", task.test)):
        if evaluate is not None:
            before, after = (score(evaluate, model, "evaluate") for model in (task.model, loaded))
            table.add_row(name, f"{before:.4f}", f"{after:.4f}")
            if evaluate is task.evaluate:
                drop = before - after if task.higher_is_better else after - before
    macs = [count_macs(model, task.args, task.kwargs).total for model in (task.model, loaded)]
    table.add_row("MACs (example inputs)", *(f"{value:,}" for value in macs))
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in (task.model, loaded)]
    table.add_row("parameters", *(f"{value:,}" for value in sizes))
    table.add_row("file", "", f"{size:,} B")
    out.print(table)
    return drop


def _compare(
    smaller: nn.Module,
    asked: PruningConfig | TrialRecord,
    task: Task,
    output: Path,
    drop: float,
    max_drop: float | None,
) -> None:
    """Compare what was written with what was asked, and say so.

    Raises:
        RunError: It is something else.
    """
    from autoprune.deploy.achieved import verify

    achieved = verify(smaller, asked, task.model, task.example_inputs, drop=drop, max_drop=max_drop)
    source = "the config and the trial's record" if isinstance(asked, TrialRecord) else "the config"
    if achieved.differences:
        raise RunError(f"{output} was written, and is not what {source} asks: {achieved}")
    out.print(Text(f"Compared with {source}: {achieved}"), soft_wrap=True)


def _trial_of(config: PruningConfig, directory: Path | None) -> TrialRecord | None:
    """Return the record of the trial that a config names, where its run is at hand."""
    if directory is None or config.provenance is None or not (directory / "records.jsonl").is_file():
        return None
    records = read_records(directory / "records.jsonl")
    same = (trial for trial in records.trials if trial.number == config.provenance.trial and trial.config is not None)
    return next((trial for trial in same if trial.config and trial.config.signature == config.signature), None)
