"""A pruned network for other runtimes: ONNX or torch.export, and the proof that the file computes the same."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from autoprune.errors import ExportError, UsageError, one_line
from autoprune.graph.export import exported_program, need_onnx, onnx_bytes
from autoprune.graph.session import Runner, largest_difference, run_onnx
from autoprune.graph.trace import evaluation_mode, output_tensors
from autoprune.spec.config import PruningConfig
from autoprune.trial.task import positional

ExportFormat = Literal["onnx", "pt2"]
FORMATS: dict[str, ExportFormat] = {".onnx": "onnx", ".pt2": "pt2"}
TOLERANCE = 1e-4
"""Largest difference of outputs over their largest absolute value: rounding of float32 in another order."""


@dataclass(frozen=True)
class Exported:
    """An exported file, and how it was checked.

    Attributes:
        path: The file.
        format: "onnx" or "pt2".
        size_bytes: Its size.
        difference: Largest absolute difference between its outputs and the model's, over their largest absolute value.
        tolerance: What was allowed.
        checked_by: What ran the file.
        dynamic_batch: Whether it takes any batch size.
    """

    path: Path
    format: ExportFormat
    size_bytes: int
    difference: float
    tolerance: float
    checked_by: str
    dynamic_batch: bool

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.format}, {self.size_bytes:,} B, largest relative difference to torch "
            f"{self.difference:.1e} (tolerance {self.tolerance:.0e}), run by {self.checked_by}"
        )


def export(
    model: nn.Module,
    path: Path | str,
    example_inputs: Any,
    *,
    config: PruningConfig | None = None,
    dynamic_batch: bool = False,
    tolerance: float = TOLERANCE,
) -> Exported:
    """Write a network for another runtime, run the file, and compare it with the network.

    Removed channels and heads are gone from the file. Zeros of weight patterns are stored like any other number.

    Args:
        model: What :func:`autoprune.apply` or :func:`autoprune.load_pruned` returned; not changed.
        path: Ends in ``.onnx`` or ``.pt2``. The file appears whole and checked, or not at all.
        example_inputs: One batch as the model takes it: a tensor, a tuple, or a dict.
        config: Kept in the file, with where it comes from.
        dynamic_batch: Take any batch size; checked on the example inputs and on three samples more.
        tolerance: Largest relative difference allowed.

    Raises:
        UsageError: Another suffix, a config that asks for int8, or the packages for ONNX are missing.
        TraceError: The model cannot be exported.
        ExportError: The file does not run, or computes something else.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise UsageError(f"{path} ends in {path.suffix or 'nothing'!r}; name the file .onnx (ONNX) or .pt2 (torch)")
    if config is not None and config.precision == "int8":
        raise UsageError(
            "the config asks for int8, and export writes the network as it is; use autoprune.quantize, "
            "or leave the config out"
        )
    kind = FORMATS[path.suffix]
    if kind == "onnx":
        need_onnx()
        model, example_inputs = copy.deepcopy(model).cpu(), tree_map(_on_cpu, example_inputs)
    args = positional(example_inputs)
    kwargs: Mapping[str, Any] = example_inputs if isinstance(example_inputs, Mapping) else {}
    about = {} if config is None else {"autoprune": config.to_json()}
    if kind == "onnx":
        data = onnx_bytes(model, args, kwargs, dynamic_batch=dynamic_batch, metadata=about)
    else:
        buffer = io.BytesIO()
        program = exported_program(model, args, kwargs, dynamic_batch=dynamic_batch)
        torch.export.save(program, buffer, extra_files={f"{key}.json": value for key, value in about.items()})
        data = buffer.getvalue()
    try:
        run, checked_by = (run_onnx if kind == "onnx" else _run_program)(data)
        difference = _difference(model, run, args, kwargs)
        if dynamic_batch:
            more = tree_map(_three_more, (args, dict(kwargs)))
            difference = max(difference, _difference(model, run, *more))
    except Exception as error:
        raise ExportError(f"the exported model does not run ({one_line(error)}); nothing was written") from error
    if not difference <= tolerance:
        raise ExportError(
            f"the exported model differs from the model by {difference:.1e} of its largest output under {checked_by}, "
            f"where {tolerance:.0e} is allowed; nothing was written"
        )
    write_bytes(path, data)
    return Exported(path, kind, len(data), difference, tolerance, checked_by, dynamic_batch)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees it whole or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def _run_program(data: bytes) -> tuple[Runner, str]:
    module = torch.export.load(io.BytesIO(data)).module()

    def run(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
        with torch.no_grad():
            return output_tensors(module(*args, **kwargs))

    return run, f"torch {torch.__version__.partition('+')[0]} (torch.export)"


def _difference(model: nn.Module, run: Runner, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float:
    with evaluation_mode(model), torch.no_grad():
        wanted = output_tensors(model(*args, **kwargs))
    return largest_difference(run(args, kwargs), wanted)


def _on_cpu(leaf: Any) -> Any:
    return leaf.cpu() if isinstance(leaf, Tensor) else leaf


def _three_more(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor) or not leaf.dim():
        return leaf
    return leaf[torch.arange(len(leaf) + 3, device=leaf.device) % len(leaf)]
