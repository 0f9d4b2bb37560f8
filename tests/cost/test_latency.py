"""The paired meter: on recordings, where the truth is known, and once on real torch. No absolute time is asserted."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.cost.latency import (
    MIN_PAIRS,
    RUNTIMES,
    Meter,
    ModelInputs,
    RecordedMeter,
    TorchMeter,
    ratio_interval,
    rebatch,
    warm_up,
)
from autoprune.errors import MeterError, UnknownNameError
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

    def run(side: str, repeats: int) -> float:
        if side == "dense":
            played.append(next(times))
        return played[-1]

    assert warm_up(run, lambda: 0.0, 1.0) == {"dense": 1.0, "candidate": 1.0}
    assert 10 <= len(played) <= 13
    times = iter([10.0, 8.0])
    played.clear()
    warm_up(run, lambda: 2.0, 1.0)
    assert len(played) == 1


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
