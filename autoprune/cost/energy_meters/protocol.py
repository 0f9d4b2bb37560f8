"""What an energy meter is, and where those of this machine are found."""

from __future__ import annotations

from typing import ClassVar, Protocol

from autoprune.errors import UsageError
from autoprune.registry import Registry


class EnergyMeter(Protocol):
    """A counter of energy that runs on: what a device has drawn, all of it, not one process's share.

    A class of :data:`ENERGY_METERS` is built without arguments and raises ``UsageError`` where it has no counter.

    Attributes:
        covers: The part of a machine that it counts: "cpu" or "gpu".
        window_s: Shortest window whose difference means something, about a hundred updates of the counter.
    """

    covers: ClassVar[str]
    window_s: ClassVar[float]

    @classmethod
    def missing(cls) -> str:
        """Return why it cannot read here and what to do, in a sentence; empty where it can."""
        ...

    @property
    def name(self) -> str:
        """What is counted: "RAPL package-0, dram"."""
        ...

    def read_j(self) -> float:
        """Return the joules since it was built; it never falls, however often the counter behind it wraps.

        Raises:
            MeterError: The counter can no longer be read.
        """
        ...


MOST_UNASKED_S = 1.0
"""Longest window that a trial waits for unless its study names the meter; a trial has four."""

ENERGY_METERS: Registry[type[EnergyMeter]] = Registry("energy meter", "autoprune.energy_meters")


def find_energy_meter(name: str | None, covers: str) -> EnergyMeter | None:
    """Return the energy meter of this machine, or None where there is none.

    Args:
        name: Registry key, "none", or None for the first one that can read within a few seconds: a slow counter has to
            be asked for.
        covers: "cpu" or "gpu": what the study's device is.

    Raises:
        UnknownNameError: No such meter.
        UsageError: The meter that was named cannot read here, or counts something else.
    """
    if name == "none":
        return None
    if name is not None:
        kind = ENERGY_METERS.get(name)
        if lacking := kind.missing():
            raise UsageError(lacking)
        if kind.covers != covers:
            raise UsageError(
                f"latency.energy_meter {name!r} counts the {kind.covers}, and this study measures on the {covers}; "
                "leave it out"
            )
        return kind()
    ready = (
        kind
        for _, kind in ENERGY_METERS
        if kind.covers == covers and kind.window_s <= MOST_UNASKED_S and not kind.missing()
    )
    return next((kind() for kind in ready), None)
