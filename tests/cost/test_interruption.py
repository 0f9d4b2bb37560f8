"""Samples in which another process held the core: seen, dropped and taken again; on a clock of the test's own."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autoprune.cost.meters import interruption
from autoprune.cost.meters.eager import TorchMeter
from autoprune.cost.meters.interruption import MOST_TRIES, SLICE_S, Undisturbed, Waits
from autoprune.cost.meters.protocol import ModelInputs
from autoprune.spec.study import LatencySpec


class Machine:
    """Runs samples of so many seconds; of each, another process takes as much as the next of ``taken`` says."""

    def __init__(self, seconds, taken):
        self.now = self.waited = 0.0
        self.seconds, self.taken, self.runs = seconds, iter(taken), 0

    def sample(self):
        lost = next(self.taken)
        self.now += self.seconds + lost
        self.waited += lost
        self.runs += 1
        return self.seconds + lost

    def waits(self):
        found, self.waited = self.waited, 0.0
        return found


def test_what_was_interrupted_is_dropped_and_so_is_what_runs_on_cold_caches():
    machine = Machine(1e-3, [0.0, 3e-3, 0.0, 0.0, 3e-3, 3e-3, 0.0, 1e-5])
    calm = Undisturbed(machine.waits, 0.02, lambda: machine.now)
    assert [calm(machine.sample) for _ in range(3)] == pytest.approx([1e-3, 1e-3, 1.01e-3])
    assert calm.repeated == 5
    assert machine.runs == 8


@pytest.mark.parametrize(
    ("taken", "kept"),
    [
        ([2e-3] * 6 + [1e-3] + [2e-3] * 10, 2e-3),  # never free: the least disturbed
        ([3e-3, 0.0] * 10, 1e-3),  # free for one sample at a time: alone, on cold caches
    ],
)
def test_where_none_runs_alone_and_warm_the_least_disturbed_counts(taken, kept):
    machine = Machine(1e-3, taken)
    calm = Undisturbed(machine.waits, 0.02, lambda: machine.now)
    assert calm(machine.sample) == pytest.approx(kept)
    assert machine.runs == MOST_TRIES
    assert calm.repeated == MOST_TRIES - 1


def test_caches_that_are_filled_anew_forget_an_interruption():
    machine = Machine(1e-3, [3e-3, 0.0, 3e-3, 3e-3, 0.0])
    filled = []
    calm = Undisturbed(machine.waits, 0.02, lambda: machine.now)
    assert [calm(machine.sample, lambda: not filled.append(1)) for _ in range(2)] == pytest.approx([1e-3] * 2)
    assert (calm.repeated, machine.runs, len(filled)) == (3, 5, 5)


def test_an_interruption_while_the_caches_are_filled_costs_nothing():
    machine = Machine(1e-3, [3e-3, 0.0] * 2)
    calm = Undisturbed(machine.waits, 0.02, lambda: machine.now)
    assert [calm(machine.sample, lambda: machine.sample() > 0) for _ in range(2)] == pytest.approx([1e-3] * 2)
    assert calm.repeated == 0


def test_a_sample_longer_than_a_time_slice_counts_as_it_is():
    machine = Machine(2 * SLICE_S, [3e-3] * 3)
    calm = Undisturbed(machine.waits, 0.02, lambda: machine.now)
    assert [calm(machine.sample) for _ in range(3)] == pytest.approx([2 * SLICE_S + 3e-3] * 3)
    assert calm.repeated == 0


def test_a_meter_drops_what_was_interrupted_and_says_how_much(monkeypatch):
    from torch import nn, zeros

    monkeypatch.setattr(interruption, "SLICE_S", float("inf"))
    lost = iter([0.0, 0.0, 0.0, 1.0])  # the first sample is calm, the second interrupted
    monkeypatch.setattr(Waits, "__call__", lambda _: next(lost, 0.0))
    net = nn.Linear(4, 4)
    found = TorchMeter(LatencySpec(half_width=0.5, budget_s=0.05)).measure_pair(net, net, ModelInputs((zeros(1, 4),)))
    assert found.repeated == 1
    assert found.to_record(1.0).repeated == 1
    lost = iter(())
    calm = TorchMeter(LatencySpec(half_width=0.5, budget_s=0.05)).measure_pair(net, net, ModelInputs((zeros(1, 4),)))
    assert calm.repeated == 0
    assert "repeated" not in calm.to_record(1.0).to_data()


@pytest.mark.skipif(not Path("/proc/thread-self/schedstat").exists(), reason="the kernel keeps no books of waiting")
@pytest.mark.parametrize("threads", [1, 2])
def test_another_process_on_the_same_core_is_seen(threads):
    cores = os.sched_getaffinity(0)
    core = {min(cores)}
    spin = f"import os\nos.sched_setaffinity(0, {core})\nprint(flush=True)\nwhile True: pass"
    other = subprocess.Popen([sys.executable, "-c", spin], stdout=subprocess.PIPE)
    try:
        os.sched_setaffinity(0, core)
        other.stdout.readline()
        waits, waited, began = Waits(threads), 0.0, time.monotonic()
        # It comes to this as soon as the other process gets its share; a kernel that keeps no books fails, not hangs.
        while waited < 1e-3 and time.monotonic() - began < 120:
            sum(range(100_000))
            waited += waits()
    finally:
        os.sched_setaffinity(0, cores)
        other.kill()
        other.wait()
        other.stdout.close()
    assert 1e-3 <= waited < 130, "seconds, not nanoseconds"
