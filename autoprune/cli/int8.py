"""int8 files from the command line: written, measured, and shown beside float32."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table
from rich.text import Text
from torch import nn

from autoprune.cli.streams import out
from autoprune.deploy.quantize import QuantizedRecord, quantize
from autoprune.errors import UsageError
from autoprune.spec.config import PruningConfig
from autoprune.trial.task import Task, score


def write_int8(smaller: nn.Module, output: Path, task: Task, config: PruningConfig | None) -> QuantizedRecord:
    """Write a pruned network as an int8 ONNX file, calibrated on the task's batches.

    Raises:
        UsageError: The task has none.
    """
    if task.batches is None:
        raise UsageError("int8 needs calibration data, and the task has no batches; give Task.batches")
    return quantize(smaller, output, task.example_inputs, task.batches, config=config, evaluate=task.evaluate)


def show_int8(record: QuantizedRecord) -> None:
    """Print what int8 costs and gains."""
    table = Table("", "float32", "int8", title=f"{record.runtime}", title_justify="left")
    table.add_row("validation score", f"{record.float_score:.4f}", f"{record.score:.4f}")
    table.add_row("file", f"{record.float_size_bytes:,} B", f"{record.size_bytes:,} B")
    latency = record.latency
    interval = f"{latency.ratio:.2f}× ({latency.ratio_low:.2f} to {latency.ratio_high:.2f})"
    table.add_row("latency", f"{latency.dense_ms:.3f} ms", interval)
    table.add_row("largest difference", "", f"{record.difference:.1e} of the largest output")
    out.print(table)


def quantised_drop(record: QuantizedRecord, task: Task, dense: nn.Module) -> float:
    """Return how far the int8 network's score is below the dense network's; print the latter."""
    before = score(task.evaluate, dense, "evaluate")
    out.print(Text(f"Dense validation score: {before:.4f}"))
    assert record.score is not None
    return before - record.score if task.higher_is_better else record.score - before
