"""Energy meters on a tree like the kernel's, on a replayed NVML, and in windows with a clock of their own."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from powercap import LAPTOP, SERVER, Powercap
from small_task import task
from test_calibrate import BOUNDS, fitted

import autoprune
from autoprune.cost.calibrate import EnergySamples, calibrated_profile, fit_energy, fit_roofline
from autoprune.cost.energy import estimate_from
from autoprune.cost.energy_meters import (
    ENERGY_METERS,
    NvmlMeter,
    RaplMeter,
    find_energy_meter,
    measure_idle,
    measure_pair_energy,
    measure_window,
    rapl,
)
from autoprune.cost.host import detect
from autoprune.cost.meters import TorchMeter
from autoprune.cost.meters.choice import choose_meter
from autoprune.errors import MeterError, UnknownNameError, UsageError
from autoprune.spec.hardware import load_device
from autoprune.spec.latency import LatencySpec
from autoprune.spec.study import SearchSpec, StudySpec
from autoprune.testing import check_energy_meter
from autoprune.trial.runner import TrialRunner


def test_rapl_passes_the_suite_and_wraps(tmp_path: Path) -> None:
    tree = Powercap(tmp_path, SERVER)
    meter = RaplMeter(tree.folder)
    assert meter.name == "RAPL package-0, package-1, dram, dram"
    check_energy_meter(meter, lambda: tree.draw(2.5), least_j=4 * 3 * 2.5 - 1e-5)
    assert meter.read_j() == pytest.approx(4 * 3 * 2.5, abs=1e-5)  # two of the counters have wrapped
    for _ in range(40):
        tree.draw(5_000)
        meter.read_j()
    assert meter.read_j() == pytest.approx(4 * (7.5 + 200_000), rel=1e-9)


def test_rapl_counts_nothing_twice(tmp_path: Path) -> None:
    tree = Powercap(tmp_path, LAPTOP)
    meter = RaplMeter(tree.folder)
    tree.draw(1.0)
    assert (meter.name, meter.read_j()) == ("RAPL package-0", pytest.approx(1.0))
    (tmp_path / "other").mkdir()
    alone = RaplMeter(Powercap(tmp_path / "other", {"intel-rapl:0": LAPTOP["intel-rapl:1"]}).folder)
    assert alone.name == "RAPL psys"


def test_without_counters_rapl_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "so this processor's energy counters cannot be read" in RaplMeter.missing(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="leave energy to the model"):
        RaplMeter(tmp_path)
    tree = Powercap(tmp_path, SERVER)
    counter = tree.folder / "intel-rapl:0" / "energy_uj"
    counter.chmod(0o000)  # the kernel's own mode since 2020 is 0400
    if os.access(counter, os.R_OK):  # root reads everything
        real = Path.read_text

        def refusing(path: Path, *args: object, **kwargs: object) -> str:
            if path.name == "energy_uj":
                raise PermissionError(13, "Permission denied")
            return real(path, *args, **kwargs)

        monkeypatch.setattr(Path, "read_text", refusing)
        monkeypatch.setattr(rapl.os, "access", lambda *_: False)
    with pytest.raises(UsageError, match=r"may not be read by this user; allow it with 'sudo chmod o\+r"):
        RaplMeter(tree.folder)


def test_a_counter_that_vanishes_is_one_sentence(tmp_path: Path) -> None:
    tree = Powercap(tmp_path, SERVER)
    meter = RaplMeter(tree.folder)
    (tree.folder / "intel-rapl:1" / "energy_uj").unlink()
    with pytest.raises(MeterError, match="can no longer be read"):
        meter.read_j()


class ReplayedNvml(ModuleType):
    """What ``pynvml`` is to this project, with a counter that moves in steps, as a board's does ten times a second."""

    STEPS_MJ = (90_117_000, 90_117_000, 90_124_350, 90_131_802, 90_131_802, 90_139_100, 90_146_395)

    class NVMLError(Exception):
        """As the library's."""

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.__spec__ = importlib.util.spec_from_loader("pynvml", loader=None)
        self.readings: Iterator[int] = iter(self.STEPS_MJ)
        self.broken = False

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return f"board {index}"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        return {"GPU-5c1c8d6e-0000-4000-8000-00000000beef": "board 0"}[uuid]

    def nvmlDeviceGetName(self, handle: str) -> bytes:  # noqa: N802
        assert handle == "board 0"
        return b"NVIDIA L4"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        if self.broken:
            raise self.NVMLError("Not Supported")
        return next(self.readings)


