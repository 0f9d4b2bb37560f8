"""Energy of one run, from windows that are long for the counter: A B B A, as with latency."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from autoprune.cost.energy_meters.protocol import EnergyMeter
from autoprune.errors import MeterError
from autoprune.spec.record import MeasuredEnergy

Clock = Callable[[], float]

_CHUNK_S = 0.1


@dataclass(frozen=True)
class Window:
    """What a device drew while it did one thing over and over.

    Attributes:
        joules: Of the whole device.
        seconds: How long.
        runs: How often the thing was done; 0 for an idle device.
    """

    joules: float
    seconds: float
    runs: int

    @property
    def watts(self) -> float:
        """Mean power."""
        return self.joules / self.seconds

    @property
    def joules_per_run(self) -> float:
        """Energy of one run, idle power included."""
        return self.joules / self.runs


def measure_window(
    meter: EnergyMeter, run: Callable[[int], float], seconds: float, clock: Clock = time.perf_counter
) -> Window:
    """Run something for so long and return what the device drew.

    Args:
        meter: The counter.
        run: Runs so many times in a row and returns the mean seconds of one run.
        seconds: At least; a counter whose updates are far apart needs many.
        clock: In seconds.

    Raises:
        MeterError: The counter did not move.
    """
    repeats = max(1, round(_CHUNK_S / max(run(1), 1e-9)))
    runs, before, begun = 0, meter.read_j(), clock()
    while clock() - begun < seconds:
        run(repeats)
        runs += repeats
        meter.read_j()  # often enough that a wrap is seen
    spent, joules = clock() - begun, meter.read_j() - before
    return _checked(Window(joules, spent, runs), meter)


def measure_idle(
    meter: EnergyMeter, seconds: float, sleep: Callable[[float], None] = time.sleep, clock: Clock = time.perf_counter
) -> Window:
    """Do nothing for so long and return what the device drew.

    Raises:
        MeterError: The counter did not move.
    """
    before, begun = meter.read_j(), clock()
    while clock() - begun < seconds:
        sleep(min(_CHUNK_S, seconds))
        meter.read_j()
    return _checked(Window(meter.read_j() - before, clock() - begun, 0), meter)


def measure_pair_energy(
    meter: EnergyMeter,
    dense: Callable[[int], float],
    candidate: Callable[[int], float],
    clock: Clock = time.perf_counter,
) -> MeasuredEnergy:
    """Return the energy of one run of each side, from four windows A B B A of the meter's own length.

    Raises:
        MeterError: The counter did not move.
    """
    first, second, third, fourth = (
        measure_window(meter, run, meter.window_s, clock) for run in (dense, candidate, candidate, dense)
    )

    def mean_mj(one: Window, other: Window) -> float:
        return 1e3 * (one.joules_per_run + other.joules_per_run) / 2

    return MeasuredEnergy(
        mj=mean_mj(second, third),
        dense_mj=mean_mj(first, fourth),
        window_s=second.seconds + third.seconds,
        meter=meter.name,
    )


def _checked(window: Window, meter: EnergyMeter) -> Window:
    if window.joules <= 0:
        raise MeterError(
            f"the energy counter {meter.name} did not move in {window.seconds:.3g} s; set latency.energy_meter: none"
        )
    return window
