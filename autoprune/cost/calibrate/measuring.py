"""What is timed on this machine: microbenchmarks that isolate one term each, and random layers that need them all.

Every case runs twice in each round, and what counts is a low quantile of the second runs: a machine that gets slower
meanwhile slows all cases alike, and what other processes take makes runs longer, never shorter (``reports/calibration``
compares it with the median, with and without load). In a network a layer finds its input and its code near, left there
by the layers before; a layer that runs alone among dozens of others does not, and took up to twice as long.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune.cost.calibrate.fitting import Samples
from autoprune.cost.extents import Floats
from autoprune.cost.meters.interruption import Waits
from autoprune.cost.roofline import Roofline
from autoprune.cost.table import table_of
from autoprune.cost.traffic import traffic_of
from autoprune.cost.workload import workload_of
from autoprune.errors import MeterError
from autoprune.spec.hardware import DeviceProfile, LayerKind

_GEMM = 768
_MIN_ROUNDS = 5
_MAX_ROUNDS = 400
_OVERDRAWN = 10.0
"""Times the budget that the least rounds may take: on a busy machine they are worth it."""
_MICRO_SHARE = 0.2
QUANTILE = 0.2
"""Of the repeats of a case."""
_MOST_WAITED = 0.02
_MOST_SPREAD = 0.25
"""Beyond these a machine is busy: a quiet one gives the core away for less than a hundredth of the time."""
_KINDS: tuple[LayerKind, ...] = ("conv", "conv1x1", "depthwise", "linear", "attention", "batch_norm", "elementwise")
"""Kinds of random layers, in turn."""


@dataclass(frozen=True)
class Measured:
    """What a machine did.

    Attributes:
        gemm_macs_per_s: Dtype to the rate of a large product.
        stream_bytes_per_s: Copy of tensors far above the last-level cache, read and written bytes.
        resident_bytes_per_s: Copy of tensors that stay in the last-level cache.
        launch_s: One operator on one element.
        samples: The random layers.
        repeats_s: Seconds of each layer in each round, shape (rounds, layers).
        threads: Threads of torch.
        waited: Share of the time in which other processes held the core; 0 where the system does not tell.
    """

    gemm_macs_per_s: dict[str, float]
    stream_bytes_per_s: float
    resident_bytes_per_s: float
    launch_s: float
    samples: Samples
    repeats_s: Floats
    threads: int
    waited: float = 0.0

    @property
    def rounds(self) -> int:
        """Times each layer was timed."""
        return len(self.repeats_s)

    @property
    def spread(self) -> float:
        """How much longer a layer's slow repeats took than its quick ones: 80th over 20th percentile less 1; median."""
        slow, quick = np.quantile(self.repeats_s, [0.8, 0.2], axis=0)
        return float(np.median(slow / quick)) - 1

    @property
    def busy(self) -> str:
        """A sentence that says how busy the machine was meanwhile; empty where it was quiet."""
        signs = []
        if self.waited > _MOST_WAITED:
            signs.append(f"other processes held the core for {self.waited:.0%} of the time")
        if self.spread > _MOST_SPREAD:
            signs.append(f"the slow repeats of a layer took {self.spread:.0%} longer than its quick ones")
        if not signs:
            return ""
        return f"the machine was busy ({', and '.join(signs)}); calibrate again when it is quiet"


def measure(
    profile: DeviceProfile, budget_s: float, layers: int = 60, threads: int = 1, seed: int = 0, batch: int = 1
) -> Measured:
    """Time microbenchmarks and random layers in eager torch.

    Args:
        profile: Of this machine, detected: which dtypes and cache sizes to try.
        budget_s: Wall time.
        layers: Random layers.
        threads: Threads of torch.
        seed: Of the layers and their weights.
        batch: Images, or rows, of a layer.

    Raises:
        MeterError: Ten times the budget is too small for five rounds.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _measure(profile, budget_s, random_layers(layers, seed, batch), threads)
    finally:
        torch.set_num_threads(before)


class _Attention(nn.Module):
    """Attention of stacked queries, keys and values, shape (3, n, heads, time, width)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = x.unbind(0)
        return nn.functional.scaled_dot_product_attention(q, k, v)


