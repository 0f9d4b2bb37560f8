"""A meter for everything that runs in this process: single runs of both sides alternate."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn
from torch.utils._pytree import tree_map

from autoprune.cost.energy_meters import EnergyMeter, measure_pair_energy
from autoprune.cost.meters.interruption import Undisturbed, Waits
from autoprune.cost.meters.pace import Pace
from autoprune.cost.meters.pairing import Side, measure_blocks, measure_samples
from autoprune.cost.meters.protocol import ModelInputs, rebatch
from autoprune.cost.meters.result import PairedLatency, SingleLatency
from autoprune.cost.meters.settings import cast_model, check_affinity, dtype_of, measuring_conditions, sampling
from autoprune.cost.meters.warmup import SHARE, WarmUp, warm_up
from autoprune.errors import MeterError, UsageError
from autoprune.graph.trace import describe
from autoprune.spec.record import LatencyConditions
from autoprune.spec.study import LatencySpec

_SAMPLE_S = 1.5e-3  # a sample this long drowns the timer (tens of ns) and the call of a Python loop
_SOON_WARM_S = 20e-3  # a run this long hardly feels what the caches held when it began


@dataclass(frozen=True)
class Prepared:
    """A model that a runtime is ready to run.

    Attributes:
        run: Runs it so many times in a row and returns the mean seconds of one run.
        about: What runs it: "torch 2.13.0 eager".
    """

    run: Callable[[int], float]
    about: str


@dataclass(frozen=True)
class _Kept:
    """The reference's preparation, with what it was made of and how quick the machine was seen to run it."""

    model: nn.Module
    key: str
    prepared: Prepared
    pace: Pace


class OtherWayError(MeterError):
    """This way of preparing does not serve this model; the next of :attr:`InterleavedMeter.ways` may."""


class InterleavedMeter(ABC):
    """A meter whose runtime lives in this process. A runtime of one's own gives :meth:`prepare`, and no more.

    A runtime may know several ways to prepare a model (a quick export, a thorough one). Both sides of a pair go the
    same way: where one cannot, :class:`OtherWayError` makes both go the next, and it stays so for the study.

    Args:
        spec: Batch, threads, cores, type, wanted half-width, budget.
        seed: Of the bootstrap.

    Attributes:
        way: The way that both sides go now.
        energy: What counts energy after each pair was timed, in windows of its own; None where nothing does.

    Raises:
        UsageError: This machine lacks what the runtime or the study's ``latency`` section needs.
    """

    runtime: ClassVar[str]
    ways: ClassVar[tuple[str, ...]] = ("",)

    def __init__(self, spec: LatencySpec, seed: int = 0) -> None:
        if lacking := self.missing():
            raise UsageError(lacking)
        check_affinity(spec.affinity)
        self.spec = spec
        self.seed = seed
        self.way = self.ways[0]
        self.energy: EnergyMeter | None = None
        self._kept: _Kept | None = None

    @classmethod
    def missing(cls) -> str:
        """Return what this machine lacks and how to get it, in a sentence; empty where nothing is missing."""
        return ""

    @abstractmethod
    def prepare(self, model: nn.Module, inputs: ModelInputs) -> Prepared:
        """Return a model ready to run on these inputs, compiled or exported if that is what the runtime does.

        Threads and cores are set already. The model is in evaluation mode and must not be changed.

        Raises:
            OtherWayError: It cannot this way.
            MeterError: The runtime cannot run it.
        """

    def measure_pair(
        self, dense: nn.Module, candidate: nn.Module, inputs: ModelInputs, candidate_inputs: ModelInputs | None = None
    ) -> PairedLatency:
        """Measure ``candidate`` against ``dense``; training flags, threads, cores and the collector are put back.

        Raises:
            MeterError: The runtime cannot run a model, a sample is not a positive number, or an input tensor is empty.
        """
        try:
            return self._measure_pair(dense, candidate, inputs, candidate_inputs)
        except OtherWayError:
            if not self._next_way():
                raise
            return self.measure_pair(dense, candidate, inputs, candidate_inputs)

    def _measure_pair(
        self, dense: nn.Module, candidate: nn.Module, inputs: ModelInputs, candidate_inputs: ModelInputs | None
    ) -> PairedLatency:
        with measuring_conditions(self.spec, dense, candidate):
            begun = time.perf_counter()
            kept = self._prepare_reference(dense, inputs)
            first = kept.prepared
            same = candidate is dense and candidate_inputs is None
            second = first if same else self._prepare(candidate, candidate_inputs or inputs)
            start = time.perf_counter()
            runs: Mapping[Side, Callable[[int], float]] = {"dense": first.run, "candidate": second.run}
            with sampling():
                warm = self._warm_up((first.run, second.run), start, self.spec.budget_s)
                # Each side repeats until its own sample is long enough: the quicker one would drown in the timer.
                repeats = dict(zip(runs, map(sample_repeats, warm.seconds), strict=True))
                calm = self._undisturbed()
                found = measure_blocks(
                    _Warmed(runs, repeats, min(warm.seconds) < _SOON_WARM_S, calm).sample,
                    lambda: time.perf_counter() - start,
                    self.spec,
                    f"{self._description(first, dense, inputs)}, A B B A",
                    self.seed,
                    kept.pace if self.spec.longest_wait_s else None,
                )
                drawn = None if self.energy is None else measure_pair_energy(self.energy, first.run, second.run)
        return replace(
            found,
            energy=drawn,
            repeated=calm.repeated,
            warmup_rounds=warm.rounds,
            steady=warm.steady,
            prepare_s=start - begun,
            conditions=self._conditions(dense, inputs),
        )

    def measure(self, model: nn.Module, inputs: ModelInputs, budget_s: float = 0.2) -> SingleLatency:
        """Measure one model alone; see :meth:`autoprune.cost.meters.Meter.measure`.

        Raises:
            MeterError: As for :meth:`measure_pair`.
        """
        try:
            return self._measure(model, inputs, budget_s)
        except OtherWayError:
            if not self._next_way():
                raise
            return self.measure(model, inputs, budget_s)

    def _next_way(self) -> bool:
        """Go the next way from now on; the reference has to go it too. False where there is none."""
        place = self.ways.index(self.way) + 1
        if place == len(self.ways):
            return False
        self.way, self._kept = self.ways[place], None
        return True

    def _measure(self, model: nn.Module, inputs: ModelInputs, budget_s: float) -> SingleLatency:
        with measuring_conditions(self.spec, model):
            begun = time.perf_counter()
            prepared = self._prepare(model, inputs)
            start = time.perf_counter()
            with sampling():
                warm = self._warm_up((prepared.run,), start, budget_s)
                repeats = sample_repeats(warm.seconds[0])
                calm = self._undisturbed()
                found = measure_samples(
                    lambda: calm(lambda: prepared.run(repeats)),
                    lambda: time.perf_counter() - start,
                    self.spec.half_width,
                    budget_s,
                    self._description(prepared, model, inputs),
                    self.seed,
                )
        return replace(found, warmup_rounds=warm.rounds, prepare_s=start - begun)

    def _undisturbed(self) -> Undisturbed:
        return Undisturbed(Waits(self.spec.threads), self.spec.half_width)

    def _warm_up(self, runs: tuple[Callable[[int], float], ...], start: float, budget_s: float) -> WarmUp:
        return warm_up(lambda: tuple(run(1) for run in runs), lambda: time.perf_counter() - start, SHARE * budget_s)

    def _prepare(self, model: nn.Module, inputs: ModelInputs) -> Prepared:
        call = rebatch(inputs.args, inputs.kwargs, self.spec.batch)
        with torch.no_grad():
            return self.prepare(*cast_model(model, call, self.spec.dtype))

    def _prepare_reference(self, model: nn.Module, inputs: ModelInputs) -> _Kept:
        """Prepare the reference, or take what is kept of it: every trial of a study has the same one."""
        key = f"{self.way} {reference_key(model, inputs)}"
        if self._kept is None or self._kept.model is not model or self._kept.key != key:
            self._kept = None
            self._kept = _Kept(model, key, self._prepare(model, inputs), Pace())
        return self._kept

    def _conditions(self, model: nn.Module, inputs: ModelInputs) -> LatencyConditions:
        return LatencyConditions(
            runtime=self.runtime,
            batch=self.spec.batch,
            threads=self.spec.threads,
            dtype=self.spec.dtype or dtype_of(model, inputs),
            affinity=self.spec.affinity,
        )

    def _description(self, prepared: Prepared, model: nn.Module, inputs: ModelInputs) -> str:
        conditions = self._conditions(model, inputs)
        return f"measured: {prepared.about}, {conditions}"


