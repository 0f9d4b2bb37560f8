"""Modelled against measured latency of networks that calibration has not seen; prints a Markdown table.

    autoprune calibrate local-cpu -o fitted.yaml --budget 100s
    PYTHONPATH=DATA/nets OMP_NUM_THREADS=1 python tests/benchmarks/calibration.py DATA fitted.yaml

Batch 1, the profile's threads, eager torch; milliseconds are medians of interleaved runs.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from nets_mlperf_tiny import DSCNN
from nets_resnet_cifar import resnet_cifar

from autoprune.cost.host import detect, machine_title
from autoprune.cost.roofline import predict_latency
from autoprune.cost.traffic import traffic_of
from autoprune.cost.workload import workload_of
from autoprune.spec.hardware import load_device


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("profile")
    parser.add_argument("--rounds", type=int, default=300)
    arguments = parser.parse_args()
    fitted = load_device(arguments.profile)
    found = fitted.calibration
    if found is None:
        parser.error(f"{arguments.profile} holds no calibration")
    prior = detect(load_device("local-cpu"))
    torch.set_num_threads(found.threads or 1)
    cases = {
        "ResNet-20": (resnet_cifar(20), "cifar10_resnet20.pt", torch.randn(1, 3, 32, 32)),
        "DS-CNN": (DSCNN(), "mlperf_tiny_kws_dscnn.pt", torch.randn(1, 1, 49, 10)),
    }
    for net, weights, _ in cases.values():
        net.load_state_dict(torch.load(arguments.data / "weights" / weights, map_location="cpu", weights_only=True))
        net.eval()
    times: dict[str, list[float]] = {name: [] for name in cases}
    with torch.inference_mode():
        for _ in range(arguments.rounds):
            for name, (net, _, x) in cases.items():
                start = time.perf_counter()
                net(x)
                times[name].append(time.perf_counter() - start)
    print(f"{machine_title()}; calibrated {found.date}, {found.samples} layers, {found.threads} thread(s).\n")
    print("| network | measured ms | calibrated ms | error | uncalibrated ms | error |\n|:--|--:|--:|--:|--:|--:|")
    for name, (net, _, x) in cases.items():
        workload = workload_of(net, (x,))
        measured = 1e3 * statistics.median(times[name])
        cells = []
        for profile in (fitted, prior):
            modelled = 1e3 * predict_latency(workload, traffic_of(workload, profile), profile).seconds
            cells.append(f"{modelled:.3f} | {modelled / measured - 1:+.0%}")
        print(f"| {name} | {measured:.3f} | {' | '.join(cells)} |")
    print("\n| predictor of one layer's time, left out | mean error |\n|:--|--:|")
    print(
        f"| roofline, fitted (largest {found.loo_max:.0%}, Spearman {found.loo_spearman:.2f}) | {found.loo_mape:.0%} |"
    )
    print(
        f"| MACs only, fitted | {found.macs_only_mape:.0%} |\n| DRAM bytes only, fitted | {found.bytes_only_mape:.0%} |"
    )


if __name__ == "__main__":
    main()
