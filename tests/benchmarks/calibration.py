"""Calibrate this machine, then modelled against measured latency of networks that calibration has not seen.

PYTHONPATH=DATA/nets OMP_NUM_THREADS=1 python tests/benchmarks/calibration.py DATA

Writes ``reports/calibration/README.md`` and beside it the fitted profile. DATA is the folder of trained networks.
Batch 1, one thread, eager torch; milliseconds are the 20th percentile of interleaved runs. It takes about six minutes,
alone: what load does is tried with processes of its own.
"""

import argparse
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from textwrap import fill

import numpy as np
import torch
from nets_mlperf_tiny import DSCNN
from nets_resnet_cifar import resnet_cifar

from autoprune.cost.calibrate import calibrate, calibrated_profile, fit_roofline
from autoprune.cost.calibrate.measuring import QUANTILE
from autoprune.cost.calibrate.writing import prior_of
from autoprune.cost.host import detect, machine_title
from autoprune.cost.roofline import predict_latency
from autoprune.cost.traffic import traffic_of
from autoprune.cost.workload import workload_of
from autoprune.spec.hardware import load_device

COMMAND = "PYTHONPATH=DATA/nets OMP_NUM_THREADS=1 python tests/benchmarks/calibration.py DATA"
BURN = "while True: sum(i * i for i in range(10000))"
QUANTILES = {"median": 0.5, "20th percentile": 0.2, "10th percentile": 0.1}

ABOUT = """Repeats of each layer are many, and one number must stand for them. Here the same repeats give three,
without load and beside processes that do nothing but burn a core: how far the times of the layers, and
the modelled times of two networks, are from those without load (of the layers the mean absolute
difference, each quantile against the same without load). What calibration takes is the 20th percentile.
The last column is what it says of the machine."""

NEAR = """A layer that is timed alone, right after a run of its own, finds all that it needs in the nearest cache; in a
network the layers between have taken some of the place, and Python walks from module to module. So networks take longer
than the sum of their layers says, and the model orders them all the same."""


@contextmanager
def burning(count: int):
    """Keep so many cores busy."""
    burners = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(count)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def modelled_ms(profile, net, x) -> float:
    workload = workload_of(net, (x,))
    return 1e3 * predict_latency(workload, traffic_of(workload, profile), profile).seconds


def measure(cases, times: dict[str, list[float]], rounds: int) -> None:
    """Time networks in turns, each warm; a host that drifts is met before, between and after the calibrations."""
    with torch.inference_mode():
        for _ in range(rounds):
            for name, (net, _, x) in cases.items():
                net(x)
                start = time.perf_counter()
                net(x)
                times[name].append(time.perf_counter() - start)


def load_table(cases, budget_s: float) -> list[str]:
    """Calibrate without load and beside one and two burners; the same repeats by several quantiles."""
    prior = detect(load_device("local-cpu"))
    found = {}
    for burners in (0, 1, 2):
        with burning(burners):
            found[burners] = calibrate(load_device("local-cpu"), "fitted", budget_s).measured
    lines = ["| burners | of the repeats | layers off by | ResNet-20 | DS-CNN | told |", "|--:|:--|--:|--:|--:|:--|"]
    for burners, measured in found.items():
        for name, q in QUANTILES.items():
            quiet, here = (np.quantile(m.repeats_s, q, axis=0) for m in (found[0], measured))
            samples = replace(measured.samples, seconds=here)
            held = replace(measured, samples=samples)
            fitted = calibrated_profile(prior, "fitted", held, fit_roofline(samples, *prior_of(prior, held)))
            nets = " | ".join(f"{modelled_ms(fitted, net, x):.3f} ms" for net, _, x in cases.values())
            off = f"{np.abs(here / quiet - 1).mean():.0%}" if burners else ""
            lines.append(f"| {burners} | {name} | {off} | {nets} | {measured.busy.partition(';')[0] or 'quiet'} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("reports/calibration"))
    parser.add_argument("--budget", type=float, default=120.0, help="seconds of calibration")
    parser.add_argument("--load-budget", type=float, default=50.0, help="seconds of each calibration under load")
    parser.add_argument("--rounds", type=int, default=2000, help="of timing the networks, three times")
    arguments = parser.parse_args()
    prior = detect(load_device("local-cpu"))
    torch.set_num_threads(1)
    cases = {
        "ResNet-20": (resnet_cifar(20), "cifar10_resnet20.pt", torch.randn(1, 3, 32, 32)),
        "DS-CNN": (DSCNN(), "mlperf_tiny_kws_dscnn.pt", torch.randn(1, 1, 49, 10)),
    }
    for net, weights, _ in cases.values():
        net.load_state_dict(torch.load(arguments.data / "weights" / weights, map_location="cpu", weights_only=True))
        net.eval()
    times: dict[str, list[float]] = {name: [] for name in cases}
    measure(cases, times, arguments.rounds)
    done = calibrate(load_device("local-cpu"), "fitted", arguments.budget)
    measure(cases, times, arguments.rounds)
    under_load = load_table(cases, arguments.load_budget)
    measure(cases, times, arguments.rounds)
    fitted, fit = done.profile, done.fit
    found = fitted.calibration
    assert found is not None
    lines = [f"# Calibration\n\n```\n{COMMAND}\n```\n"]
    if found.busy:
        print(found.busy, file=sys.stderr)
    lines.append(f"{machine_title()}; calibrated {found.date}, {found.samples} layers, {found.threads} thread(s).\n")
    lines.append(
        "| network | measured ms | calibrated ms | error | uncalibrated ms | error |\n|:--|--:|--:|--:|--:|--:|"
    )
    for name, (net, _, x) in cases.items():
        measured = 1e3 * float(np.quantile(times[name], QUANTILE))
        cells = []
        for profile in (fitted, prior):
            modelled = modelled_ms(profile, net, x)
            cells.append(f"{modelled:.3f} | {modelled / measured - 1:+.0%}")
        lines.append(f"| {name} | {measured:.3f} | {' | '.join(cells)} |")
    lines += ["", fill(" ".join(NEAR.split()), 119)]
    lines.append("\n| predictor of one layer's time, left out | mean error |\n|:--|--:|")
    lines.append(
        f"| roofline, fitted (largest {found.loo_max:.0%}, Spearman {found.loo_spearman:.2f}) | {found.loo_mape:.0%} |"
    )
    lines.append(f"| the same, one rate for all kinds of layers | {found.one_rate_mape:.0%} |")
    lines.append(
        f"| MACs only, fitted | {found.macs_only_mape:.0%} |\n| DRAM bytes only, fitted | {found.bytes_only_mape:.0%} |"
    )
    lines.append("\n| kind | layers | launch us | GMACs/s | mean error, left out |\n|:--|--:|--:|--:|--:|")
    for kind, each in fit.kinds.items():
        rate = "" if each.macs_per_s is None else f"{each.macs_per_s / 1e9:.3g}"
        lines.append(f"| {kind} | {each.samples} | {1e6 * each.launch_s:.3g} | {rate} | {each.loo_mape:.0%} |")
    if fit.better_baseline:
        lines.append(f"\nThe fitted model is no better than {fit.better_baseline} on layers left out.")
    lines += ["\n## Under load\n", fill(" ".join(ABOUT.split()), 119), "", *under_load]
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "fitted.yaml").write_text(fitted.to_yaml())
    text = "\n".join(lines) + "\n"
    (arguments.output / "README.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