class _Warmed:
    """Takes samples of networks in turns; a quick network runs untimed before what counts, for as long as that.

    Its first runs find in the caches what the other network left there, or another process: of a network of 0.35 ms the
    first took 14 % longer, and the next four 3, 2, 0.7 and 0.5 %. With them in a sample the ratio depends on how many
    runs make one; beside busy cores, where most samples are taken again and so find warm caches, it was 3 % lower.
    Where one run is a sample, it is made after a change of sides alone, for it takes as long as what counts.

    Args:
        runs: What runs each side.
        repeats: How many runs make a sample of each.
        quick: Whether they are quick enough for that.
        calm: What keeps other processes out of the samples.
    """

    def __init__(
        self,
        runs: Mapping[Side, Callable[[int], float]],
        repeats: Mapping[Side, int],
        quick: bool,
        calm: Undisturbed,
    ) -> None:
        self._runs, self._repeats, self._quick, self._calm = runs, repeats, quick, calm
        self._last: Side | None = None

    def sample(self, side: Side) -> float:
        """Return the mean seconds of the runs that make a sample of a side."""
        return self._calm(lambda: self._runs[side](self._repeats[side]), lambda: self._warm(side))

    def _warm(self, side: Side) -> bool:
        needed = self._quick and (self._repeats[side] > 1 or side != self._last)
        if needed:
            self._runs[side](self._repeats[side])
        self._last = side
        return needed


def sample_repeats(seconds: float) -> int:
    """Return how many runs of so many seconds make a sample long enough for the timer."""
    return max(1, round(_SAMPLE_S / seconds + 0.5)) if seconds > 0 else 1


def reference_key(model: nn.Module, inputs: ModelInputs) -> str:
    """Return what has changed where a reference has to be prepared anew: its shapes, or those of its inputs."""
    return str(tree_map(describe, (model.state_dict(), inputs.args, dict(inputs.kwargs))))
