"""Movement pruning: what moves towards zero goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from autoprune.training.methods.method import METHODS, Method, Training
from autoprune.training.methods.ranked import Ranked, state_of


@METHODS.register("movement")
class MovementPruning(Method):
    """Scores S = - sum over steps of learning rate * dL/dW * W; the lowest go (Sanh et al. 2020, arXiv 2005.07683).

    As in the paper's hard movement pruning the gradient passes a mask straight through: the score of a masked weight
    goes on being learned with the value that it had, and with a score that rises it comes back with that value. The
    config's granularities hold, its criteria do not. Meant for fine-tuning a trained network, with a schedule that
    begins after some steps: before the first step every score is zero.
    """

    key: ClassVar[str] = "movement"
    summary: ClassVar[str] = "-sum of lr * dL/dw * w; Sanh 2020 (arXiv 2005.07683)"
    removes_at_once: ClassVar[bool] = False

    def start(self, training: Training) -> None:
        """Begin with scores of zero."""
        self._names = training.pruned_weights()
        self._scores: dict[str, Tensor] = {}
        self._values: dict[str, Tensor] = {}
        for name in self._names:
            self._scores[name] = torch.zeros_like(training.parameters[name])
            self._values[name] = training.parameters[name].detach().clone()

    def on_gradient(self, training: Training) -> None:
        """Let every weight's movement count."""
        for name in self._names:
            weight = training.parameters[name]
            if weight.grad is not None:
                value = self._value(name, training)
                self._scores[name].addcmul_(weight.grad, value, value=-training.learning_rate(name))

    def scores(self, training: Training) -> Ranked:
        """Return the movement of every unit."""
        return Ranked(training.units, tuple(units.sums(self._scores, units.weights()) for units in training.units))

    def settle(self, training: Training) -> None:
        """Remember the weights that are there before masks change."""
        for name in self._names:
            self._values[name] = self._value(name, training).detach().clone()

    def after_update(self, training: Training) -> None:
        """Give weights that came back the value that they had."""
        for name in self._names:
            kept = training.kept.get(name)
            value = self._values[name]
            training.parameters[name].copy_(value if kept is None else value * kept)

    def _value(self, name: str, training: Training) -> Tensor:
        kept = training.kept.get(name)
        weight = training.parameters[name].detach()
        return weight if kept is None else torch.where(kept, weight, self._values[name])

    def state_dict(self) -> dict[str, Any]:
        """Return scores and remembered values."""
        return {"scores": state_of(self._scores), "values": state_of(self._values)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from scores and remembered values."""
        for mine, saved in ((self._scores, state["scores"]), (self._values, state["values"])):
            for name, value in saved.items():
                mine[name].copy_(value)