def random_layers(count: int, seed: int, batch: int = 1) -> list[tuple[nn.Module, torch.Tensor]]:
    """Return layers and inputs, Sobol-spread over kind, channels, image size, kernel and stride.

    Kinds take turns: convolution, 1x1, depthwise, linear, attention, batch norm, elementwise (ReLU, GELU, layer norm).
    Channels 8 to 256 and sides 4 to 32, evenly in the logarithm; kernels 3 or 5, strides 1 or 2. Half of the linear
    layers see one row, half a sequence; attention has 1 to 8 heads of 8 to 64 channels over 16 to 256 positions.
    """
    made: list[tuple[nn.Module, torch.Tensor]] = []
    engine = torch.quasirandom.SobolEngine(5, scramble=True, seed=seed)  # type: ignore[no-untyped-call] # torch's own
    draws = engine.draw(count).tolist()
    for number, (c_in, c_out, side, kernel, stride) in enumerate(draws):
        channels, outputs = (round(8 * 32**x) for x in (c_in, c_out))
        size, k, s = round(4 * 8**side), 3 if kernel < 0.7 else 5, 1 if stride < 0.7 else 2
        kind = number % len(_KINDS)
        layer: nn.Module
        shape: tuple[int, ...] = (batch, channels, size, size)
        if kind == 0:
            layer = nn.Conv2d(channels, outputs, k, s, k // 2)
        elif kind == 1:
            layer = nn.Conv2d(channels, outputs, 1, s)
        elif kind == 2:
            layer = nn.Conv2d(channels, channels, k, s, k // 2, groups=channels)
        elif kind == 3:
            rows = (round(16 * 16**side),) if kernel < 0.5 else ()
            layer, shape = nn.Linear(4 * channels, 4 * outputs), (batch, *rows, 4 * channels)
        elif kind == 4:
            layer = _Attention()
            shape = (3, batch, round(8**stride), round(16 * 16**side), round(8 * 8**c_in))
        elif kind == 5:
            layer = nn.BatchNorm2d(channels)
        else:
            layer = nn.ReLU() if kernel < 0.5 else nn.GELU() if kernel < 0.75 else nn.LayerNorm(size)
        made.append((layer.eval(), torch.randn(shape)))
    return made


def features(layer: nn.Module, example: torch.Tensor, profile: DeviceProfile) -> tuple[float, float, tuple[float, ...]]:
    """Return (MACs, MACs padded to the device's steps, bytes over each edge) of a layer that is one operator."""
    workload = workload_of(layer, (example,))
    if len(workload.ops) != 1:
        raise MeterError(f"a layer runs as {len(workload.ops)} operators where one is needed; leave it out")
    traffic = traffic_of(workload, profile)
    table = table_of(workload)
    padded = Roofline(table.traits, profile).padded_macs(table)
    return float(workload.macs), float(padded[0, 0]), tuple(float(x) for x in traffic.ops[0].dense_level_bytes)


def _measure(
    profile: DeviceProfile, budget_s: float, layers: list[tuple[nn.Module, torch.Tensor]], threads: int
) -> Measured:
    micro: dict[str, tuple[Callable[[], Any], float]] = {"launch": _add()}
    dtypes = [d for d in ("float32", "bfloat16", "float16") if d in profile.compute.peak_macs_per_s]
    for dtype in dtypes:
        micro[dtype] = _gemm(dtype)
    cache = profile.memory[-2].bytes.value
    micro["stream"] = _copy(int(min(4 * cache, 2**28)))
    micro["resident"] = _copy(int(cache / 8))
    waits, begun = Waits(threads), time.perf_counter()
    seconds = steady(_repeats([run for run, _ in micro.values()], _MICRO_SHARE * budget_s))
    rates = {name: work / s for (name, (_, work)), s in zip(micro.items(), seconds, strict=True)}
    repeats = _repeats([_runner(*each) for each in layers], (1 - _MICRO_SHARE) * budget_s)
    waited = waits() / (time.perf_counter() - begun)
    rows = [features(*each, profile) for each in layers]
    samples = Samples(
        seconds=steady(repeats),
        macs=np.array([row[0] for row in rows]),
        padded_macs=np.array([row[1] for row in rows]),
        level_bytes=np.array([row[2] for row in rows]),
        kinds=tuple(_KINDS[number % len(_KINDS)] for number in range(len(layers))),
    )
    return Measured(
        gemm_macs_per_s={dtype: rates[dtype] for dtype in dtypes},
        stream_bytes_per_s=rates["stream"],
        resident_bytes_per_s=rates["resident"],
        launch_s=1 / rates["launch"],
        samples=samples,
        repeats_s=repeats,
        threads=threads,
        waited=waited,
    )


def steady(repeats_s: Floats) -> Floats:
    """Return what each case takes when nothing disturbs it, from its repeats, shape (rounds, cases)."""
    seconds: Floats = np.quantile(repeats_s, QUANTILE, axis=0)
    return seconds


def _repeats(cases: list[Callable[[], Any]], budget_s: float) -> Floats:
    begun = time.perf_counter()
    end, latest = begun + budget_s, begun + _OVERDRAWN * budget_s
    for run in cases:  # kernels are chosen and pages are touched before anything counts
        run()
    times: list[list[float]] = []
    while len(times) < _MAX_ROUNDS and time.perf_counter() < (latest if len(times) < _MIN_ROUNDS else end):
        row = []
        for run in cases:
            run()  # brings code and input near, as the layers before do in a network
            start = time.perf_counter()
            run()
            row.append(time.perf_counter() - start)
        times.append(row)
    if len(times) < _MIN_ROUNDS:
        raise MeterError(
            f"a share of {budget_s:.3g} s of the budget was enough for {len(times)} rounds of {len(cases)} cases, and "
            f"{_MIN_ROUNDS} are needed; give a larger --budget"
        )
    return np.array(times)


def _runner(layer: nn.Module, example: torch.Tensor) -> Callable[[], Any]:
    return lambda: layer(example)


def _gemm(dtype: str) -> tuple[Callable[[], Any], float]:
    a = torch.randn(_GEMM, _GEMM).to(getattr(torch, dtype))
    return lambda: a @ a, float(_GEMM**3)


def _copy(size: int) -> tuple[Callable[[], Any], float]:
    source = torch.ones(size // 4)
    target = torch.empty_like(source)
    return lambda: target.copy_(source), 2.0 * 4 * source.numel()


def _add() -> tuple[Callable[[], Any], float]:
    one = torch.ones(1)
    return lambda: one + one, 1.0
