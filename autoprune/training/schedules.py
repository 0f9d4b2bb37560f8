"""Schedules: at which steps masks change, and how sparse the network is by then.

A step is a step of the optimizer, counted from 1; step 0 is before training. The final sparsity of every layer is the
config's; a schedule says how much of it is reached when.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from autoprune.errors import UsageError
from autoprune.registry import Registry


@runtime_checkable
class Schedule(Protocol):
    """When masks change, and to which sparsity."""

    @property
    def summary(self) -> str:
        """Formula and source in one line, for ``autoprune list``; of the class."""
        ...

    @property
    def begin(self) -> int:
        """First step at which masks change; 0 is before training."""
        ...

    @property
    def end(self) -> int:
        """Last step at which masks change: the config's sparsity is reached."""
        ...

    def due(self, step: int) -> bool:
        """Whether masks change after so many optimizer steps; never after ``end``."""
        ...

    def sparsity(self, step: int, final: float) -> float:
        """Return the sparsity wanted after so many steps, 0 before ``begin`` and ``final`` from ``end`` on.

        Args:
            step: Optimizer steps done.
            final: What the config asks of a layer or group.
        """
        ...


SCHEDULES: Registry[Any] = Registry("schedule", "autoprune.schedules")


@dataclass(frozen=True)
class Ramp:
    """A sparsity that rises from ``initial`` to the config's between two steps: what all built-in ramps share.

    Attributes:
        begin: First step at which masks change; 0 is before training.
        end: Last step at which masks change: the config's sparsity is reached.
        every: Steps between two changes.
        initial: Sparsity at ``begin``, in every layer whose final sparsity is not lower.

    Raises:
        UsageError: It ends before it begins, or a number is out of range.
    """

    begin: int = 0
    end: int = 1000
    every: int = 100
    initial: float = 0.0
    summary: ClassVar[str]

    def __post_init__(self) -> None:
        for name, least in (("begin", 0), ("end", 0), ("every", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise UsageError(f"a schedule's {name} is a whole number of at least {least}, not {value!r}")
        if self.end <= self.begin:
            raise UsageError(
                f"the schedule ends at step {self.end}, which is not after its begin at step {self.begin}; "
                "give an end after begin, or OneShotSchedule"
            )
        if not 0 <= self.initial < 1:
            raise UsageError(f"a schedule's initial sparsity is at least 0 and below 1, not {self.initial!r}")

    def due(self, step: int) -> bool:
        """Whether masks change after so many optimizer steps."""
        return self.begin <= step <= self.end and ((step - self.begin) % self.every == 0 or step == self.end)

    def sparsity(self, step: int, final: float) -> float:
        """Return the sparsity wanted after so many steps."""
        if step < self.begin:
            return 0.0
        if step >= self.end:
            return final
        done = (step - self.begin) / (self.end - self.begin)
        return self._between(done, min(self.initial, final), final)

    def _between(self, done: float, initial: float, final: float) -> float:
        raise TypeError(f"{type(self).__name__} gives no formula")


@dataclass(frozen=True)
class PolynomialSchedule(Ramp):
    """Sparsity s_f + (s_i - s_f) (1 - t)^power with t from 0 to 1 (Zhu & Gupta 2017, arXiv 1710.01878, for power 3).

    Attributes:
        power: Of the ramp; 1 is linear, 3 prunes early, while the network can recover.
    """

    power: float = 3.0
    summary: ClassVar[str] = "s_f + (s_i - s_f)(1 - t)^power; Zhu & Gupta 2017 (arXiv 1710.01878)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.power > 0:
            raise UsageError(f"the power of a polynomial schedule is above 0, not {self.power!r}")

    def _between(self, done: float, initial: float, final: float) -> float:
        return final + (initial - final) * float((1 - done) ** self.power)


@dataclass(frozen=True)
class CubicSchedule(Ramp):
    """Sparsity s_f + (s_i - s_f) (1 - t)^3 (Zhu & Gupta 2017, arXiv 1710.01878): the usual choice.

    The recipe that goes with it: one learning-rate decay over the whole training (cosine to zero, or steps), masks
    that change between about 10 % and 75 % of the steps, so that pruning happens while the learning rate is high
    enough to recover and the last quarter trains the final network. In steps: ``begin=total // 10``,
    ``end=3 * total // 4``, ``every=max(1, total // 100)``.
    """

    summary: ClassVar[str] = "s_f + (s_i - s_f)(1 - t)^3; Zhu & Gupta 2017 (arXiv 1710.01878)"

    def _between(self, done: float, initial: float, final: float) -> float:
        return final + (initial - final) * (1 - done) ** 3


@dataclass(frozen=True)
class ExponentialSchedule(Ramp):
    """Density falls by the same factor at every change: 1 - s = (1 - s_i)^(1 - t) (1 - s_f)^t.

    What iterative magnitude pruning does that removes a fixed share of what is left (Frankle & Carbin 2019,
    arXiv 1803.03635).
    """

    summary: ClassVar[str] = "density (1 - s_i)^(1 - t) (1 - s_f)^t; Frankle & Carbin 2019 (arXiv 1803.03635)"

    def _between(self, done: float, initial: float, final: float) -> float:
        return float(1 - (1 - initial) ** (1 - done) * (1 - final) ** done)


@dataclass(frozen=True)
class OneCycleSchedule(Ramp):
    """A sigmoid: slow, fast, slow (Hubens et al. 2021, arXiv 2107.02086, with their alpha = 14 and beta = 5)."""

    summary: ClassVar[str] = "s_i + (s_f - s_i)(1 + e^(b-a)) / (1 + e^(b-at)); Hubens 2021 (arXiv 2107.02086)"

    def _between(self, done: float, initial: float, final: float) -> float:
        alpha, beta = 14.0, 5.0
        return initial + (final - initial) * (1 + math.exp(beta - alpha)) / (1 + math.exp(beta - alpha * done))


@dataclass(frozen=True)
class IterativeSchedule:
    """Equal portions with training between them (Han et al. 2015, arXiv 1506.02626).

    Attributes:
        begin: Step of the first portion; 0 is before training.
        end: Step of the last one.
        rounds: Portions: after round r the sparsity is r / rounds of the config's.

    Raises:
        UsageError: It ends before it begins, or has fewer than two rounds, or more rounds than steps.
    """

    begin: int = 0
    end: int = 1000
    rounds: int = 5
    summary: ClassVar[str] = "equal portions at equal distances; Han 2015 (arXiv 1506.02626)"

    def __post_init__(self) -> None:
        Ramp(self.begin, self.end)
        if type(self.rounds) is not int or not 2 <= self.rounds <= self.end - self.begin + 1:
            raise UsageError(
                f"an iterative schedule has at least 2 rounds and at most one a step from {self.begin} to {self.end}, "
                f"not {self.rounds!r}"
            )

    def due(self, step: int) -> bool:
        """Whether masks change after so many optimizer steps."""
        return self.begin <= step <= self.end and self._round(step) > self._round(step - 1)

    def sparsity(self, step: int, final: float) -> float:
        """Return the sparsity wanted after so many steps."""
        return final if step >= self.end else final * self._round(step) / self.rounds

    def _round(self, step: int) -> int:
        if step < self.begin:
            return 0
        return min(1 + (step - self.begin) * (self.rounds - 1) // (self.end - self.begin), self.rounds)


@dataclass(frozen=True)
class OneShotSchedule:
    """The whole sparsity at once.

    Attributes:
        at: Step at which; 0 is before training.
    """

    at: int = 0
    summary: ClassVar[str] = "all at one step"

    def __post_init__(self) -> None:
        if type(self.at) is not int or self.at < 0:
            raise UsageError(f"a schedule's step is a whole number of at least 0, not {self.at!r}")

    @property
    def begin(self) -> int:
        """The step."""
        return self.at

    @property
    def end(self) -> int:
        """The step."""
        return self.at

    def due(self, step: int) -> bool:
        """Whether masks change after so many optimizer steps."""
        return step == self.at

    def sparsity(self, step: int, final: float) -> float:
        """Return the sparsity wanted after so many steps."""
        return final if step >= self.at else 0.0


@dataclass(frozen=True)
class ConstantSchedule(Ramp):
    """The whole sparsity from ``begin`` on, and masks that may move every so many steps until ``end``.

    What dynamic sparse training asks for (RigL, SET); with other methods it scores what is left again.
    """

    summary: ClassVar[str] = "all from the begin, masks may move until the end; Evci 2020 (arXiv 1911.11134)"

    def _between(self, done: float, initial: float, final: float) -> float:
        return final


_BUILT_IN: dict[str, Any] = {
    "one_shot": OneShotSchedule,
    "iterative": IterativeSchedule,
    "polynomial": PolynomialSchedule,
    "cubic": CubicSchedule,
    "exponential": ExponentialSchedule,
    "one_cycle": OneCycleSchedule,
    "constant": ConstantSchedule,
}
for _key, _kind in _BUILT_IN.items():
    SCHEDULES.add(_key, _kind)
