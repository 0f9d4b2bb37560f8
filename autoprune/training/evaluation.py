"""Evaluation without the noise of training, for methods under which the model holds noisy weights between steps."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class EvaluationLook:
    """Makes a forward pass in evaluation mode see the settled weights, and puts the noise back after it.

    The only hooks that a sparsifier sets on a model, and only for methods with noise. A copy of the model has hooks
    that do nothing.

    Args:
        model: What trains; its own ``training`` flag counts.
        settle: Puts the settled weights in place.
        disturb: Puts back the noise that was there.
    """

    def __init__(self, model: nn.Module, settle: Callable[[], None], disturb: Callable[[], None]) -> None:
        self._model, self._settle, self._disturb = model, settle, disturb
        self._depth = 0
        self._handles: list[Any] = []
        self.hold()

    def hold(self) -> None:
        """Set the hooks, if they are not."""
        if not self._handles:
            before, after = _Hook(self, before=True), _Hook(self, before=False)
            self._handles = [
                self._model.register_forward_pre_hook(before),
                self._model.register_forward_hook(after, always_call=True),
            ]

    def release(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def enter(self, model: nn.Module) -> None:
        """Settle before a pass in evaluation mode."""
        if model is self._model and not model.training:
            self._depth += 1
            if self._depth == 1:
                self._settle()

    def leave(self, model: nn.Module) -> None:
        """Disturb after it."""
        if model is self._model and self._depth:
            self._depth -= 1
            if not self._depth:
                self._disturb()


class _Hook:
    """A hook that a copy or a pickle of the model does not take along."""

    def __init__(self, look: EvaluationLook | None, *, before: bool) -> None:
        self._look = weakref.ref(look) if look is not None else None
        self._before = before

    @torch.compiler.disable  # type: ignore[untyped-decorator] # weights are swapped, which is no part of a graph
    def __call__(self, model: nn.Module, *_: Any) -> None:
        look = self._look() if self._look is not None else None
        if look is not None:
            (look.enter if self._before else look.leave)(model)

    def __deepcopy__(self, _: Any) -> _Hook:
        return _Hook(None, before=self._before)

    def __reduce__(self) -> tuple[Any, ...]:
        return _nothing, (self._before,)


def _nothing(before: bool) -> _Hook:
    return _Hook(None, before=before)
