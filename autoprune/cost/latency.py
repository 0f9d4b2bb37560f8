"""Latency as a paired measurement: dense and candidate run interleaved, and the ratio is what is trusted.

On a shared machine the milliseconds of one network vary by 17-36 % and the ratio of two separate runs by 11-49 %; the
median of interleaved pair ratios varies by 1-2 % (duet benchmarking, arXiv 2001.05811, and our own measurements).
Blocks run A B B A, so that a machine that gets slower or faster meanwhile favours neither.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from autoprune.errors import MeterError
from autoprune.registry import Registry
from autoprune.spec.record import LatencyRecord
from autoprune.spec.study import LatencySpec

Side = Literal["dense", "candidate"]

MIN_PAIRS = 8  # fewer give no interval worth the name
_RESAMPLES = 1000
_SAMPLE_NS = 1_500_000  # a sample this long drowns the timer (tens of ns) and the call of a Python loop
_WARMUP_SHARE = 0.2  # of the budget
_STEADY = 0.97  # rounds that are less than 3 % quicker than those before them are steady


@dataclass(frozen=True)
class ModelInputs:
    """How a model is called.

    Attributes:
        args: Positional arguments.
        kwargs: Keyword arguments.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PairedLatency:
    """One paired measurement.

    Attributes:
        ratio: Median of the pair ratios candidate / dense.
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end.
        dense_ms: Median of the dense samples.
        candidate_ms: Median of the candidate's samples.
        candidate_p90_ms: Their 90th percentile.
        pairs: Number of pairs.
        converged: Whether the interval became as narrow as asked before the budget was spent.
        meter: What measured it, and how.
        samples_s: (dense, candidate) of each pair, seconds for one run: what :class:`RecordedMeter` replays.
    """

    ratio: float
    low: float
    high: float
    dense_ms: float
    candidate_ms: float
    candidate_p90_ms: float
    pairs: int
    converged: bool
    meter: str
    samples_s: tuple[tuple[float, float], ...] = field(default=(), repr=False)

    def to_record(self, reference_dense_ms: float) -> LatencyRecord:
        """Return the record of a trial.

        Args:
            reference_dense_ms: Dense latency of the study; times the ratio it is comparable over all trials.
        """
        return LatencyRecord(
            ms=self.ratio * reference_dense_ms,
            ratio=self.ratio,
            ratio_low=self.low,
            ratio_high=self.high,
            candidate_ms=self.candidate_ms,
            candidate_p90_ms=self.candidate_p90_ms,
            dense_ms=self.dense_ms,
            pairs=self.pairs,
            converged=self.converged,
            meter=self.meter,
        )


class Meter(Protocol):
    """What measures latency. Built by a factory of :data:`RUNTIMES` from the study's ``latency`` section."""

    def measure_pair(self, dense: nn.Module, candidate: nn.Module, inputs: ModelInputs) -> PairedLatency:
        """Measure ``candidate`` against ``dense``; both are left as they were.

        Raises:
            MeterError: The measurement gave no usable number.
        """
        ...


MeterFactory = Callable[[LatencySpec], Meter]
RUNTIMES: Registry[MeterFactory] = Registry("runtime", "autoprune.runtimes")


