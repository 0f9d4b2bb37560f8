"""Paired latency of pruned ResNet-20s while another process burns the other core, beside the same on a quiet machine.

    PYTHONPATH=DATA/nets OMP_NUM_THREADS=1 python tests/benchmarks/latency_under_load.py DATA

DATA holds the networks and weights. Writes reports/latency-under-load/README.md. About fourteen minutes on two cores,
which nothing else should use meanwhile.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import hypot
from pathlib import Path
from statistics import median, stdev

import torch
from nets_resnet_cifar import resnet_cifar

import autoprune
from autoprune.cost.host import machine_title
from autoprune.cost.meters import RUNTIMES, ModelInputs, PairedLatency
from autoprune.graph.groups import find_groups
from autoprune.spec.config import LayerChoice, ModelIdentity, PruningConfig
from autoprune.spec.study import LatencySpec

REPORT = Path(__file__).parents[2] / "reports" / "latency-under-load" / "README.md"
RUNTIME_NAMES = ("torch", "torch_compile", "onnxruntime")
WIDTHS = {"12/24/48 channels": 0.25, "8/16/32 channels": 0.5, "4/8/16 channels": 0.75}
LIMIT = 0.03

BURN = """
import os, sys, torch
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {int(sys.argv[1])})
torch.set_num_threads(1)
a, b = torch.randn(512, 512), torch.ones(4_000_000)
print("burning", flush=True)
while True:  # arithmetic, then memory
    a @ a
    b.add_(1.0)
"""

HEADING = """# Latency under load

Made by `PYTHONPATH=DATA/nets OMP_NUM_THREADS=1 python tests/benchmarks/latency_under_load.py DATA` on {machine}.
ResNet-20 on CIFAR-10, trained weights, batch 1, float32, one thread{pinned}. Each row is one pruned network against
the dense one, in pairs A B B A for {budget:g} s on the quiet machine, and then while another process multiplies
matrices and copies memory on {burned}, without a pause; {turns} times in turns, with the median and (least to most).
*Dense* is the dense network in the same measurements. What two quiet measurements differ by is the meter's own noise.
A change has two standard errors beside it. *Kept* are those that the meter did not mark
as made while the host was slow throughout (all, where all were).

**{verdict}** Largest change of a ratio: {worst_ratio}. Change of the dense network's milliseconds: {worst_ms}.

