"""Methods that train under noise on the weights: between two steps the model holds noisy weights.

The weights themselves are kept here. Before a step of the optimizer they are put back, with the gradient that passed
through the noise; after it new noise is put in place for the next forward pass. With gradient accumulation all batches
of one step see the same noise. Every process of a data-parallel training draws the same.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from autoprune.training.methods.method import Method, Training
from autoprune.training.methods.ranked import Ranked, state_of


class NoisyWeights(Method):
    """What L0 gates and variational dropout share.

    A subclass has one learned tensor per entry of the config (``_make``), says what noise does to the weights
    (``_noisy``), what the gradients are (``_backward``) and what ranks units (``scores``). The learned tensors have an
    Adam of their own with the rate ``rate``.
    """

    removes_at_once: ClassVar[bool] = False
    noisy: ClassVar[bool] = True
    rate: float

    def start(self, training: Training) -> None:
        """Make the learned tensors; the weights are noisy from the next forward pass on."""
        self._names = tuple(dict.fromkeys(name for units in training.units for name in self._touched(units, training)))
        self._learned = tuple(self._make(units, training) for units in training.units)
        self._adam = torch.optim.Adam(self._learned, lr=self.rate)
        self._generator = torch.Generator().manual_seed(training.config.seed)
        self._weights = {name: training.parameters[name].detach().clone() for name in self._names}
        self._noise: tuple[Tensor, ...] = tuple(torch.zeros_like(each) for each in self._learned)
        self._is_noisy, self._is_stale = False, True

    def on_gradient(self, training: Training) -> None:
        """Turn gradients at the noisy weights into gradients of weights and learned tensors; settle."""
        noisy = self._is_noisy
        self._put_back(training)
        if noisy and any(training.parameters[name].grad is not None for name in self._names):
            self._backward(training)
            self._adam.step()

    def settle(self, training: Training) -> None:
        """Put back the weights, as they are evaluated."""
        self._put_back(training)
        for name, value in self._evaluated(training).items():
            training.parameters[name].copy_(value)

    def before_forward(self, training: Training) -> None:
        """Put noise in place: new noise after a step, the same again after a look at the settled weights."""
        if self._is_stale:
            self._noise = tuple(self._draw(each) for each in self._learned)
            self._is_stale = False
        self._put_noise(training)

    def after_step(self, training: Training) -> None:
        """Remember the weights that the optimizer has made."""
        for name in self._names:
            self._weights[name].copy_(training.parameters[name])
        self._is_stale = True

    def after_update(self, training: Training) -> None:
        """Forget what is masked."""
        for name, kept in training.kept.items():
            if name in self._weights:
                self._weights[name].mul_(kept)
                training.parameters[name].copy_(self._weights[name])

    def _put_back(self, training: Training) -> None:
        for name in self._names:
            training.parameters[name].copy_(self._weights[name])
        self._is_noisy = False

    def _put_noise(self, training: Training) -> None:
        for name, value in self._noisy(training).items():
            kept = training.kept.get(name)
            training.parameters[name].copy_(value if kept is None else value * kept)
        self._is_noisy = True

    def _draw(self, like: Tensor) -> Tensor:
        uniform = torch.rand(like.shape, generator=self._generator)
        return uniform.clamp(1e-6, 1 - 1e-6).to(like.device)

    def state_dict(self) -> dict[str, Any]:
        """Return weights, learned tensors, their optimizer, the noise in place and the generator."""
        return {
            "weights": state_of(self._weights),
            "learned": state_of(self._learned),
            "noise": state_of(self._noise),
            "adam": self._adam.state_dict(),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`, with the same noise in place."""
        with torch.no_grad():
            for name, value in state["weights"].items():
                self._weights[name].copy_(value)
            for i, each in enumerate(self._learned):
                each.copy_(state["learned"][str(i)])
        self._noise = tuple(state["noise"][str(i)].to(each.device) for i, each in enumerate(self._learned))
        self._adam.load_state_dict(state["adam"])
        self._generator.set_state(state["generator"].cpu())
        self._is_noisy = self._is_stale = False

    @abstractmethod
    def _touched(self, units: Any, training: Training) -> tuple[str, ...]: ...

    @abstractmethod
    def _make(self, units: Any, training: Training) -> Tensor: ...

    @abstractmethod
    def _noisy(self, training: Training) -> dict[str, Tensor]: ...

    @abstractmethod
    def _evaluated(self, training: Training) -> dict[str, Tensor]: ...

    @abstractmethod
    def _backward(self, training: Training) -> None: ...

    @abstractmethod
    def scores(self, training: Training) -> Ranked:
        """Return what ranks units."""
