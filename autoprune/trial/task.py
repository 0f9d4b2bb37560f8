"""``Task``: a trained model, example inputs and a way to score it; and how a task is found by reference."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import numbers
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from autoprune.errors import TaskError, one_line, suggestion
from autoprune.graph.groups import ModelGraph
from autoprune.graph.trace import evaluation_mode
from autoprune.pruning.criteria import Evidence


@dataclass(frozen=True)
class Calibration:
    """The data that pruning and recovery may use, and how.

    Attributes:
        example_inputs: As ``Task.example_inputs``; a batch without a loss is cut to so many positional inputs.
        batches: As ``Task.batches``.
        loss: As ``Task.loss``.
        finetune: As ``Task.finetune``.
    """

    example_inputs: Any = ()
    batches: Iterable[Any] | Callable[[], Iterable[Any]] | None = None
    loss: Callable[[nn.Module, Any], Tensor] | None = None
    finetune: Callable[[nn.Module, int], None] | None = None

    @property
    def inputs(self) -> int:
        """Positional inputs that the model takes."""
        return max(len(positional(self.example_inputs)), 1)

    def walk(self) -> Iterator[Any]:
        """Yield the batches from the start."""
        if self.batches is not None:
            yield from self.batches() if callable(self.batches) else self.batches

    def evidence(self, model: nn.Module, graph: ModelGraph, seed: int) -> Evidence:
        """Return what criteria may look at."""
        return Evidence(
            model=model,
            weights=tuple(layer.weight for layer in graph.layers.values()),
            norm_scales=tuple(sorted(graph.norm_scales)),
            batches=self.walk if self.batches is not None else None,
            loss=self.loss,
            seed=seed,
            args=positional(self.example_inputs),
            kwargs=self.example_inputs if isinstance(self.example_inputs, Mapping) else {},
        )


@dataclass(frozen=True)
class Task:
    """What a user brings. The model is copied before anything is done with it, and never modified.

    Attributes:
        model: The trained dense network.
        example_inputs: One batch as the model takes it: a tensor, a tuple of positional inputs, or a dict of keyword
            inputs. The first dimension of every tensor is the batch.
        evaluate: ``evaluate(model) -> float`` on validation data; the search sees only this.
        higher_is_better: Direction of the score (False for a loss).
        evaluate_sample: ``evaluate_sample(model, samples) -> float``: like ``evaluate``, on so many samples of the
            validation data, the same ones each time; for rungs that name ``samples``.
        test: Like ``evaluate`` on test data; called once for the dense model, and for each trial of the final front.
        batches: Calibration data, from the training set: an iterable that can be walked again, or a function that
            returns one. A batch is whatever ``loss`` takes; without ``loss``, inputs or (inputs, targets).
        loss: ``loss(model, batch) -> scalar tensor``, for criteria that need gradients.
        finetune: ``finetune(model, steps)`` trains the model in place for so many optimiser steps.

    Raises:
        TaskError: An attribute has the wrong type.
    """

    model: nn.Module
    example_inputs: Any
    evaluate: Callable[[nn.Module], float]
    higher_is_better: bool = True
    test: Callable[[nn.Module], float] | None = None
    batches: Iterable[Any] | Callable[[], Iterable[Any]] | None = None
    loss: Callable[[nn.Module, Any], Tensor] | None = None
    finetune: Callable[[nn.Module, int], None] | None = None
    evaluate_sample: Callable[[nn.Module, int], float] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise TaskError(f"Task.model is {kind_of(self.model)}; give a torch.nn.Module")
        if not isinstance(self.example_inputs, Tensor | tuple | list | Mapping):
            raise TaskError(
                f"Task.example_inputs is {kind_of(self.example_inputs)}; "
                "give a tensor, a tuple or a dict, as the model takes it"
            )
        if any(isinstance(leaf, Tensor) and not leaf.numel() for leaf in tree_leaves(self.example_inputs)):
            raise TaskError("Task.example_inputs holds a tensor without entries; give at least one sample")
        for name in ("evaluate", "test", "loss", "finetune", "evaluate_sample"):
            value = getattr(self, name)
            if not (callable(value) or (value is None and name != "evaluate")):
                raise TaskError(f"Task.{name} is {kind_of(value)}; give a function")
        if not isinstance(self.higher_is_better, bool):
            raise TaskError(f"Task.higher_is_better is {kind_of(self.higher_is_better)}; give True or False")
        if isinstance(self.batches, Iterator):
            raise TaskError(
                "Task.batches is an iterator, which can be walked once; give a list, a DataLoader or a function"
            )

        walks = callable(self.batches) or isinstance(self.batches, Iterable) or hasattr(self.batches, "__getitem__")
        if self.batches is not None and not walks:
            raise TaskError(f"Task.batches is {kind_of(self.batches)}; give a list, a DataLoader or a function")

    @property
    def args(self) -> tuple[Any, ...]:
        """Positional example inputs."""
        return positional(self.example_inputs)

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """Keyword example inputs."""
        return self.example_inputs if isinstance(self.example_inputs, Mapping) else {}

    @property
    def calibration(self) -> Calibration:
        """The data that pruning and recovery may use."""
        return Calibration(self.example_inputs, self.batches, self.loss, self.finetune)


def positional(example_inputs: Any) -> tuple[Any, ...]:
    """Return example inputs as positional arguments; a dict has none."""
    if isinstance(example_inputs, Mapping):
        return ()
    return tuple(example_inputs) if isinstance(example_inputs, tuple | list) else (example_inputs,)


def score(evaluate: Callable[[nn.Module], float], model: nn.Module, name: str) -> float:
    """Run one of the task's scoring functions on a model in evaluation mode, without gradients.

    Args:
        evaluate: ``Task.evaluate``, ``Task.test``, or ``Task.evaluate_sample`` of a number of samples.
        model: The model to score.
        name: Its name, for messages.

    Raises:
        TaskError: The result is not a finite number.
    """
    model.eval()
    with torch.no_grad():
        value = evaluate(model)
    if (isinstance(value, Tensor) and value.numel() == 1) or (isinstance(value, np.ndarray) and value.size == 1):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TaskError(f"Task.{name} returned {kind_of(value)}; return the score as one float")
    if not math.isfinite(value):
        raise TaskError(
            f"Task.{name} returned {value}; return a finite score, or raise for a network that cannot be scored"
        )
    return float(value)


def score_dense(evaluate: Callable[[nn.Module], float], model: nn.Module, name: str) -> float:
    """As :func:`score`, on the dense model: what raises there is no trial's failure but the task's.

    Raises:
        TaskError: The function raises, or the result is not a finite number.
    """
    try:
        return score(evaluate, model, name)
    except TaskError:
        raise
    except (Exception, SystemExit) as error:
        raise TaskError(f"Task.{name} raised {one_line(error)} on the dense model; mend the function") from error


def check_batches(data: Calibration, model: nn.Module) -> None:
    """Look at the first batch, so that data that cannot be used is told before a search, not in each trial of it.

    Raises:
        TaskError: There is no batch, or the loss on it is not one finite number.
    """
    if data.batches is None:
        return
    try:
        batch = next(data.walk(), None)
    except (Exception, SystemExit) as error:
        raise TaskError(f"Task.batches raised {one_line(error)} at the first batch; mend it") from error
    if batch is None:
        raise TaskError("Task.batches gave no batch; give at least one, or leave it out")
    if data.loss is None:
        return
    try:
        with evaluation_mode(model), torch.no_grad():
            value = data.loss(model, batch)
    except (Exception, SystemExit) as error:
        raise TaskError(f"Task.loss raised {one_line(error)} on the first batch; mend the function") from error
    if not (isinstance(value, Tensor) and value.numel() == 1 and bool(torch.isfinite(value))):
        found = f"the value {value.item()}" if isinstance(value, Tensor) and value.numel() == 1 else kind_of(value)
        raise TaskError(f"Task.loss returned {found} on the first batch; return one finite number as a tensor")


def kind_of(value: Any) -> str:
    """Return what a value is, in words for a message: "an int", "None", "a float32 tensor (2, 3)"."""
    if value is None or isinstance(value, Tensor):
        return "None" if value is None else f"a {str(value.dtype).removeprefix('torch.')} tensor {tuple(value.shape)}"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def load_task(reference: str, directory: Path | str | None = None) -> Task:
    """Import a task.

    Args:
        reference: ``package.module:function`` or ``path/to/file.py:function``.
        directory: Handed to the function if it has a parameter ``directory``: a place to keep what is costly to make,
            such as trained weights.

    Raises:
        TaskError: The module does not import, lacks the function, or the function does not return a Task.
    """
    where, _, name = reference.rpartition(":")
    if not where or not name:
        raise TaskError(f"task {reference!r} is not of the form package.module:function or path/to/file.py:function")
    module = _import_file(Path(where), reference) if where.endswith(".py") else _import_module(where, reference)
    if not hasattr(module, name):
        known = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise TaskError(f"task {reference!r}: {where} has no function {name!r}{suggestion(name, known)}")
    function = getattr(module, name)
    if isinstance(function, Task):
        return function
    if not callable(function):
        raise TaskError(f"task {reference!r} is {kind_of(function)}; give a function that returns an autoprune.Task")
    try:
        wants = "directory" in inspect.signature(function).parameters
        task = function(directory=Path(directory or "")) if wants else function()
    except TaskError:
        raise
    except (Exception, SystemExit) as error:
        raise TaskError(f"task {reference!r} raised {one_line(error)}; mend the function") from error
    if not isinstance(task, Task):
        raise TaskError(f"task {reference!r} returned {kind_of(task)}; return an autoprune.Task")
    return task


def _import_module(name: str, reference: str) -> ModuleType:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # a command finds the user's modules as ``python -m`` does
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise TaskError(_import_failure(reference, error)) from error


def _import_file(path: Path, reference: str) -> ModuleType:
    if not path.is_file():
        raise TaskError(f"task {reference!r}: no such file {str(path)!r}; give the path of a Python file")
    name = f"autoprune_task_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise TaskError(_import_failure(reference, error)) from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def _import_failure(reference: str, error: BaseException) -> str:
    remedy = "install it" if isinstance(error, ModuleNotFoundError) else "mend the module"
    extra = " (pip install 'autoprune[examples]')" if "sklearn" in str(error) else ""
    return f"task {reference!r} does not import ({one_line(error)}); {remedy}{extra}"
