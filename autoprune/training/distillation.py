"""Distillation: the dense network teaches the pruned one (Hinton et al. 2015, arXiv 1503.02531)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.errors import ConfigError, UsageError, unknown_name
from autoprune.graph.trace import output_tensors

Loss = Callable[[nn.Module, Any], Tensor]


@dataclass
class _Seen:
    """What one forward pass read and gave."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    output: Any = None
    features: dict[str, Tensor] = field(default_factory=dict)


class Distillation:
    """A loss with a teacher: (1 - weight) task loss + weight T^2 KL(teacher || student) + features.

    ::

        loss = ap.Distillation(dense, task_loss, temperature=4.0)
        loss(model, batch).backward()

    It is called like the loss that it is made of. What the student was given and what it answered is seen by hooks
    that last for the one call, so any loss and any model serve; the teacher then gets the same inputs, in evaluation
    mode and without gradients. KL is the mean over all predictions, at temperature T (equation 1 and section 2 of the
    paper). Logits are the first floating-point tensor of the output, or what it calls ``logits``.

    Args:
        teacher: The dense network; copied.
        loss: ``loss(model, batch)`` of the task.
        temperature: T; softer distributions above 1.
        weight: Of the teacher against the task, 0 < weight <= 1.
        features: Names of modules whose outputs shall be alike too, by squared error relative to the teacher's mean
            square (Romero et al. 2015, arXiv 1412.6550); their shapes must be the same in both networks.
        feature_weight: Of the mean over the features, added.

    Raises:
        UsageError: A number is out of range.
        UnknownNameError: The teacher has no such module.
    """

    def __init__(
        self,
        teacher: nn.Module,
        loss: Loss,
        *,
        temperature: float = 4.0,
        weight: float = 0.5,
        features: Sequence[str] = (),
        feature_weight: float = 1.0,
    ) -> None:
        if not temperature > 0:
            raise UsageError(f"the temperature of a distillation is above 0, not {temperature!r}")
        if not 0 < weight <= 1:
            raise UsageError(f"the weight of a distillation is above 0 and at most 1, not {weight!r}")
        if not feature_weight > 0:
            raise UsageError(f"the feature weight of a distillation is above 0, not {feature_weight!r}")
        modules = dict(teacher.named_modules())
        for name in features:
            if name not in modules:
                raise unknown_name("module", name, modules)
        self.teacher = copy.deepcopy(teacher).eval().requires_grad_(False)
        self.loss = loss
        self.temperature = temperature
        self.weight = weight
        self.features = tuple(features)
        self.feature_weight = feature_weight

    def __call__(self, student: nn.Module, batch: Any) -> Tensor:
        """Return the loss of a batch.

        Raises:
            ConfigError: The task's loss does not run the student, or logits or features differ in shape.
        """
        with _watched(student, self.features) as seen:
            task_loss = self.loss(student, batch)
        if seen.output is None:
            raise ConfigError("the loss did not run the model that it was given; distillation needs its output")
        with torch.no_grad(), _watched(self.teacher, self.features) as taught:
            self.teacher(*seen.args, **seen.kwargs)
        total = (1 - self.weight) * task_loss + self.weight * soft_loss(
            _logits(seen.output), _logits(taught.output), self.temperature
        )
        for name in self.features:
            mine, theirs = seen.features[name], taught.features[name]
            if mine.shape != theirs.shape:
                raise ConfigError(
                    f"module {name!r} gives {tuple(mine.shape)} in the pruned network and {tuple(theirs.shape)} in the "
                    "dense one: its channels were removed; name a module that keeps its width"
                )
            scale = theirs.square().mean().clamp_min(torch.finfo(theirs.dtype).tiny)
            total = total + self.feature_weight / len(self.features) * F.mse_loss(mine, theirs) / scale
        return total


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(softmax(teacher / T) || softmax(student / T)), averaged over all predictions.

    Args:
        student: Logits, shape (..., classes).
        teacher: Same shape.
        temperature: T.

    Raises:
        ConfigError: The shapes differ.
    """
    if student.shape != teacher.shape:
        raise ConfigError(f"the student's logits are {tuple(student.shape)}, the teacher's {tuple(teacher.shape)}")
    mine = F.log_softmax(student.flatten(0, -2) / temperature, dim=-1)
    theirs = F.log_softmax(teacher.flatten(0, -2) / temperature, dim=-1)
    return temperature**2 * F.kl_div(mine, theirs, reduction="batchmean", log_target=True)


def _logits(output: Any) -> Tensor:
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    tensors = [named] if isinstance(named, Tensor) else output_tensors(output)
    for tensor in tensors:
        if tensor.is_floating_point() and tensor.dim() >= 2:
            return tensor
    raise ConfigError("distillation finds no logits (..., classes) in the model's output; return them first")


@contextmanager
def _watched(model: nn.Module, features: Sequence[str]) -> Iterator[_Seen]:
    """See the last call of a model and the outputs of some of its modules."""
    seen = _Seen()

    def whole(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        seen.args, seen.kwargs, seen.output = args, kwargs, output

    def part(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, args: Any, output: Any) -> None:
            seen.features[name] = output_tensors(output)[0]

        return hook

    with ExitStack() as stack:
        handle = model.register_forward_hook(whole, with_kwargs=True)
        stack.callback(handle.remove)
        for name in features:
            stack.callback(model.get_submodule(name).register_forward_hook(part(name)).remove)
        yield seen
