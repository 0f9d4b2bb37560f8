"""Energy of idling and of random layers, counted, and the energy model's coefficients fitted to it.

``E = t (P_idle + P_active) + e_mac MACs + sum_level e_level bits_level``: idle power is measured alone, the rest is
fitted inside the ranges of the profile, relative to each measurement, with a pull towards the prior whose strength has
the smallest leave-one-out error.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from autoprune.cost.calibrate.fitting import line_mape
from autoprune.cost.calibrate.measuring import features, random_layers
from autoprune.cost.energy_meters import EnergyMeter, measure_idle, measure_window
from autoprune.cost.extents import Floats
from autoprune.spec.hardware import DeviceProfile, Figure

_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)
_STEPS = 60
_MOST_LAYERS = 24
_IDLE_SHARE = 0.15


@dataclass(frozen=True)
class EnergySamples:
    """Counted energy of layers, each one operator.

    Attributes:
        joules: Of one run, all that the device drew, shape (n,).
        seconds: Of one run, shape (n,).
        macs: Shape (n,).
        level_bytes: Over each edge between memory levels, inner to outer, shape (n, levels - 1).
        idle_w: Power of the device while nothing of ours ran.
        most_w: Highest mean power of a window.
    """

    joules: Floats
    seconds: Floats
    macs: Floats
    level_bytes: Floats
    idle_w: float
    most_w: float


@dataclass(frozen=True)
class EnergyFit:
    """Fitted coefficients, and how wrong the energy of a layer is that was left out.

    Attributes:
        idle_w: Measured.
        most_w: Highest measured power.
        active_w: Drawn on top while a layer runs.
        mac_pj: One multiply-add.
        bit_pj: One bit over each edge, inner to outer.
        loo_mape: Mean absolute relative error of layers left out.
        macs_only_mape: The same error of ``a + b MACs``.
        time_only_mape: The same error of power x time, one power for all.
        samples: Layers.
        meter: What counted.
    """

    idle_w: float
    most_w: float
    active_w: float
    mac_pj: float
    bit_pj: tuple[float, ...]
    loo_mape: float
    macs_only_mape: float
    time_only_mape: float
    samples: int
    meter: str


def measure_energy(
    profile: DeviceProfile, meter: EnergyMeter, budget_s: float, threads: int = 1, seed: int = 0
) -> EnergySamples:
    """Count the energy of idling and of random layers in eager torch.

    Args:
        profile: Of this machine, detected.
        meter: The counter.
        budget_s: Wall time; windows are never shorter than the meter's own.
        threads: Threads of torch.
        seed: Of the layers.

    Raises:
        MeterError: The counter does not move.
    """
    count = int(min(_MOST_LAYERS, max(8, (1 - _IDLE_SHARE) * budget_s / meter.window_s)))
    window = max(meter.window_s, (1 - _IDLE_SHARE) * budget_s / count)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers = random_layers(count, seed)
            idle = measure_idle(meter, max(meter.window_s, _IDLE_SHARE * budget_s))
            windows = [measure_window(meter, _runner(layer, example), window) for layer, example in layers]
    finally:
        torch.set_num_threads(before)
    rows = [features(layer, example, profile) for layer, example in layers]
    return EnergySamples(
        joules=np.array([w.joules_per_run for w in windows]),
        seconds=np.array([w.seconds / w.runs for w in windows]),
        macs=np.array([row[0] for row in rows]),
        level_bytes=np.array([row[2] for row in rows]),
        idle_w=idle.watts,
        most_w=max(idle.watts, *(w.watts for w in windows)),
    )


def fit_energy(samples: EnergySamples, profile: DeviceProfile, meter: str) -> EnergyFit:
    """Fit the energy model to counted layers.

    Args:
        samples: At least four.
        profile: Prior; its ranges bound the fit, but for the power of a busy device, which may reach what was measured.
        meter: Name of what counted.
    """
    figures = [profile.mac_energy("float32"), *(level.energy_pj_per_bit for level in profile.memory[1:])]
    active = profile.power.active_w
    highest = max(active.high, samples.most_w - samples.idle_w, 1e-3)
    prior = np.log([max(active.value, 1e-3), *(max(figure.value, 1e-6) for figure in figures)])
    low = np.log([1e-3 * highest, *(max(figure.low, 1e-6) for figure in figures)])
    high = np.log([highest, *(figure.high for figure in figures)])
    prior = np.clip(prior, low, high)
    terms = np.column_stack([samples.seconds, samples.macs * 1e-12, samples.level_bytes * 8e-12])
    base, y = samples.idle_w * samples.seconds, samples.joules

    def solve(keep: Floats, ridge: float) -> Floats:
        return _solve(terms[keep], base[keep], y[keep], prior, (low, high), ridge)

    def errors(ridge: float) -> float:
        wrong = []
        for n in range(len(y)):
            found = np.exp(solve(np.arange(len(y)) != n, ridge))
            wrong.append(abs((base[n] + terms[n] @ found) / y[n] - 1))
        return float(np.mean(wrong))

    by_ridge = {ridge: errors(ridge) for ridge in _RIDGES}
    ridge = min(by_ridge, key=lambda r: by_ridge[r])
    found = np.exp(solve(np.ones(len(y), dtype=bool), ridge))
    return EnergyFit(
        idle_w=samples.idle_w,
        most_w=samples.most_w,
        active_w=float(found[0]),
        mac_pj=float(found[1]),
        bit_pj=tuple(float(value) for value in found[2:]),
        loo_mape=by_ridge[ridge],
        macs_only_mape=line_mape(samples.macs, y),
        time_only_mape=_power_mape(samples.seconds, y),
        samples=len(y),
        meter=meter,
    )


def _solve(terms: Floats, base: Floats, y: Floats, prior: Floats, ends: tuple[Floats, Floats], ridge: float) -> Floats:
    """Levenberg-Marquardt over the logarithms of the coefficients, projected onto their bounds."""
    pull = np.sqrt(ridge * len(y))

    def inside(log_c: Floats) -> Floats:
        log_c = np.clip(log_c, *ends)
        log_c[2:] = np.maximum.accumulate(log_c[2:])  # no level costs less than the one inside it
        return log_c

    def residuals(log_c: Floats) -> Floats:
        return np.concatenate([(base + terms @ np.exp(log_c)) / y - 1, pull * (log_c - prior)])

    at, damping = inside(prior.copy()), 1e-2
    r = residuals(at)
    for _ in range(_STEPS):
        jacobian = np.vstack([terms * np.exp(at) / y[:, None], pull * np.eye(len(at))])
        normal = jacobian.T @ jacobian
        move = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -jacobian.T @ r)
        trial = inside(at + move)
        changed = residuals(trial)
        if changed @ changed < r @ r:
            done = np.abs(trial - at).max() < 1e-7
            at, r, damping = trial, changed, damping / 3
            if done:
                break
        else:
            damping *= 4
            if damping > 1e9:
                break
    return at


def _power_mape(seconds: Floats, y: Floats) -> float:
    """Return the leave-one-out error of one power for all, fitted relative to y."""
    rates = seconds / y
    wrong = []
    for n in range(len(y)):
        keep = np.delete(rates, n)
        wrong.append(abs(rates[n] * keep.sum() / (keep @ keep) - 1))
    return float(np.mean(wrong))


def _runner(layer: torch.nn.Module, example: torch.Tensor) -> Callable[[int], float]:
    def run(repeats: int) -> float:
        begun = time.perf_counter()
        for _ in range(repeats):
            layer(example)
        return (time.perf_counter() - begun) / repeats

    return run


def updated_with(profile: DeviceProfile, fit: EnergyFit) -> dict[str, Any]:
    """Return the parts of a profile that a fit replaces: power, and the energies of a MAC and of each level's bits."""

    def figure(value: float, source: str) -> Figure:
        return Figure(value=float(f"{value:.6g}"), source=source, confidence="measured")

    fitted = f"fitted to {fit.samples} layers, {fit.meter}"
    power = profile.power.model_copy(
        update={
            "idle_w": figure(fit.idle_w, f"this machine at rest, {fit.meter}"),
            "active_w": figure(fit.active_w, fitted),
            "tdp_w": figure(max(fit.most_w, 1.05 * fit.idle_w), f"highest while layers ran, {fit.meter}"),
        }
    )
    compute = profile.compute.model_copy(
        update={"mac_energy_pj": {**profile.compute.mac_energy_pj, "float32": figure(fit.mac_pj, fitted)}}
    )
    memory = [
        level.model_copy(update={"energy_pj_per_bit": figure(pj, fitted)})
        for level, pj in zip(profile.memory[1:], fit.bit_pj, strict=True)
    ]
    inner = profile.memory[0]
    if inner.energy_pj_per_bit.value > fit.bit_pj[0]:
        inner = inner.model_copy(update={"energy_pj_per_bit": memory[0].energy_pj_per_bit})
    return {"power": power, "compute": compute, "memory": (inner, *memory)}
