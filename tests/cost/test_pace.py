"""Pairs taken while the machine is slow do not count: on a machine with two speeds, on a clock of the test's own."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.cost.meters import ModelInputs, TorchMeter, turns
from autoprune.cost.meters.interruption import Undisturbed
from autoprune.cost.meters.pace import MEMORY_S, Pace
from autoprune.cost.meters.pairing import measure_blocks
from autoprune.spec.latency import LatencySpec

QUICK, SLOW = (1.00e-3, 0.600e-3), (1.70e-3, 1.071e-3)  # (dense, candidate): ratios .600 and .630


class Machine:
    """Two networks on a machine whose speed changes; each sample takes its time on the machine's clock.

    Args:
        slow: Whether it is slow at a moment, in seconds.
        noise: Standard deviation of the logarithm of a sample.
    """

    def __init__(self, slow, noise=0.02, seed=0):
        self.now, self.slow, self.noise = 0.0, slow, noise
        self.rng = np.random.default_rng(seed)

    def sample(self, side):
        times = SLOW if self.slow(self.now) else QUICK
        seconds = times[side == "candidate"] * self.rng.lognormal(0, self.noise)
        self.now += seconds
        return seconds

    def measure(self, pace, **spec):
        start = self.now
        return measure_blocks(
            self.sample, lambda: self.now - start, LatencySpec(**spec), "simulated", pace=pace and pace(self)
        )


def known(machine):
    """Return what remembers a quick measurement before this one."""
    pace = Pace(lambda: machine.now)
    pace.remember([QUICK] * 20)
    return pace


def new(machine):
    return Pace(lambda: machine.now)


def test_the_ratio_is_that_of_the_quicker_state():
    def alternating(now):
        return now % 0.1 < 0.06

    every = Machine(alternating).measure(None, half_width=0.005, budget_s=1)
    found = Machine(alternating).measure(new, half_width=0.005, budget_s=1)
    assert every.ratio > 0.61  # most pairs are slow ones
    assert found.ratio == pytest.approx(0.6, rel=0.01)
    assert found.dense_ms == pytest.approx(1.0, rel=0.02)
    assert found.converged
    assert found.slowed > found.pairs / 2
    assert len(found.samples_s) == found.pairs
    assert max(dense for dense, _ in found.samples_s) < 1.3e-3
    assert found.to_record(1.0).slowed == found.slowed


def test_states_that_change_in_the_midst_of_a_pair_are_told_apart():
    flips = itertools.cycle([False, True, False, False, True, True, False])
    found = Machine(lambda _: next(flips)).measure(new, half_width=0.005, budget_s=3)
    assert found.ratio == pytest.approx(0.6, rel=0.01)


def test_a_speed_that_changes_from_sample_to_sample_is_no_scatter():
    rng = np.random.default_rng(0)
    machine = Machine(lambda _: rng.random() < 0.5)
    found = machine.measure(known, half_width=0.005, budget_s=3)
    assert found.ratio == pytest.approx(0.6, rel=0.01)
    assert found.dense_ms == pytest.approx(1.0, rel=0.02)


def test_a_candidate_is_slow_where_only_its_reference_was_quick():
    # Once the dense sample alone is quick, once whole blocks are.
    moods = itertools.cycle([True] * 100 + [False] + [True] * 100 + [False] * 5)
    machine = Machine(lambda _: next(moods))
    found = machine.measure(known, half_width=0.005, budget_s=3)
    assert found.ratio == pytest.approx(0.6, rel=0.02)
    assert found.slowed > 20 * found.pairs


def test_a_slow_machine_is_waited_for():
    machine = Machine(lambda now: now < 2.5)
    found = machine.measure(known, half_width=0.02, budget_s=1, wait_s=4)
    assert found.converged
    assert found.ratio == pytest.approx(0.6, rel=0.03)
    assert 2.5 < machine.now < 2.8


@pytest.mark.parametrize(("half_width", "wait", "ends"), [(1e-5, None, 4 / 3), (1e-5, 0.5, 1.5), (0.02, 0.5, 0.5)])
def test_the_wait_ends_and_the_record_says_so(half_width, wait, ends):
    machine = Machine(lambda _: True)
    found = machine.measure(known, half_width=half_width, budget_s=1, wait_s=wait)
    assert ends <= machine.now < ends + 0.05, "the budget and the wait; or the wait from where it was precise"
    assert (found.converged, found.slowed) == (False, 0)
    assert found.ratio == pytest.approx(0.63, rel=0.02)
    assert "the machine ran slower than it can all the while" in found.reason
    assert found.speed == pytest.approx(0.59, abs=0.01)
    assert found.to_record(1.0).reason == found.reason
    assert found.to_record(1.0).speed == found.speed
    assert "slowed" not in found.to_record(1.0).to_data()


def test_a_clock_that_stays_low_becomes_the_speed_of_the_machine():
    machine = Machine(lambda now: now > 0)
    pace = known(machine)
    for _ in range(8):
        found = machine.measure(lambda _: pace, half_width=0.02, budget_s=0.1, wait_s=0.01)
        assert not found.converged
    machine.now += MEMORY_S
    machine.measure(lambda _: pace, half_width=0.02, budget_s=0.1, wait_s=0.01)
    assert machine.measure(lambda _: pace, half_width=0.02, budget_s=0.1, wait_s=0.01).converged


@pytest.mark.parametrize("noise", [0.01, 0.1, 0.4])
def test_noise_is_no_change_of_speed(noise):
    every, found = (Machine(lambda _: False, noise).measure(p, half_width=1e-4, budget_s=1.5) for p in (None, new))
    assert found.pairs + found.slowed == every.pairs
    assert found.slowed < 0.02 * found.pairs
    assert found.ratio == pytest.approx(every.ratio, rel=0.01)


def test_the_first_measurement_takes_a_third_of_its_budget_to_know_the_machine():
    machine = Machine(lambda now: now < 0.2)
    found = machine.measure(new, half_width=0.02, budget_s=0.9)
    assert 0.3 <= machine.now < 0.4
    assert found.ratio == pytest.approx(0.6, rel=0.03)
    assert Pace().new
    assert not known(machine).new


def test_a_measurement_of_few_pairs_tells_nothing_of_the_machine():
    pace = Pace()
    pace.remember([SLOW] * 7)
    assert pace.new
    assert pace.quick([QUICK] * 9 + [SLOW]).tolist() == [True] * 9 + [False]
    assert pace.quick([QUICK]).tolist() == [True]
    assert pace.speed([QUICK]) == 1


@pytest.mark.parametrize("wait", [None, 0])
def test_a_study_that_does_not_wait_counts_every_pair(monkeypatch, wait):
    given = []
    monkeypatch.setattr(turns, "measure_blocks", lambda *a: given.append(a[-1]) or measure_blocks(*a))
    net = nn.Linear(4, 4)
    spec = LatencySpec(half_width=0.9, budget_s=0.01, wait_s=wait)
    found = TorchMeter(spec).measure_pair(net, net, ModelInputs((torch.zeros(1, 4),)))
    assert (given[0] is None) == (wait == 0)
    assert found.pairs > 0


def test_a_quick_network_runs_untimed_before_what_counts():
    calls = []

    def runs(side):
        return lambda repeats: calls.append((side, repeats)) or 1e-3

    for quick in (True, False):
        both = {side: runs(side) for side in ("dense", "candidate")}
        calm = Undisturbed(lambda: 0.0, 0.02)
        warmed = turns._Warmed(both, {"dense": 1, "candidate": 3}, quick, calm)
        for side in ("dense", "candidate", "candidate", "dense", "dense"):
            assert warmed.sample(side) == 1e-3
    dense, candidate = ("dense", 1), ("candidate", 3)
    assert calls[:9] == [dense, dense, *[candidate] * 4, dense, dense, dense]
    assert calls[9:] == [dense, candidate, candidate, dense, dense]


def test_the_ratio_is_the_same_however_often_samples_are_taken_again():
    """Runs take 1 ms and 0.5 ms; the first three of the candidate after something else ran take longer."""

    class Core:
        def __init__(self, share):
            self.now, self.waited, self.side, self.since = 0.0, 0.0, "", 0
            self.share, self.rng = share, np.random.default_rng(0)

        def run(self, side):
            def repeated(repeats):
                begun = self.now
                for _ in range(repeats):
                    if self.rng.random() < self.share:
                        self.waited += 5e-5
                        self.side = ""
                    self.since = self.since + 1 if side == self.side else 0
                    self.side = side
                    cold = (6e-5, 3e-5, 2e-5, 0)[min(self.since, 3)]
                    self.now += 1e-3 if side == "dense" else 5e-4 + cold
                return (self.now - begun) / repeats

            return repeated

        def waits(self):
            found, self.waited = self.waited, 0.0
            return found

    ratios = []
    for share in (0, 0.05, 0.15):
        core = Core(share)
        calm = Undisturbed(core.waits, 0.005, lambda core=core: core.now)
        both = {side: core.run(side) for side in ("dense", "candidate")}
        sample = turns._Warmed(both, {"dense": 2, "candidate": 4}, True, calm).sample
        pairs = [(sample("dense"), sample("candidate")) for _ in range(99)]
        ratios.append(np.median([candidate / dense for dense, candidate in pairs]))
    assert ratios == pytest.approx([0.5] * 3, rel=0.005)