@dataclass(frozen=True)
class TorchMeter:
    """Eager torch, in eval and inference mode, on the device where the models are.

    Attributes:
        spec: Batch, threads, wanted half-width, budget.
        seed: Of the bootstrap.
    """

    spec: LatencySpec
    seed: int = 0

    def measure_pair(self, dense: nn.Module, candidate: nn.Module, inputs: ModelInputs) -> PairedLatency:
        """Measure ``candidate`` against ``dense``; training flags, threads and the garbage collector are put back.

        Raises:
            MeterError: A sample is not a positive number, or the inputs hold an empty tensor.
        """
        start = time.perf_counter()
        call = rebatch(inputs.args, inputs.kwargs, self.spec.batch)
        models: Mapping[Side, nn.Module] = {"dense": dense, "candidate": candidate}
        synchronise = _synchroniser(dense, candidate)

        def run(side: Side, repeats: int) -> float:
            model, args, kwargs = models[side], call.args, call.kwargs
            synchronise()
            begin = time.perf_counter_ns()
            for _ in range(repeats):
                model(*args, **kwargs)
            synchronise()
            return (time.perf_counter_ns() - begin) / repeats * 1e-9

        with _quiet(dense, candidate, self.spec.threads):
            once = warm_up(run, lambda: time.perf_counter() - start, _WARMUP_SHARE * self.spec.budget_s)
            # Each side repeats until its own sample is long enough: the quicker one would drown in the timer otherwise.
            repeats = {side: max(1, round(_SAMPLE_NS * 1e-9 / once[side] + 0.5)) for side in models}
            return measure_blocks(
                lambda side: run(side, repeats[side]),
                lambda: time.perf_counter() - start,
                self.spec,
                self._description(dense, call),
                self.seed,
            )

    def _description(self, model: nn.Module, call: ModelInputs) -> str:
        tensors = [t for t in (*model.parameters(), *tree_leaves((call.args, call.kwargs))) if isinstance(t, Tensor)]
        dtype = next((str(t.dtype).removeprefix("torch.") for t in tensors if t.is_floating_point()), "integer")
        device = next((f", {t.device}" for t in tensors if t.device.type != "cpu"), "")
        threads = f"{self.spec.threads} thread{'s' * (self.spec.threads != 1)}"
        version = torch.__version__.partition("+")[0]
        return f"measured: torch {version} eager{device}, {threads}, batch {self.spec.batch}, {dtype}, A B B A"


RUNTIMES.add("torch", TorchMeter)


@dataclass(frozen=True)
class RecordedMeter:
    """Replays recorded samples through the same loop: algorithms are tested in milliseconds, without a device.

    Attributes:
        samples_s: (dense, candidate) of each pair, seconds; the measurement ends where they do.
        spec: Half-width and budget; the clock is the sum of the samples played.
        seed: Of the bootstrap.
    """

    samples_s: Sequence[tuple[float, float]]
    spec: LatencySpec = field(default_factory=LatencySpec)
    seed: int = 0

    def measure_pair(self, dense: nn.Module, candidate: nn.Module, inputs: ModelInputs) -> PairedLatency:
        """Replay; the models and inputs are not looked at.

        Raises:
            MeterError: Fewer than two pairs were recorded, or one is not a positive number.
        """
        if len(self.samples_s) < 2:
            raise MeterError(f"a recording needs at least 2 pairs and has {len(self.samples_s)}; record more")
        played: dict[Side, int] = {"dense": 0, "candidate": 0}
        clock = 0.0

        def sample(side: Side) -> float:
            nonlocal clock
            seconds = self.samples_s[played[side]][side == "candidate"]
            played[side] += 1
            clock += seconds
            return seconds

        def elapsed() -> float:
            return clock if played["dense"] + 2 <= len(self.samples_s) else float("inf")

        return measure_blocks(sample, elapsed, self.spec, "recorded: A B B A", self.seed)


def measure_blocks(
    sample: Callable[[Side], float], elapsed: Callable[[], float], spec: LatencySpec, meter: str, seed: int = 0
) -> PairedLatency:
    """Run A B B A blocks until the interval of the ratio is narrow enough or the budget is spent.

    Args:
        sample: Seconds of one run of a side.
        elapsed: Seconds since the measurement began, warm-up included.
        spec: ``half_width``, relative to the ratio, and ``budget_s``. At least one block runs.
        meter: Description for the result.
        seed: Of the bootstrap.

    Raises:
        MeterError: A sample is not a positive, finite number.
    """
    pairs: list[tuple[float, float]] = []
    check_at, converged = MIN_PAIRS, False
    ratio = low = high = float("nan")
    while not converged:
        first = sample("dense"), sample("candidate")
        second = sample("candidate"), sample("dense")
        pairs += [first, (second[1], second[0])]
        for seconds in (*first, *second):
            if not (isfinite(seconds) and seconds > 0):
                raise MeterError(
                    f"a latency sample is {seconds!r} s where a positive number is needed ({meter}); measure again"
                )
        spent = elapsed() >= spec.budget_s
        # Checked at growing counts only: to look at the interval costs time, and to stop at the first lucky one biases.
        if spent or len(pairs) >= check_at:
            ratio, low, high = ratio_interval(pairs, seed)
            converged = len(pairs) >= MIN_PAIRS and (high - low) / 2 <= spec.half_width * ratio
            check_at = len(pairs) * 3 // 2
        if spent:
            break
    times = np.asarray(pairs) * 1e3
    return PairedLatency(
        ratio=ratio,
        low=low,
        high=high,
        dense_ms=float(np.median(times[:, 0])),
        candidate_ms=float(np.median(times[:, 1])),
        candidate_p90_ms=float(np.percentile(times[:, 1], 90)),
        pairs=len(pairs),
        converged=converged,
        meter=meter,
        samples_s=tuple(pairs),
    )


