"""Calibrate this machine, then modelled against measured latency of networks that calibration has not seen.

PYTHONPATH=DATA/nets OMP_NUM_THREADS=1 python tests/benchmarks/calibration.py DATA

Writes ``reports/calibration/README.md`` and beside it the fitted profile. DATA is the folder of trained networks.
Batch 1, one thread, eager torch; milliseconds are medians of interleaved runs. It takes about four minutes, alone.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from nets_mlperf_tiny import DSCNN
from nets_resnet_cifar import resnet_cifar

from autoprune.cost.calibrate import calibrate
from autoprune.cost.host import detect, machine_title
from autoprune.cost.roofline import predict_latency
from autoprune.cost.traffic import traffic_of
from autoprune.cost.workload import workload_of
from autoprune.spec.hardware import load_device

COMMAND = "PYTHONPATH=DATA/nets OMP_NUM_THREADS=1 python tests/benchmarks/calibration.py DATA"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("reports/calibration"))
    parser.add_argument("--budget", type=float, default=150.0, help="seconds of calibration")
    parser.add_argument("--rounds", type=int, default=300)
    arguments = parser.parse_args()
    prior = detect(load_device("local-cpu"))
    done = calibrate(load_device("local-cpu"), "fitted", arguments.budget)
    fitted, fit = done.profile, done.fit
    found = fitted.calibration
    assert found is not None
    torch.set_num_threads(found.threads or 1)
    cases = {
        "ResNet-20": (resnet_cifar(20), "cifar10_resnet20.pt", torch.randn(1, 3, 32, 32)),
        "DS-CNN": (DSCNN(), "mlperf_tiny_kws_dscnn.pt", torch.randn(1, 1, 49, 10)),
    }
    for net, weights, _ in cases.values():
        net.load_state_dict(torch.load(arguments.data / "weights" / weights, map_location="cpu", weights_only=True))
        net.eval()
    lines = [f"# Calibration\n\n```\n{COMMAND}\n```\n"]
    times: dict[str, list[float]] = {name: [] for name in cases}
    with torch.inference_mode():
        for _ in range(arguments.rounds):
            for name, (net, _, x) in cases.items():
                start = time.perf_counter()
                net(x)
                times[name].append(time.perf_counter() - start)
    lines.append(f"{machine_title()}; calibrated {found.date}, {found.samples} layers, {found.threads} thread(s).\n")
    lines.append(
        "| network | measured ms | calibrated ms | error | uncalibrated ms | error |\n|:--|--:|--:|--:|--:|--:|"
    )
    for name, (net, _, x) in cases.items():
        workload = workload_of(net, (x,))
        measured = 1e3 * statistics.median(times[name])
        cells = []
        for profile in (fitted, prior):
            modelled = 1e3 * predict_latency(workload, traffic_of(workload, profile), profile).seconds
            cells.append(f"{modelled:.3f} | {modelled / measured - 1:+.0%}")
        lines.append(f"| {name} | {measured:.3f} | {' | '.join(cells)} |")
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
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "fitted.yaml").write_text(fitted.to_yaml())
    text = "\n".join(lines) + "\n"
    (arguments.output / "README.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
