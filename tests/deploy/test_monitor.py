"""Drift is seen, chance is not, however often one looks."""

import re
import warnings

import numpy as np
import pytest
import torch
from small_task import images, small_net

import autoprune
from autoprune.deploy.monitor import DriftMonitor, DriftWarning, confidence_margin
from autoprune.errors import UsageError


def alarms(rate, margin, runs=300, samples=3000, every=20):
    """Return the share of runs in which the interval ever lies above ``rate``, looked at every few samples."""
    rng = np.random.default_rng(0)
    draws = rng.random((runs, samples)) < rate
    counts = np.arange(1, samples + 1)
    means = np.cumsum(draws, axis=1) / counts
    looks = range(every - 1, samples, every)
    margins = np.array([[margin(i + 1, m * (1 - m)) for i, m in zip(looks, row[looks], strict=True)] for row in means])
    return float((means[:, looks] - margins > rate).any(axis=1).mean())


def test_looking_all_the_time_raises_no_more_false_alarms_than_promised():
    """At the limit itself every alarm is false. The usual interval fails the same test, so the test can fail."""
    assert alarms(0.05, lambda n, v: confidence_margin(n, v, 0.1)) <= 0.1
    assert alarms(0.05, lambda n, v: 1.2816 * (v / n) ** 0.5) > 0.25


def test_the_interval_narrows_as_it_should():
    """Within a small factor of the fixed-sample interval, for what it promises more."""
    for count in (500, 5000):
        fixed = 1.96 * (0.05 * 0.95 / count) ** 0.5
        assert fixed < confidence_margin(count, 0.05 * 0.95, 0.05) < 2.6 * fixed
    assert confidence_margin(1, 0.0, 0.05) == float("inf")


def test_a_network_is_compared_with_itself_without_a_warning():
    monitor = autoprune.DriftMonitor(small_net(), small_net(), limit=0.0)
    for seed in range(4):
        drift = monitor.observe(images(50, seed))
    assert drift.samples == 200
    assert drift.mean == 0
    assert drift.low < 0 < drift.high < 0.1


def test_drift_warns_once_a_window_with_its_interval():
    dense, pruned = small_net(), small_net()
    with torch.no_grad():
        pruned.head.weight.neg_()
    monitor = autoprune.DriftMonitor(dense, pruned, limit=0.1, window=100)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for seed in range(6):
            monitor.observe(images(50, seed))
    assert len(told) == 3 == len(monitor.history)
    assert re.search(r"loses 1 \[0\.\d+, 1\.\d+\] to the dense one on 50 samples", str(told[0].message))
    assert told[0].category is DriftWarning
    assert told[0].filename == __file__
    assert all(drift.drifted and drift.samples == 100 for drift in monitor.history)


def test_targets_decide_where_they_are_known():
    """Both networks wrong alike is no loss; the paired difference is that of the two accuracies."""
    dense, pruned = small_net(), small_net()
    with torch.no_grad():
        pruned.head.bias[0] += 0.3
    x, y = images(400, 0), torch.randint(0, 4, (400,), generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DriftWarning)
        drift = DriftMonitor(dense, pruned, limit=0.5).observe(x, y)
    accuracies = [float((model(x).argmax(1) == y).double().mean()) for model in (dense, pruned)]
    assert drift.mean == pytest.approx(accuracies[0] - accuracies[1])


def test_wrong_use_is_told():
    net = small_net()
    for options, sentence in (
        ({"limit": -0.1}, "limit is -0.1"),
        ({"limit": 0.1, "confidence": 1.0}, "confidence is 1.0"),
        ({"limit": 0.1, "window": 1}, "window is 1"),
    ):
        with pytest.raises(UsageError, match=sentence):
            DriftMonitor(net, net, **options)
    with pytest.raises(UsageError, match="one finite score a sample"):
        DriftMonitor(net, net, limit=0.1, metric=lambda output, _: output).observe(images(3, 0))