def ratio_interval(pairs: Sequence[tuple[float, float]], seed: int = 0) -> tuple[float, float, float]:
    """Return the median of the ratios candidate / dense and its 95 % percentile-bootstrap interval.

    Args:
        pairs: (dense, candidate) times in any unit. Below 8 pairs the interval is their whole range.
        seed: Of the resampling.
    """
    times = np.asarray(pairs, dtype=np.float64)
    ratios = times[:, 1] / times[:, 0]
    if len(ratios) < MIN_PAIRS:
        return float(np.median(ratios)), float(ratios.min()), float(ratios.max())
    picks = np.random.default_rng(seed).integers(len(ratios), size=(_RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(ratios[picks], axis=1), [2.5, 97.5])
    return float(np.median(ratios)), float(low), float(high)


def warm_up(run: Callable[[Side, int], float], elapsed: Callable[[], float], budget_s: float) -> Mapping[Side, float]:
    """Alternate both sides until they no longer get quicker, and return the seconds of one run of each.

    Steady is: the median of the last three rounds is within 3 % of that of the three before.
    """
    rounds: list[tuple[float, float]] = []
    while True:
        rounds.append((run("dense", 1), run("candidate", 1)))
        if len(rounds) >= 6:
            before, after = np.median(rounds[-6:-3], axis=0), np.median(rounds[-3:], axis=0)
            if bool((after >= _STEADY * before).all()):
                break
        if elapsed() >= budget_s:
            break
    dense, candidate = np.median(rounds[-3:], axis=0)
    return {"dense": float(dense), "candidate": float(candidate)}


def rebatch(args: tuple[Any, ...], kwargs: Mapping[str, Any], batch: int) -> ModelInputs:
    """Repeat or cut dimension 0 of every tensor to ``batch``; numbers and 0-dimensional tensors stay.

    Raises:
        MeterError: A tensor has no sample to repeat.
    """

    def resize(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or leaf.dim() == 0 or leaf.shape[0] == batch:
            return leaf
        if leaf.shape[0] == 0:
            raise MeterError(
                f"an example input of shape {tuple(leaf.shape)} holds no sample to repeat; give at least one"
            )
        return leaf[torch.arange(batch, device=leaf.device) % leaf.shape[0]]

    return ModelInputs(tree_map(resize, args), tree_map(resize, dict(kwargs)))


@contextmanager
def _quiet(dense: nn.Module, candidate: nn.Module, threads: int) -> Iterator[None]:
    flags = [(module, module.training) for model in (dense, candidate) for module in model.modules()]
    threads_before, collecting = torch.get_num_threads(), gc.isenabled()
    try:
        dense.eval()
        candidate.eval()
        torch.set_num_threads(threads)
        gc.disable()  # no collection first: disabled, none can fall into a sample
        with torch.inference_mode():
            yield
    finally:
        if collecting:
            gc.enable()
        torch.set_num_threads(threads_before)
        for module, training in flags:
            module.training = training


def _synchroniser(*models: nn.Module) -> Callable[[], None]:
    if any(parameter.is_cuda for model in models for parameter in model.parameters()):
        return torch.cuda.synchronize
    return lambda: None
