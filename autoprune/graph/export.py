"""The one place that exports a model: as an ``ExportedProgram`` of torch, and from that as ONNX.

What measures an exported model and what ships it ask here, so both get the same file.
"""

from __future__ import annotations

import inspect
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from autoprune.errors import TraceError, UsageError, one_line
from autoprune.graph.trace import TensorsOut, check_inputs, evaluation_mode, output_tensors

ONNX_LIMIT_BYTES = 2**31 - 1
"""What one ONNX file holds: it is a protobuf message."""

_TRACED = "autoprune_input_"  # names that no argument of a user's model has


def exported_program(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None, *, dynamic_batch: bool = False
) -> torch.export.ExportedProgram:
    """Export a model in evaluation mode; the model is not changed.

    Args:
        model: A model whose output is a tensor, or tensors in lists, tuples and dicts: it keeps that shape. What else
            an output may hold (a cache of keys) is left out, and its tensors come as a list.
        args: Positional example inputs.
        kwargs: Keyword example inputs.
        dynamic_batch: Leave dimension 0 of every input tensor open, the same size for all.

    Raises:
        TraceError: The model does not run on the inputs, or torch.export cannot follow it.
    """
    kwargs = dict(kwargs or {})
    plain = _is_plain(check_inputs(model, args, kwargs))
    exported = model if plain else TensorsOut(model)
    shapes = None
    if dynamic_batch:
        args, kwargs = tree_map(_at_least_two, args), tree_map(_at_least_two, kwargs)  # a size of 1 is never open
        given = inspect.signature(exported.forward).bind(*args, **kwargs).arguments
        batch = torch.export.Dim("batch", min=1)
        shapes = tree_map(lambda leaf: {0: batch} if isinstance(leaf, Tensor) and leaf.dim() else None, dict(given))
    try:
        with warnings.catch_warnings(), evaluation_mode(model):
            warnings.simplefilter("ignore")
            exported.training = False
            return torch.export.export(exported, args, kwargs, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        remedy = "leave the dynamic batch out, or mend" if dynamic_batch else "mend"
        raise TraceError(f"torch.export cannot follow the model ({one_line(error)}); {remedy} that line") from error


def onnx_bytes(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_batch: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """Export a model in evaluation mode to ONNX; its weights are inside, zeros included.

    Args:
        model: As for :func:`exported_program`.
        args: Positional example inputs.
        kwargs: Keyword example inputs.
        dynamic_batch: Leave dimension 0 of every input tensor open.
        metadata: Written to the file's ``metadata_props``.

    Returns:
        The file. Its inputs are the tensors of ``args`` and then ``kwargs``, in order (:func:`onnx_feed`).

    Raises:
        UsageError: The packages for ONNX are missing, or the model is too large for one file.
        TraceError: The model cannot be exported.
    """
    need_onnx()
    held = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    if held > ONNX_LIMIT_BYTES:
        raise UsageError(f"an ONNX file holds at most 2 GiB and the model has {held:,} bytes; export it to .pt2")
    program = exported_program(model, args, kwargs, dynamic_batch=dynamic_batch)
    try:
        with warnings.catch_warnings(), _silent_exporter():
            warnings.simplefilter("ignore")
            made = torch.onnx.export(program, dynamo=True, verbose=False)
            assert made is not None
            proto = made.model_proto
    except Exception as error:
        raise TraceError(f"torch.onnx cannot translate the model ({one_line(error)}); export it to .pt2") from error
    for key, value in (metadata or {}).items():
        proto.metadata_props.add(key=key, value=value)
    data: bytes = proto.SerializeToString()
    return data


def traced_onnx_bytes(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> bytes:
    """Export a model to ONNX by running it once: 0.2 s for a ResNet-20 where :func:`onnx_bytes` takes 2 s.

    For measurements: the file holds for these shapes alone, and branches of the model's Python are taken as this run
    takes them. Its inputs are numbered in the order of the tensors; one that the model does not use has no place in
    the file (:func:`onnx_feed` knows). The model should be in evaluation mode.

    Raises:
        TraceError: TorchScript cannot follow the model, or the file would be too large.
    """
    leaves, spec = tree_flatten((args, dict(kwargs or {})))
    tensors = tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))
    flat = _FlatCall(model, leaves, spec).eval()
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings(), _silent_exporter(), torch.no_grad():
            warnings.simplefilter("ignore")
            names = [f"{_TRACED}{n}" for n in range(len(tensors))]
            torch.onnx.export(flat, tensors, buffer, dynamo=False, input_names=names)  # type: ignore[arg-type] # stub
    except Exception as error:
        raise TraceError(f"TorchScript cannot follow the model ({one_line(error)})") from error
    return buffer.getvalue()


class _FlatCall(nn.Module):
    """A model that takes its tensors in order and returns those of its output in order."""

    def __init__(self, model: nn.Module, leaves: Sequence[Any], spec: Any) -> None:
        super().__init__()
        self.model = model
        self._fixed = [None if isinstance(leaf, Tensor) else (leaf,) for leaf in leaves]
        self._spec = spec

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        rest = iter(tensors)
        leaves = [next(rest) if fixed is None else fixed[0] for fixed in self._fixed]
        args, kwargs = tree_unflatten(leaves, self._spec)
        return tuple(output_tensors(self.model(*args, **kwargs)))


def onnx_feed(
    names: Sequence[str], args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None
) -> dict[str, NDArray[Any]]:
    """Return what an ONNX session is fed with: input name to array.

    Args:
        names: Names of the session's inputs, in order.
        args: Positional inputs, as exported.
        kwargs: Keyword inputs, in the order of the export.
    """
    tensors = [leaf for leaf in tree_leaves((args, dict(kwargs or {}))) if isinstance(leaf, Tensor)]
    if all(
        re.fullmatch(rf"{_TRACED}\d+", name) for name in names
    ):  # by traced_onnx_bytes, which leaves unused ones out
        tensors = [tensors[int(name.rpartition("_")[2])] for name in names]
    return {name: np.asarray(tensor.detach().cpu()) for name, tensor in zip(names, tensors, strict=True)}


def need_onnx() -> None:
    """Check that what exports to ONNX and runs it is installed.

    Raises:
        UsageError: It is not.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise UsageError(f"ONNX needs {', '.join(missing)}; pip install 'autoprune[onnx]'")


def _is_plain(value: Any) -> bool:
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    if type(value) is dict:
        return all(map(_is_plain, value.values()))
    return isinstance(value, Tensor)


def _at_least_two(leaf: Any) -> Any:
    return torch.cat([leaf, leaf]) if isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == 1 else leaf


@contextmanager
def _silent_exporter() -> Iterator[None]:
    """Silence the exporter's log: that torchvision is not installed concerns nobody here."""
    logger = logging.getLogger("torch.onnx._internal.exporter")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
