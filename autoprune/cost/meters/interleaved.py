"""A meter for everything that runs in this process: single runs of both sides alternate."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn
from torch.utils._pytree import tree_map

from autoprune.cost.energy_meters import EnergyMeter, measure_pair_energy
from autoprune.cost.meters.pace import Pace
from autoprune.cost.meters.protocol import ModelInputs, rebatch
from autoprune.cost.meters.result import PairedLatency, SingleLatency
from autoprune.cost.meters.settings import cast_model, check_affinity, dtype_of, measuring_conditions, sampling
from autoprune.cost.meters.turns import measure_alone, measure_turns
from autoprune.errors import MeterError, UsageError
from autoprune.graph.trace import describe
from autoprune.spec.record import LatencyConditions
from autoprune.spec.study import LatencySpec


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
            prepare_s = time.perf_counter() - begun
            about = self._description(first, dense, inputs)
            with sampling():
                found = measure_turns(first.run, second.run, self.spec, about, self.seed, kept.pace)
                drawn = None if self.energy is None else measure_pair_energy(self.energy, first.run, second.run)
        return replace(
            found,
            energy=drawn,
            prepare_s=prepare_s,
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
            prepare_s = time.perf_counter() - begun
            about = self._description(prepared, model, inputs)
            with sampling():
                found = measure_alone(prepared.run, self.spec, budget_s, about, self.seed)
        return replace(found, prepare_s=prepare_s)

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


def reference_key(model: nn.Module, inputs: ModelInputs) -> str:
    """Return what has changed where a reference has to be prepared anew: its shapes, or those of its inputs."""
    return str(tree_map(describe, (model.state_dict(), inputs.args, dict(inputs.kwargs))))