| runtime | pruned to | ratio, quiet | ratio, loaded | change | dense, quiet | dense, loaded | change | pairs | kept |
|---|---|--:|--:|--:|--:|--:|--:|--:|--:|
"""


@dataclass(frozen=True)
class Row:
    runtime: str
    network: str
    quiet: list[PairedLatency]
    loaded: list[PairedLatency]

    @property
    def ratio_change(self) -> float:
        return median(p.ratio for p in self.loaded) / median(p.ratio for p in self.quiet) - 1

    @property
    def doubt(self) -> float:
        """Two standard errors of the change: of a median of normal values each is 1.253 deviations over the root."""
        errors = [
            1.253 * stdev(p.ratio for p in each) / len(each) ** 0.5 for each in (self.quiet, self.loaded) if each[1:]
        ]
        return 2 * hypot(*errors) / median(p.ratio for p in self.quiet)

    @property
    def ms_change(self) -> float:
        return median(p.dense_ms for p in self.loaded) / median(p.dense_ms for p in self.quiet) - 1

    def __str__(self) -> str:
        cells = (
            f"`{self.runtime}`",
            self.network,
            *(_span([p.ratio for p in each], "", 3) for each in (self.quiet, self.loaded)),
            f"{self.ratio_change:+.1%} ± {self.doubt:.1%}",
            *(_span([p.dense_ms for p in each], " ms", 2) for each in (self.quiet, self.loaded)),
            f"{self.ms_change:+.0%}",
            ", ".join(str(sum(p.pairs for p in each)) for each in (self.quiet, self.loaded)),
            f"{len(self.quiet)}, {len(self.loaded)}",
        )
        return f"| {' | '.join(cells)} |"


def _span(values: list[float], unit: str, digits: int) -> str:
    return f"{median(values):.{digits}f}{unit} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--runtimes", nargs="+", default=RUNTIME_NAMES)
    parser.add_argument("--budget", type=float, default=2.0, help="seconds of each measurement")
    parser.add_argument("--turns", type=int, default=9, help="measurements of each kind")
    parser.add_argument("-o", "--output", type=Path, default=REPORT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dense = resnet_cifar(20)
    weights = arguments.data / "weights" / "cifar10_resnet20.pt"
    dense.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    inputs = ModelInputs((torch.randn(1, 3, 32, 32),))
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) == 1:
        parser.error("this process may use one core, and the load needs another")
    ours, other = (None, 0) if not cores else ((cores[0],), cores[1])
    networks = {name: pruned(dense.eval(), inputs, sparsity) for name, sparsity in WIDTHS.items()}
    rows = []
    for runtime in arguments.runtimes:
        # So narrow an interval is not reached: every measurement takes its whole budget.
        spec = LatencySpec(
            runtime=runtime, affinity=ours, half_width=1e-4, budget_s=arguments.budget, wait_s=arguments.budget
        )
        meter = RUNTIMES.get(runtime)(spec)
        for name, model in networks.items():
            quiet, loaded = [], []
            for _ in range(arguments.turns):
                quiet.append(meter.measure_pair(dense, model, inputs))
                with load(other):
                    loaded.append(meter.measure_pair(dense, model, inputs))
            rows.append(Row(runtime, name, counted(quiet), counted(loaded)))
            print(rows[-1], flush=True)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(report(rows, ours, other, arguments.budget, arguments.turns), encoding="utf-8")
    print(f"wrote {arguments.output}")


def counted(found: list[PairedLatency]) -> list[PairedLatency]:
    """Return those that were not slow throughout; all where they all were."""
    return [one for one in found if one.speed is None] or found


def pruned(dense: torch.nn.Module, inputs: ModelInputs, sparsity: float) -> torch.nn.Module:
    graph = find_groups(dense, inputs.args)
    choice = (LayerChoice(granularity="channel", criterion="magnitude_l2", sparsity=sparsity),)
    config = PruningConfig(
        model=ModelIdentity(fingerprint=graph.fingerprint), layers=dict.fromkeys(graph.groups, choice)
    )
    return autoprune.apply(dense, config, inputs.args)


@contextmanager
def load(core: int) -> Iterator[None]:
    burner = subprocess.Popen([sys.executable, "-c", BURN, str(core)], stdout=subprocess.PIPE, text=True)
    try:
        assert burner.stdout is not None
        burner.stdout.readline()  # it burns from here on
        yield
    finally:
        burner.kill()
        burner.communicate()


def report(rows: list[Row], ours: tuple[int, ...] | None, other: int, budget: float, turns: int) -> str:
    outside = [row for row in rows if abs(row.ratio_change) > LIMIT]
    verdict = (
        f"All {len(rows)} ratios stay within ±{LIMIT:.0%} of the quiet ones."
        if not outside
        else f"{len(outside)} of {len(rows)} ratios leave the ±{LIMIT:.0%} around the quiet ones."
    )
    by_ms = [row.ms_change for row in rows]
    heading = HEADING.format(
        machine=machine_title(),
        pinned="" if ours is None else f" on core {ours[0]}",
        budget=budget,
        turns=turns,
        burned=f"core {other}" if ours is not None else "the other cores",
        verdict=verdict,
        worst_ratio=f"{max((row.ratio_change for row in rows), key=abs):+.1%}",
        worst_ms=f"{min(by_ms):+.0%} to {max(by_ms):+.0%}",
    )
    return heading + "".join(f"{row}\n" for row in rows)


if __name__ == "__main__":
    main()
