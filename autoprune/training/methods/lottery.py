"""Lottery tickets: prune, rewind, train again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from autoprune.errors import UsageError
from autoprune.training.methods.method import METHODS, Method, Training
from autoprune.training.methods.ranked import state_of


@METHODS.register("lottery")
@dataclass
class LotteryTicket(Method):
    """After every change of masks what is left goes back to its values of an early step (Frankle & Carbin 2019,
    arXiv 1803.03635; rewinding to a step after the first: Frankle et al. 2020, arXiv 1912.05671).

    All parameters and buffers are rewound and the optimizer's state is dropped; the learning rate is yours, and should
    start again too. The schedule's distance is the length of one training: ``IterativeSchedule(begin=n, end=5 * n,
    rounds=5)``, then n more steps. The config's criteria choose; with magnitudes it is the published method.

    Attributes:
        rewind_to: Step to which it goes back; 0 is the initialisation.

    Raises:
        UsageError: ``rewind_to`` is negative, or not before the schedule's first change.
    """  # noqa: D205

    rewind_to: int = 0
    key: ClassVar[str] = "lottery"
    summary: ClassVar[str] = "rewind what is left to an early step; Frankle & Carbin 2019 (arXiv 1803.03635)"
    removes_at_once: ClassVar[bool] = False
    _early: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if type(self.rewind_to) is not int or self.rewind_to < 0:
            raise UsageError(f"rewind_to is a whole number of at least 0, not {self.rewind_to!r}")

    def start(self, training: Training) -> None:
        """Keep the first values."""
        if training.schedule.begin <= self.rewind_to:
            raise UsageError(
                f"method 'lottery' rewinds to step {self.rewind_to}, and masks change at step "
                f"{training.schedule.begin} already; begin later"
            )
        if self.rewind_to == 0:
            self._early = state_of(training.model.state_dict())

    def after_step(self, training: Training) -> None:
        """Keep the values of the early step."""
        # The sparsifier counts a step of the optimizer after its end. Nothing is masked so early.
        if self.rewind_to and not self._early and training.step + 1 == self.rewind_to:
            self._early = state_of(training.model.state_dict())

    def after_update(self, training: Training) -> None:
        """Go back."""
        stored = training.model.state_dict()
        for name, value in self._early.items():
            kept = training.kept.get(name)
            stored[name].copy_(value)
            if kept is not None:
                stored[name].mul_(kept)
        training.optimizer.state.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return the early values."""
        return {"early": state_of(self._early)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the early values."""
        self._early = {name: value.clone() for name, value in state["early"].items()}
