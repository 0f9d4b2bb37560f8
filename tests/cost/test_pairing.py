"""The paired meter: on recordings, where the truth is known, and once on real torch. No absolute time is asserted."""

from __future__ import annotations

import gc
import os

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.cost.meters import RUNTIMES, Meter, ModelInputs, RecordedMeter, TorchMeter, rebatch
from autoprune.cost.meters.result import MIN_PAIRS, outlier_count, ratio_interval
from autoprune.cost.meters.warmup import warm_up
from autoprune.errors import MeterError, UnknownNameError, UsageError
from autoprune.spec.study import LatencySpec

NOTHING = nn.Identity()


def recording(ratio: float, pairs: int, noise: float, seed: int = 0) -> tuple[tuple[float, float], ...]:
    """Return pairs of a machine that drifts to half its speed; the noise is that of one sample."""
    rng = np.random.default_rng(seed)
    mood = 1e-3 * np.linspace(1, 2, pairs)
    dense = mood * rng.lognormal(0, noise, pairs)
    candidate = ratio * mood * rng.lognormal(0, noise, pairs)
    return tuple(zip(dense.tolist(), candidate.tolist(), strict=True))


def replay(samples: tuple[tuple[float, float], ...], **spec: float):
    return RecordedMeter(samples, LatencySpec(**spec)).measure_pair(NOTHING, NOTHING, ModelInputs(()))


def test_a_known_ratio_is_recovered_under_drift() -> None:
    found = replay(recording(0.6, 400, 0.1), half_width=0.02, budget_s=10)
    assert found.converged
    assert found.ratio == pytest.approx(0.6, rel=0.03)
    assert found.low <= found.ratio <= found.high
    assert (found.high - found.low) / 2 <= 0.02 * found.ratio
    assert MIN_PAIRS <= found.pairs < 400
    assert len(found.samples_s) == found.pairs


def test_the_interval_covers_the_truth() -> None:
    hits = 0
    for seed in range(100):
        _, low, high = ratio_interval(recording(0.6, 40, 0.1, seed), seed)
        hits += low <= 0.6 <= high
    assert hits >= 88  # 95 % wanted; 88 of 100 is three standard deviations below


def test_noise_costs_pairs() -> None:
    quiet = replay(recording(0.6, 2000, 0.02), half_width=0.02, budget_s=100)
    noisy = replay(recording(0.6, 2000, 0.2), half_width=0.02, budget_s=100)
    assert quiet.pairs == MIN_PAIRS < noisy.pairs


def test_the_budget_ends_the_measurement() -> None:
    samples = recording(0.6, 4000, 0.5)
    found = replay(samples, half_width=0.001, budget_s=0.2)
    assert not found.converged
    assert sum(map(sum, found.samples_s)) < 0.2 + 4 * 10e-3
    assert found.pairs < 200
    one_block = replay(samples, half_width=0.001, budget_s=1e-9)
    assert one_block.pairs == 2
    assert not one_block.converged


def test_the_end_of_a_recording_ends_the_measurement() -> None:
    found = replay(recording(0.6, 21, 0.5), half_width=0.001, budget_s=100)
    assert (found.pairs, found.converged) == (20, False)


def test_the_record_is_relative_to_the_dense_latency_of_the_study() -> None:
    found = replay(recording(0.5, 40, 0.01))
    record = found.to_record(reference_dense_ms=8.0)
    assert record.ms == pytest.approx(8.0 * found.ratio)
    assert record.ratio_low <= record.ratio <= record.ratio_high
    assert record.meter == "recorded: A B B A"
    assert record.candidate_p90_ms >= record.candidate_ms


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_a_sample_that_is_no_time_is_an_error(bad: float) -> None:
    samples = ((1e-3, 1e-3), (1e-3, bad), (1e-3, 1e-3))
    with pytest.raises(MeterError, match="positive number is needed"):
        replay(samples)
    with pytest.raises(MeterError, match="at least 2 pairs"):
        replay(samples[:1])


