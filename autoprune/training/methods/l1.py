"""L1: single weights become zero by themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from autoprune.errors import UsageError
from autoprune.training.methods.method import METHODS, Method, Training
from autoprune.training.methods.proximal import soft_threshold


@METHODS.register("l1")
@dataclass
class L1(Method):
    """The loss gets ``strength`` times the sum of |w| over all weights that the config prunes (Tibshirani 1996).

    It is minimised by a proximal step after each step of the optimizer: every weight moves towards zero by learning
    rate times ``strength`` and stops there, so zeros are exact, and Adam's scaling leaves them alone. Zeros may come
    back until the schedule's masks make them final: :meth:`Sparsifier.report` tells both.

    Attributes:
        strength: Weight of the penalty beside the mean loss.

    Raises:
        UsageError: ``strength`` is not above 0.
    """

    strength: float = 1e-3
    key: ClassVar[str] = "l1"
    summary: ClassVar[str] = "proximal L1 on the weights, then the config's criteria; Tibshirani 1996"

    def __post_init__(self) -> None:
        check_strength(self.key, self.strength)

    def after_step(self, training: Training) -> None:
        """Move the weights towards zero."""
        for name in training.pruned_weights():
            soft_threshold(training.parameters[name], self.strength * training.learning_rate(name))


def check_strength(key: str, strength: float) -> None:
    """Check the weight of a penalty.

    Raises:
        UsageError: It is not above 0.
    """
    if not strength > 0:
        raise UsageError(f"the strength of method {key!r} is above 0, not {strength!r}; 'gradual' has no penalty")