def test_nvml_passes_the_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    library = ReplayedNvml()
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    meter = NvmlMeter()
    assert meter.name == "NVML NVIDIA L4"
    check_energy_meter(meter, lambda: None, least_j=14.0)
    library.broken = True
    with pytest.raises(MeterError, match=r"no longer read the energy of NVIDIA L4 \(Not Supported\)"):
        meter.read_j()
    assert "gives no energy counter here (Not Supported)" in NvmlMeter.missing()
    monkeypatch.setattr("autoprune.cost.energy_meters.nvml.find_spec", lambda _: None)
    assert NvmlMeter.missing() == "energy meter 'nvml' needs nvidia-ml-py; pip install 'autoprune[nvml]'"


def test_nvml_counts_the_board_that_cuda_computes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA numbers the boards that it may see, NVML all of them: they meet by UUID, which torch prints bare."""
    library = ReplayedNvml()
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monkeypatch.setattr(library, "nvmlDeviceGetHandleByIndex", lambda _: pytest.fail("asked by number"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    board = SimpleNamespace(uuid="5c1c8d6e-0000-4000-8000-00000000beef")
    monkeypatch.setattr(torch.cuda, "get_device_properties", {1: board}.__getitem__)
    assert NvmlMeter().name == "NVML NVIDIA L4"


class Bench:
    """A device with a clock of its own: it draws so many watts while a run lasts, and less at rest."""

    covers: ClassVar[str] = "cpu"
    window_s: ClassVar[float] = 2.0
    name = "a bench"

    def __init__(self, watts: float = 20.0, idle_w: float = 5.0) -> None:
        self.watts, self.idle_w, self.now, self.joules = watts, idle_w, 0.0, 0.0

    @classmethod
    def missing(cls) -> str:
        return ""

    def read_j(self) -> float:
        return self.joules

    def clock(self) -> float:
        return self.now

    def runner(self, seconds: float):
        def run(repeats: int) -> float:
            self.now += repeats * seconds
            self.joules += repeats * seconds * self.watts
            return seconds

        return run

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.joules += seconds * self.idle_w


def test_windows_give_energy_per_run_and_idle_power() -> None:
    bench = Bench()
    window = measure_window(bench, bench.runner(0.004), 1.0, bench.clock)
    assert window.joules_per_run == pytest.approx(0.004 * 20)
    assert window.seconds >= 1.0
    assert window.watts == pytest.approx(20)
    assert measure_idle(bench, 1.0, bench.sleep, bench.clock).watts == pytest.approx(5)
    drawn = measure_pair_energy(bench, bench.runner(0.004), bench.runner(0.001), bench.clock)
    assert (drawn.mj, drawn.dense_mj) == (pytest.approx(20.0), pytest.approx(80.0))
    assert (drawn.window_s >= 4.0, drawn.meter) == (True, "a bench")
    bench.watts = 0.0
    with pytest.raises(MeterError, match="the energy counter a bench did not move in"):
        measure_window(bench, bench.runner(0.01), 1.0, bench.clock)


def test_a_meter_is_found_by_name_or_by_what_can_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(ENERGY_METERS.names()) >= {"rapl", "nvml"}
    assert find_energy_meter("none", "cpu") is None
    with pytest.raises(UnknownNameError, match="did you mean 'rapl'"):
        find_energy_meter("rappl", "cpu")
    monkeypatch.setattr(rapl, "ZONES", Path("/no/such/folder"))
    assert find_energy_meter(None, "cpu") is None
    with pytest.raises(UsageError, match="energy meter 'rapl': "):
        find_energy_meter("rapl", "cpu")
    monkeypatch.setitem(ENERGY_METERS._items, "bench", Bench)
    assert find_energy_meter(None, "cpu") is None  # four windows of two seconds are not asked of every trial
    assert isinstance(find_energy_meter("bench", "cpu"), Bench)
    with pytest.raises(UsageError, match="counts the cpu, and this study measures on the gpu"):
        find_energy_meter("bench", "gpu")
    command = {"runtime": "command", "energy_meter": "bench", "command": {"run": "true {model}", "export": "pt2"}}
    spec = LatencySpec.model_validate(command)
    with pytest.raises(UsageError, match="where no meter of this machine counts"):
        choose_meter(spec, load_device("local-cpu"))


class QuickBench(Bench):
    """Counts as real time goes by."""

    window_s: ClassVar[float] = 0.01

    def read_j(self) -> float:
        import time

        return 7.0 * time.perf_counter()


def test_measured_energy_stands_beside_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENERGY_METERS._items, "quick", QuickBench)
    spec = StudySpec(
        task="small_task:task",
        space="channels",
        search=SearchSpec(trials=1),
        latency=LatencySpec(energy_meter="quick", half_width=0.9, budget_s=0.02),
    )
    runner = TrialRunner(task(), autoprune.spec.study.resolve_study(spec))
    assert isinstance(runner.meter, TorchMeter)
    record = runner.run_dense(0)
    assert record.energy is not None
    assert record.latency is not None
    measured = record.energy.measured
    assert measured is not None
    assert measured.meter == "a bench"
    # Seven watts for as long as a run takes; on a busy machine two windows may differ by much, but not by a unit.
    assert 1 / 30 < measured.mj / (7.0 * record.latency.candidate_ms) < 30
    assert record.latency.energy is None  # it has gone to where energy is kept
    assert record.values["energy_mj"] == record.energy.mj  # the objective stays the model's


def samples(noise: float = 0.01, seed: int = 0) -> tuple[EnergySamples, dict[str, float]]:
    """Return layers of a machine whose coefficients are known, all within the ranges of ``local-cpu``."""
    rng = np.random.default_rng(seed)
    truth = {"idle_w": 3.0, "active_w": 5.0, "mac_pj": 40.0, "llc_pj": 6.0, "dram_pj": 20.0}
    macs = 10 ** rng.uniform(5, 8, 24)
    moved = 10 ** rng.uniform(3, 6, (24, 2))
    seconds = 5e-6 + macs / 3e10 + moved[:, 1] / 1e10
    joules = seconds * 8.0 + macs * 40e-12 + 8e-12 * (6.0 * moved[:, 0] + 20.0 * moved[:, 1])
    return EnergySamples(joules * rng.lognormal(0, noise, 24), seconds, macs, moved, 3.0, 11.0), truth


def test_the_fit_finds_the_machine_and_beats_its_baselines() -> None:
    found, truth = samples()
    fit = fit_energy(found, detect(load_device("local-cpu")), "a bench")
    assert fit.loo_mape < 0.02
    assert fit.loo_mape < fit.time_only_mape < fit.macs_only_mape
    assert fit.idle_w == truth["idle_w"]
    # MACs go together with time, so only what all coefficients say together is known well.
    assert fit.active_w == pytest.approx(truth["active_w"], rel=0.3)
    other, _ = samples(noise=0.0, seed=1)
    terms = (other.seconds * (fit.idle_w + fit.active_w), other.macs * fit.mac_pj * 1e-12)
    said = sum(terms) + other.level_bytes @ np.array(fit.bit_pj) * 8e-12
    assert np.abs(said / other.joules - 1).mean() < 0.02


def test_a_fit_makes_a_profile_that_is_checked_and_says_how_far_to_trust_it() -> None:
    prior = detect(load_device("local-cpu"))
    measured = fitted()
    times = fit_roofline(measured.samples, prior=[1e-5, 1e10, 8e10, 4e9], bounds=BOUNDS, ridges=[1e-4])
    fit = fit_energy(samples()[0], prior, "a bench")
    profile = calibrated_profile(prior, "mine", measured, times, fit)
    assert profile.power.idle_w.value == pytest.approx(3.0)
    assert profile.power.idle_w.confidence == "measured"
    assert profile.calibration is not None
    assert profile.calibration.energy is not None
    assert profile.calibration.energy.loo_mape == fit.loo_mape
    estimate = estimate_from(profile, 1e-3, {"float32": 1e6}, (1e5,) * (len(profile.memory) - 1), 1e6)
    assert estimate.basis.startswith(f"calibrated {profile.calibration.date} on 24 layers by a bench (leave-one-out")
    without = calibrated_profile(prior, "mine", measured, times)
    assert without.calibration is not None
    basis = estimate_from(without, 1e-3, {"float32": 1e6}, (1e5,) * (len(profile.memory) - 1), 1e6).basis
    assert "energy uncalibrated" in basis