def test_warm_up_ends_when_rounds_stop_getting_quicker() -> None:
    times = iter([10.0, 8.0, 6.0, 4.0, 3.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    played: list[float] = []

    def run_round() -> tuple[float, float]:
        played.append(next(times))
        return played[-1], played[-1]

    warm = warm_up(run_round, lambda: 0.0, 1.0)
    assert (warm.seconds, warm.rounds, warm.steady) == ((1.0, 1.0), len(played), True)
    assert 10 <= len(played) <= 13
    times = iter([10.0, 8.0])
    played.clear()
    cut = warm_up(run_round, lambda: 2.0, 1.0)
    assert (cut.seconds, cut.rounds, cut.steady) == ((10.0, 10.0), 1, False)


def test_rebatch_repeats_and_cuts() -> None:
    x = torch.arange(6).reshape(3, 2)
    seven = rebatch((x, 5), {"mask": x, "scale": torch.tensor(2.0)}, 7)
    assert seven.args[0][:, 0].tolist() == [0, 2, 4, 0, 2, 4, 0]
    assert seven.args[1] == 5
    assert seven.kwargs["mask"].shape == (7, 2)
    assert seven.kwargs["scale"].shape == ()
    assert rebatch((x,), {}, 1).args[0].tolist() == [[0, 1]]
    assert rebatch((x,), {}, 3).args[0] is x
    with pytest.raises(MeterError, match="no sample"):
        rebatch((torch.zeros(0, 2),), {}, 1)


def test_torch_against_itself_is_about_one_and_leaves_no_trace() -> None:
    model = nn.Sequential(nn.Linear(32, 64), nn.Dropout(), nn.ReLU(), nn.Linear(64, 8))
    model.train()
    model[1].eval()
    threads = torch.get_num_threads()
    meter: Meter = RUNTIMES.get("torch")(LatencySpec(batch=4, half_width=0.1, budget_s=0.5))
    found = meter.measure_pair(model, model, ModelInputs((torch.randn(2, 32),)))
    assert 0.5 < found.ratio < 2
    assert found.low * 0.7 < 1 < found.high * 1.4
    assert found.pairs >= 2
    version = torch.__version__.partition("+")[0]
    assert found.meter == f"measured: torch {version} eager, 1 thread, batch 4, float32, A B B A"
    assert [m.training for m in model.modules()] == [True, True, False, True, True]
    assert torch.get_num_threads() == threads
    assert gc.isenabled()
    assert not torch.is_inference_mode_enabled()


def test_a_failing_model_leaves_no_trace() -> None:
    threads = torch.get_num_threads()
    model = nn.Linear(3, 3)
    with pytest.raises(RuntimeError):
        TorchMeter(LatencySpec(threads=threads + 1)).measure_pair(model, model, ModelInputs((torch.randn(1, 4),)))
    assert torch.get_num_threads() == threads
    assert gc.isenabled()
    assert model.training


def test_an_unknown_runtime_is_named() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'torch'"):
        RUNTIMES.get("torhc")


class Watcher(nn.Module):
    """Notes what is set while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.seen: dict[str, object] = {}

    def __deepcopy__(self, memo: object) -> Watcher:
        copy = Watcher()
        copy.seen = self.seen
        return copy

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen |= {"dtype": (x.dtype, self.scale.dtype), "batch": len(x), "threads": torch.get_num_threads()}
        if hasattr(os, "sched_getaffinity"):
            self.seen["cores"] = [os.sched_getaffinity(int(task)) for task in os.listdir("/proc/self/task")]
        return x * self.scale


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no process")
def test_what_a_study_sets_is_set_and_recorded_and_put_back() -> None:
    before = os.sched_getaffinity(0)
    core = max(before)
    torch.set_num_threads(2)  # workers exist before the measurement: each has to be moved
    torch.randn(2_000_000).sum()
    threads = torch.get_num_threads()
    model = Watcher()
    spec = LatencySpec(batch=3, threads=1, dtype="bfloat16", affinity=(core,), budget_s=0.02)
    found = TorchMeter(spec).measure_pair(model, model, ModelInputs((torch.randn(1, 4),)))
    assert model.seen["dtype"] == (torch.bfloat16, torch.bfloat16)
    assert (model.seen["batch"], model.seen["threads"]) == (3, 1)
    assert all(cores == {core} for cores in model.seen["cores"])  # type: ignore[attr-defined]
    conditions = found.to_record(1.0).conditions
    assert conditions is not None
    assert conditions.affinity == (core,)
    assert str(conditions) == f"1 thread on core {core}, batch 3, bfloat16"
    assert model.scale.dtype == torch.float32
    assert torch.get_num_threads() == threads
    assert {frozenset(os.sched_getaffinity(int(task))) for task in os.listdir("/proc/self/task")} == {frozenset(before)}
    torch.set_num_threads(1)


def test_a_core_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(UsageError, match="core 9999 where this process may use"):
        TorchMeter(LatencySpec(affinity=(9999,)))


def test_a_kernel_is_measured_alone_and_against_a_reference_with_other_inputs() -> None:
    meter = TorchMeter(LatencySpec(half_width=0.5, budget_s=0.05))
    small, large = nn.Linear(8, 8), nn.Linear(2048, 2048)
    pair = meter.measure_pair(
        large, small, ModelInputs((torch.randn(1, 2048),)), candidate_inputs=ModelInputs((torch.randn(1, 8),))
    )
    assert pair.ratio < 1  # four million MACs against sixty-four
    alone = meter.measure(small, ModelInputs((torch.randn(1, 8),)), budget_s=0.05)
    assert alone.low_ms <= alone.ms <= alone.high_ms
    assert alone.ms <= alone.p90_ms <= alone.p99_ms
    assert 0 <= alone.outliers < alone.samples


def test_outliers_are_counted_and_stay() -> None:
    assert outlier_count([1.0, 1.1, 1.2, 1.3, 1.4]) == 0
    assert outlier_count([1.0, 1.1, 1.2, 1.3, 9.0]) == 1
    samples = (*([(1e-3, 2e-3)] * 30), (1e-3, 50e-3))
    found = replay(samples, half_width=1e-9, budget_s=100)
    assert (found.outliers, found.pairs) == (0, MIN_PAIRS)
    noisy = replay((*samples[:5], (1e-3, 50e-3), *samples[:5]), half_width=1e-9, budget_s=100)
    assert noisy.outliers == 1
    assert noisy.candidate_p99_ms == pytest.approx(np.percentile([2.0] * 9 + [50.0], 99), rel=0.3)


def test_a_missed_precision_says_why() -> None:
    found = replay(recording(0.6, 4000, 0.5), half_width=0.001, budget_s=0.2)
    assert found.reason.startswith(f"the budget of 0.2 s ended after {found.pairs} pairs at ±")
    assert found.to_record(1.0).reason == found.reason
    few = replay(recording(0.6, 40, 0.5), half_width=0.001, budget_s=1e-9)
    assert "an interval needs 8" in few.reason
    assert replay(recording(0.6, 21, 0.5), half_width=0.001).reason == "the recording ended after 20 pairs; record more"
    assert replay(recording(0.6, 400, 0.1), budget_s=10).to_record(1.0).reason is None
