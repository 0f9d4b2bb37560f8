"""Calibration: the fit finds rates that were put in, keeps its bounds, and admits when a baseline is as good."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from autoprune.cost.calibrate import Samples, calibrate, calibrated_profile, fit_roofline
from autoprune.cost.calibrate.fitting import Fit, model_seconds, spearman
from autoprune.cost.calibrate.measuring import Measured, features, measure, random_layers, steady
from autoprune.cost.host import detect
from autoprune.cost.roofline import predict_latency
from autoprune.cost.traffic import traffic_of
from autoprune.cost.traits import layer_kind
from autoprune.cost.workload import workload_of
from autoprune.errors import MeterError, UsageError
from autoprune.spec.amounts import duration_s
from autoprune.spec.hardware import load_device

TRUE = np.array([2e-5, 3e10, 4e10, 8e9])  # launch, MACs/s, LLC and DRAM bytes/s
BOUNDS = [(1e-6, 1e-4), (1e9, 1e11), (1e9, 1e12), (1e9, 1e11)]


def made(noise: float = 0.0, n: int = 60) -> Samples:
    rng = np.random.default_rng(0)
    macs = 10 ** rng.uniform(4, 8, n)
    moved = 10 ** rng.uniform(3, 7, (n, 2))
    samples = Samples(np.ones(n), macs, 1.1 * macs, moved)
    seconds = model_seconds(np.log(TRUE), samples) * np.exp(noise * rng.standard_normal(n))
    return Samples(seconds, macs, 1.1 * macs, moved)


def test_the_fit_finds_the_rates_that_made_the_times() -> None:
    fit = fit_roofline(made(), prior=[1e-5, 1e10, 8e10, 4e9], bounds=BOUNDS, ridges=[1e-8])
    assert [fit.launch_s, fit.macs_per_s, *fit.bandwidths] == pytest.approx(TRUE, rel=1e-3)
    assert fit.loo_mape < 1e-3
    assert fit.loo_spearman > 0.999
    assert fit.better_baseline is None
    assert min(fit.macs_only_mape, fit.bytes_only_mape) > 10 * fit.loo_mape


def test_noise_is_what_is_left_over() -> None:
    fit = fit_roofline(made(noise=0.05), prior=[1e-5, 1e10, 8e10, 4e9], bounds=BOUNDS)
    # The mean absolute value of a normal deviate of 5 % is 4 %.
    assert 0.03 < fit.loo_mape < 0.06
    assert fit.loo_max >= fit.loo_mape


def test_the_bounds_hold_and_no_level_is_slower_than_the_one_outside() -> None:
    bounds = [(1e-6, 1e-5), (1e9, 2e10), (1e9, 1e12), (1e9, 1e11)]
    fit = fit_roofline(made(), prior=[5e-6, 1e10, 2e9, 6e10], bounds=bounds, ridges=[1e-4])
    assert fit.launch_s <= 1.0000001e-5
    assert fit.macs_per_s <= 2.0000001e10
    assert fit.bandwidths[0] >= fit.bandwidths[1]


def test_a_baseline_that_is_as_good_is_named() -> None:
    samples = made()
    line = Samples(1e-5 + samples.macs / 1e9, samples.macs, np.ones(60), np.ones((60, 2)))  # only MACs tell the time
    fit = fit_roofline(line, prior=TRUE, bounds=BOUNDS, ridges=[1e-3])
    assert fit.macs_only_mape < 1e-6
    assert fit.better_baseline == "MACs only"


def test_rank_correlation_shares_ranks_of_ties() -> None:
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([10.0, 20, 30, 40])) == pytest.approx(1)
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: 4.5 / sqrt(4.5 x 5), by hand.
    assert spearman(np.array([1.0, 2, 2, 3]), np.array([1.0, 2, 3, 4])) == pytest.approx(4.5 / np.sqrt(22.5))


def test_random_layers_are_of_all_kinds_and_the_same_each_time() -> None:
    layers, again = random_layers(42, seed=3), random_layers(42, seed=3)
    assert [x.shape for _, x in layers] == [x.shape for _, x in again]
    assert [str(layer) for layer, _ in layers] == [str(layer) for layer, _ in again]
    profile = load_device("local-cpu")
    kinds = []
    for layer, x in layers:
        (op,) = workload_of(layer, (x,)).ops
        kinds.append(layer_kind(op))
        macs, padded, moved = features(layer, x, profile)
        outputs = layer(x)
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            assert macs == outputs.numel() * layer.weight[0].numel()
        elif kinds[-1] == "attention":  # scores, and their product with the values
            assert macs == 2 * outputs.numel() * x.shape[-2]
        else:
            assert macs == 0
        assert padded >= macs
        assert min(moved) > 0
    assert kinds == ["conv", "conv1x1", "depthwise", "linear", "attention", "batch_norm", "elementwise"] * 6


def of_three_kinds(noise: float = 0.0) -> Samples:
    """Return layers of which depthwise ones run at a tenth of the rate and elementwise ones start in a fifth."""
    plain = made(n=72)
    kinds = ("conv", "depthwise", "elementwise") * 24
    of = np.arange(72) % 3
    macs = np.where(of == 2, 0.0, plain.macs)
    factors = np.log([*TRUE, 1, 1, 0.2, 1, 0.1, 1])
    samples = Samples(np.ones(72), macs, 1.1 * macs, plain.level_bytes, kinds)
    spread = np.exp(noise * np.random.default_rng(5).standard_normal(72))
    return replace(samples, seconds=model_seconds(factors, samples) * spread)


def test_kinds_have_rates_and_errors_of_their_own() -> None:
    fit = fit_roofline(of_three_kinds(), prior=[1e-5, 1e10, 8e10, 4e9], bounds=BOUNDS, ridges=[1e-8])
    conv, depthwise, elementwise = (fit.kinds[kind] for kind in ("conv", "depthwise", "elementwise"))
    assert [conv.launch_s, depthwise.launch_s] == pytest.approx([2e-5, 2e-5], rel=1e-2)
    assert elementwise.launch_s == pytest.approx(4e-6, rel=1e-2)
    assert depthwise.macs_per_s == pytest.approx(3e9, rel=1e-2)
    assert conv.macs_per_s == pytest.approx(3e10, rel=1e-2)
    assert elementwise.macs_per_s is None
    assert fit.loo_mape < 0.01
    assert fit.one_rate_mape > 0.2
    noisy = fit_roofline(of_three_kinds(0.05), [1e-5, 1e10, 8e10, 4e9], BOUNDS, ridges=[1e-4])
    assert all(0.01 < each.loo_mape < 0.1 and each.samples == 24 for each in noisy.kinds.values())
    assert np.mean([each.loo_mape for each in noisy.kinds.values()]) == pytest.approx(noisy.loo_mape)


def fitted() -> Measured:
    return Measured({"float32": 4e10}, 1e10, 3e10, 1e-5, made(), repeats_s=np.ones((9, 60)), threads=1)


def test_the_profile_predicts_what_was_fitted_and_loads_by_path(tmp_path: Path) -> None:
    prior = detect(load_device("local-cpu"))
    fit = fit_roofline(made(), prior=[1e-5, 1e10, 8e10, 4e9], bounds=BOUNDS, ridges=[1e-8])
    profile = calibrated_profile(prior, "mine", fitted(), fit)
    (tmp_path / "mine.yaml").write_text(profile.to_yaml(), encoding="utf-8")
    loaded = load_device("mine.yaml", relative_to=tmp_path)
    assert loaded == profile
    assert detect(loaded) is loaded  # fitted figures are not scaled again
    assert loaded.calibration is not None
    assert (loaded.calibration.samples, loaded.calibration.threads) == (60, 1)
    assert loaded.calibration.macs_only_mape == pytest.approx(fit.macs_only_mape)
    layer, x = random_layers(4, seed=0)[0]
    workload = workload_of(layer, (x,))
    _, padded, moved = features(layer, x, loaded)
    by_hand = fit.launch_s + max(padded / fit.macs_per_s, *(b / w for b, w in zip(moved, fit.bandwidths, strict=True)))
    assert predict_latency(workload, traffic_of(workload, loaded), loaded).seconds == pytest.approx(by_hand, rel=1e-4)


def test_the_profile_predicts_by_the_rates_of_each_kind(tmp_path: Path) -> None:
    prior = detect(load_device("local-cpu"))
    fit = fit_roofline(of_three_kinds(), prior=[1e-5, 1e10, 8e10, 4e9], bounds=BOUNDS, ridges=[1e-8])
    (tmp_path / "mine.yaml").write_text(calibrated_profile(prior, "mine", fitted(), fit).to_yaml(), encoding="utf-8")
    profile = load_device("mine.yaml", relative_to=tmp_path)
    for layer, x in random_layers(7, seed=0):
        (op,) = workload_of(layer, (x,)).ops
        own = fit.kinds.get(layer_kind(op))
        launch, rate = (own.launch_s, own.macs_per_s or fit.macs_per_s) if own else (fit.launch_s, fit.macs_per_s)
        _, padded, moved = features(layer, x, profile)
        by_hand = launch + max(padded / rate, *(b / w for b, w in zip(moved, fit.bandwidths, strict=True)))
        workload = workload_of(layer, (x,))
        assert predict_latency(workload, traffic_of(workload, profile), profile).seconds == pytest.approx(
            by_hand, rel=1e-4
        )


@pytest.mark.slow
def test_this_machine_is_measured_and_threads_are_put_back() -> None:
    threads = torch.get_num_threads()
    done = calibrate(load_device("local-cpu"), "mine", budget_s=10.0, layers=21)
    profile, measured, fit = done.profile, done.measured, done.fit
    told = profile.calibration.energy
    assert (told.reason is None) == (done.energy is not None)
    assert done.energy is not None or "energy meter 'rapl'" in told.reason
    assert torch.get_num_threads() == threads
    assert measured.rounds >= 5
    assert (measured.samples.seconds > 0).all()
    assert set(measured.gemm_macs_per_s) == {"float32"}
    assert profile.compute.utilisation.confidence == "measured"
    assert 0 < fit.loo_mape < np.inf
    assert set(profile.kinds) == set(fit.kinds) == set(measured.samples.kinds)
    assert len(fit.kinds) == 7


def test_what_cannot_be_calibrated_is_told() -> None:
    with pytest.raises(UsageError, match="'l4' cannot be measured from here"):
        calibrate(load_device("l4"), "mine")
    with pytest.raises(MeterError, match="larger --budget"):
        measure(detect(load_device("local-cpu")), budget_s=0.0, layers=4)


def test_the_time_of_a_layer_is_that_of_its_undisturbed_repeats_and_a_busy_machine_is_told() -> None:
    rng = np.random.default_rng(0)
    layers = 10 ** rng.uniform(-5, -3, 40)
    quiet = layers * rng.normal(1, 0.01, (60, 40))
    disturbed = quiet * np.where(rng.random((60, 40)) < 0.6, rng.uniform(1.2, 3, (60, 40)), 1)  # six repeats in ten
    np.testing.assert_allclose(steady(disturbed), steady(quiet), rtol=0.03)
    calm = replace(fitted(), repeats_s=quiet, waited=0.005)
    assert calm.busy == ""
    assert "busy:" not in calibrated_profile(detect(load_device("local-cpu")), "mine", calm, fit_of(calm)).to_yaml()
    noisy = replace(calm, repeats_s=disturbed, waited=0.31)
    told = calibrated_profile(detect(load_device("local-cpu")), "mine", noisy, fit_of(noisy)).calibration
    assert told is not None
    assert told.busy == noisy.busy
    assert noisy.busy.startswith(
        "the machine was busy (other processes held the core for 31% of the time, and the slow"
    )
    assert noisy.busy.endswith("longer than its quick ones); calibrate again when it is quiet")


def fit_of(measured: Measured) -> Fit:
    return fit_roofline(measured.samples, prior=[1e-5, 1e10, 8e10, 4e9], bounds=BOUNDS, ridges=[1e-8])


def test_durations() -> None:
    assert [duration_s(text) for text in ("90s", "1.5m", "2h")] == [90, 90, 7200]
    with pytest.raises(ValueError, match="as in 90s"):
        duration_s("5 minutes")


def test_a_kind_that_passes_the_gemm_raises_the_peak() -> None:
    prior = detect(load_device("local-cpu"))
    fit = fit_roofline(of_three_kinds(), prior=[1e-5, 1e10, 8e10, 4e9], bounds=BOUNDS, ridges=[1e-8])
    slow_gemm = replace(fitted(), gemm_macs_per_s={"float32": 1e9})
    profile = calibrated_profile(prior, "mine", slow_gemm, fit)
    assert profile.kinds is not None
    for kind, each in fit.kinds.items():
        use = profile.kinds[kind].utilisation
        assert (use is None) == (each.macs_per_s is None)
        if use is not None:
            assert use.value * profile.peak("float32").value == pytest.approx(each.macs_per_s, rel=1e-5)
