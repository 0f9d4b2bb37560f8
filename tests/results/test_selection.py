"""The choice of one trial: bounds on metrics and on the score, one metric, weights, the knee, near misses."""

import numpy as np
import pytest
from synthetic_run import BOUND, SCORE, run_records

from autoprune.errors import UnknownNameError, UsageError
from autoprune.results.picks import picks
from autoprune.results.selection import select
from autoprune.spec.front import candidates
from autoprune.spec.objectives import parse_bound


def bounds(**values):
    return [parse_bound(name, value) for name, value in values.items()]


def pruned(records):
    return [t for t in candidates(records) if t.origin != "dense"]


def with_trials(records, trials):
    return records.model_copy(update={"trials": tuple(trials)})


def test_select_minimises_within_the_bounds(records):
    chosen = select(records, bounds(accuracy_drop=0.02, params=2e5), minimize="latency_ms")
    fitting = [
        t
        for t in candidates(records)
        if t.origin != "dense" and t.values["accuracy_drop"] <= 0.02 and t.values["params"] <= 2e5
    ]
    assert chosen.values["latency_ms"] == min(t.values["latency_ms"] for t in fitting)


def test_select_never_takes_the_dense_model(records):
    assert select(records, minimize="accuracy_drop").origin != "dense"


def test_select_names_the_nearest_miss(records):
    fastest = picks(records).fastest
    bound = fastest.values["latency_ms"] * 0.9
    with pytest.raises(UsageError, match=rf"trial {fastest.number} .* comes closest: its latency_ms is .* \(11\.1%\)"):
        select(records, bounds(latency_ms=bound, accuracy_drop=BOUND), minimize="macs")


def test_select_unknown_metric(records):
    with pytest.raises(UnknownNameError, match="did you mean 'latency_ms'"):
        select(records, minimize="latencyms")
    with pytest.raises(UnknownNameError, match="did you mean 'latency_ms'"):
        select(records, weights={"latencyms": 1.0})


def test_select_says_what_the_run_recorded(records):
    trials = [
        t.model_copy(update={"values": {k: v for k, v in t.values.items() if k != "dram_bytes"}})
        for t in records.trials
    ]
    with pytest.raises(UsageError, match="did not record dram_bytes; it recorded accuracy_drop"):
        select(with_trials(records, trials), bounds(dram_bytes=1.0), minimize="macs")


def test_select_from_nothing():
    with pytest.raises(UsageError, match="none of the 1 trials"):
        select(run_records(1), minimize="macs")


def test_accuracy_at_least_and_latency_as_a_share_of_dense(records):
    chosen = select(records, bounds(accuracy=f"at least {SCORE - 0.01}", latency_ms="80%"), minimize="macs")
    dense = next(t for t in records.trials if t.origin == "dense")
    fitting = [
        t
        for t in pruned(records)
        if t.score >= SCORE - 0.01 and t.values["latency_ms"] <= 0.8 * dense.values["latency_ms"]
    ]
    assert 0 < len(fitting) < len(pruned(records))
    assert chosen.values["macs"] == min(t.values["macs"] for t in fitting)


def test_weights_choose_by_brute_force(records):
    """Scaled over the trials that nobody beats in both metrics, as an independent double loop finds them."""
    trials = pruned(records)
    front = [
        t
        for t in trials
        if not any(
            (o.values["accuracy_drop"] <= t.values["accuracy_drop"] and o.values["macs"] < t.values["macs"])
            or (o.values["accuracy_drop"] < t.values["accuracy_drop"] and o.values["macs"] <= t.values["macs"])
            for o in trials
        )
    ]
    drops, macs = (np.array([t.values[name] for t in front]) for name in ("accuracy_drop", "macs"))
    for weight in (0.2, 1.0, 5.0):
        total = weight * (drops - drops.min()) / np.ptp(drops) + (macs - macs.min()) / np.ptp(macs)
        chosen = select(records, weights={"accuracy_drop": weight, "macs": 1.0})
        assert chosen.number == front[int(np.argmin(total))].number
    assert select(records, weights={"macs": 1.0, "accuracy_drop": 0.0}).values["macs"] == macs.min()


def test_without_a_wish_it_is_the_knee_of_what_fits(records):
    assert select(records).number == picks(records).knee.number
    within = select(records, bounds(accuracy_drop=0.005))
    assert within.values["accuracy_drop"] <= 0.005
    assert within.number != picks(records).knee.number or picks(records).knee.values["accuracy_drop"] <= 0.005


def test_near_misses_are_told_nearest_first(records):
    latencies = sorted((t.values["latency_ms"], t.number) for t in pruned(records))
    first, second, third = (number for _, number in latencies[:3])
    with pytest.raises(UsageError, match=rf"trial {first} \(then {second} and {third}\) comes closest"):
        select(records, bounds(latency_ms=latencies[0][0] / 2), minimize="macs")


def test_a_score_too_high_is_below_its_bound(records):
    with pytest.raises(UsageError, match=r"has score >= 1.5; .* its score is .* below its bound"):
        select(records, bounds(score=1.5))


def test_minimize_and_weights_exclude_each_other(records):
    with pytest.raises(UsageError, match="exclude each other"):
        select(records, minimize="macs", weights={"macs": 1.0})
