"""Masks that an optimizer cannot undo: hooks of the optimizer, none of the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Hold:
    """Keeps masked weights, their gradients and their optimizer state at zero.

    The gradients are masked when the optimizer starts its step: after accumulation, after a gradient scaler has
    unscaled them, and after a closure was run (Lightning hands one over). With gradient and state zero, momentum,
    Adam's moments and weight decay all move a masked weight by nothing; it is zeroed after the step all the same, for
    optimizers that do otherwise. The model has no hook and no parametrization: its ``state_dict``, ``pickle`` and
    ``torch.compile`` see plain parameters.

    Args:
        optimizer: Any ``torch.optim.Optimizer``.
        on_gradient: Called before gradients are masked.
        after_step: Called before weights are masked.
        before_forward: Called after weights are masked.

    Attributes:
        steps: Steps of the optimizer seen.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        on_gradient: Callable[[], None],
        after_step: Callable[[], None],
        before_forward: Callable[[], None],
    ) -> None:
        self.steps = 0
        self._optimizer = optimizer
        self._on_gradient = on_gradient
        self._after_step = after_step
        self._before_forward = before_forward
        self._held: list[tuple[nn.Parameter, Tensor]] = []
        self._handles = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]

    def release(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def set_masks(self, parameters: Mapping[str, nn.Parameter], kept: Mapping[str, Tensor]) -> None:
        """Zero weights, gradients and optimizer state outside the masks, now and from now on.

        Args:
            parameters: Parameter name to parameter.
            kept: Parameter name to its kept entries, bool, same shape and device.
        """
        self._held = [(parameters[name], mask.to(parameters[name].dtype)) for name, mask in kept.items()]
        with torch.no_grad():
            for name, mask in kept.items():
                weight = parameters[name]
                weight.masked_fill_(~mask, 0.0)
                if weight.grad is not None:
                    weight.grad.masked_fill_(~mask, 0.0)
                for value in self._optimizer.state.get(weight, {}).values():
                    if isinstance(value, Tensor) and value.shape == weight.shape:
                        value.masked_fill_(~mask.to(value.device), 0.0)

    def _before(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._mask_gradients()
            return None

        def closure_then_masks() -> Any:
            loss = closure()
            self._mask_gradients()
            return loss

        if "closure" in kwargs:
            return args, {**kwargs, "closure": closure_then_masks}
        return (args[0], closure_then_masks, *args[2:]), kwargs

    def _mask_gradients(self) -> None:
        with torch.no_grad():
            self._on_gradient()
            for weight, mask in self._held:
                if weight.grad is not None:
                    weight.grad.mul_(mask)

    def _after(self, *_: Any) -> None:
        self.steps += 1
        with torch.no_grad():
            self._after_step()
            for weight, mask in self._held:
                weight.mul_(mask)
            self._before_forward()
