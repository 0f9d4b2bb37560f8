"""How well latency is predicted from short measurements; writes ``reports/latency-prediction/README.md``.

PYTHONPATH=DATA/nets OMP_NUM_THREADS=1 python tests/benchmarks/latency_prediction.py DATA

DATA is the folder of trained networks. Nothing else may run meanwhile; it takes about twenty minutes on two cores. Rows
are printed as they are found, and a runtime that is not installed has none.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from textwrap import fill

import numpy as np
import torch
from nets_charlm import CharGPT
from nets_mlperf_tiny import DSCNN
from nets_resnet_cifar import resnet_cifar

from autoprune.cost.candidates import Candidates
from autoprune.cost.host import machine_title
from autoprune.cost.predict import LatencyPredictor
from autoprune.cost.table import DENSE
from autoprune.ranks import spearman
from autoprune.search.proposals import make_proposals
from autoprune.search.survey import random_configs
from autoprune.spec.latency import LatencySpec
from autoprune.spec.study import StudySpec, resolve_study
from autoprune.trial.runner import TrialRunner
from autoprune.trial.survey import Surveyor
from autoprune.trial.task import Task

NETWORKS = {
    "ResNet-20": (lambda: resnet_cifar(20), "cifar10_resnet20.pt", lambda: torch.randn(1, 3, 32, 32)),
    "DS-CNN": (DSCNN, "mlperf_tiny_kws_dscnn.pt", lambda: torch.randn(1, 1, 49, 10)),
    "character GPT": (CharGPT, "charlm_tinyshakespeare_gpt.pt", lambda: torch.randint(65, (1, 128))),
}
SIZES = {"torch": (150, 80), "onnxruntime": (120, 60), "int8": (40, 20), "depth": (80, 40)}
CASES = [
    *((name, "torch", "") for name in NETWORKS),
    ("ResNet-20", "torch", "depth"),
    *((name, "onnxruntime", "") for name in NETWORKS),
    ("ResNet-20", "onnxruntime", "int8"),
]
TITLES = {"": "", "depth": ", blocks too", "int8": ", int8"}
CURVE = (10, 25, 50, 100)
LEARN_S, TEST_S = 12.0, 25.0  # a hundredth of it is what one measurement takes: 0.12 s to learn, 0.25 s to test
PATIENCE = 8.0  # times that, which an unseen network may wait for a host that is slow meanwhile

ABOUT = f"""Networks of the space `channels` (sparsity 0 to 0.8 in each group), drawn as a study draws them before
its first trial; *blocks too*: some without residual blocks (space `channels-depth`); *int8*: after
static quantisation, their time over that of the dense network in fp32. *Learned from*: measurements of
{LEARN_S / 100:.2f} s, paired with the dense network. *Unseen*: others, measured for {TEST_S / 100:.2f} s
each, for longer where the host ran slow meanwhile, with the
5th and 95th percentile of their ratio to dense. *Repeat*: the same unseen networks
measured a second time, mean difference and rank correlation: no prediction can agree with a measurement
better than another measurement does. Where the ratios of a network span little, the order of its
versions is the noise of the meter, and that rank correlation is the most there is. *Left out*: what the
predictor says of itself (mean error, within 10 %, rank correlation). *Roofline*: the model without a
measurement, mean error and rank correlation."""


def prepared(name: str, runtime: str, data: Path, variant: str = ""):
    make, weights, inputs = NETWORKS[name]
    torch.manual_seed(0)
    net = make()
    net.load_state_dict(torch.load(data / "weights" / weights, map_location="cpu", weights_only=True))
    task = Task(model=net.eval(), example_inputs=inputs(), evaluate=lambda _: 1.0, batches=[inputs() for _ in range(8)])
    latency = LatencySpec(runtime=runtime, half_width=0.01)
    space = "channels-depth" if variant == "depth" else "channels"
    spec = resolve_study(StudySpec(task="a:b", space=space, latency=latency))
    precisions = ("fp32", "int8") if variant == "int8" else ("fp32",)
    space = only_magnitude(spec.space).model_copy(update={"precision": precisions})
    spec = spec.model_copy(update={"space": space})
    runner = TrialRunner(task, spec)
    return runner, make_proposals(spec.space, runner.graph, runner.recovery, 0, runner.book)


def only_magnitude(space):
    """Time does not depend on which units go, and no data is needed."""
    return space.model_copy(
        update={"rules": tuple(rule.model_copy(update={"criterion": ("magnitude_l1",)}) for rule in space.rules)}
    )


def arrays(runner, samples):
    kept = np.array([sample.kept for sample in samples], np.int64)
    nothing = np.full((len(kept), len(runner.graph.layers)), DENSE, np.int64)
    ratios, spreads = (np.array([getattr(s, key) for s in samples]) for key in ("ratio", "spread"))
    present = np.stack([runner.costs.model.without(sample.gone) for sample in samples])
    return Candidates(kept, nothing, nothing), ratios, spreads, present


def first(candidates: Candidates, count: int) -> Candidates:
    return Candidates(candidates.kept[:count], candidates.pattern[:count], candidates.nonzeros[:count])


def row(name: str, runtime: str, data: Path, share: float, variant: str = "") -> tuple[str, str]:
    runner, proposals = prepared(name, runtime, data, variant)
    learn, test = (max(int(share * size), 5) for size in SIZES[variant or runtime])
    precision = "int8" if variant == "int8" else "fp32"
    begun = time.perf_counter()
    draws = random_configs(proposals, 1, (precision,))
    seen = Surveyor(runner, LEARN_S).samples(islice(draws, learn), np.inf)
    learning_s = time.perf_counter() - begun
    known = {(sample.kept, sample.gone) for sample in seen}
    configs = list(islice(random_configs(proposals, 2, (precision,)), test))
    again = [Surveyor(runner, TEST_S, PATIENCE).samples(configs, np.inf) for _ in range(2)]
    pairs = [(a, b) for a, b in zip(*again, strict=True) if (a.kept, a.gone) not in known]
    unseen, truth, _, present = arrays(runner, [a for a, _ in pairs])
    repeat = np.array([b.ratio for _, b in pairs])
    candidates, ratios, spreads, runs = arrays(runner, seen)
    device = runner.costs.devices[precision]
    reference = None if precision == "fp32" else runner.costs.devices["fp32"]
    cells = []
    for count in (*(c for c in CURVE if c < len(seen)), len(seen)):
        predictor = LatencyPredictor(device, reference)
        predictor.learn(first(candidates, count), ratios[:count], spreads[:count], runs[:count])
        told = predictor.predict(unseen, present=present)
        errors = np.abs(told.ratio / truth - 1)
        cells.append(f"{count}: {errors.mean():.1%}, {(errors <= 0.1).mean():.0%}, {spearman(told.ratio, truth):.3f}")
    quality = predictor.quality()
    inside = ((told.low <= truth) & (truth <= told.high)).mean()
    modelled = LatencyPredictor(device, reference).predict(unseen, present=present).ratio
    name += TITLES[variant]
    low, high = np.percentile(truth, [5, 95])
    main = (
        f"| {name} | {runtime} | {len(seen)} in {learning_s:.0f} s | {len(truth)} | {low:.2f}-{high:.2f} "
        f"| {errors.mean():.1%} | **{(errors <= 0.1).mean():.0%}** | **{spearman(told.ratio, truth):.3f}** "
        f"| {inside:.0%} | {np.abs(repeat / truth - 1).mean():.1%}, {spearman(repeat, truth):.3f} "
        f"| {quality.mean_error:.1%}, {quality.within_10:.0%}, {quality.spearman:.3f} "
        f"| {np.abs(modelled / truth - 1).mean():.0%}, {spearman(modelled, truth):.2f} |"
    )
    return main, f"| {name} | {runtime} | {' | '.join(cells)} |" + " |" * (len(CURVE) + 1 - len(cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("reports/latency-prediction/README.md"))
    parser.add_argument("--share", type=float, default=1.0, help="of the measurements, for a quick look")
    parser.add_argument("--runtimes", default="torch,onnxruntime")
    parser.add_argument("--only", default="", help="part of a network's name")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runtimes = [each for each in arguments.runtimes.split(",") if each == "torch" or importlib.util.find_spec(each)]
    rows = []
    for name, runtime, variant in CASES:
        if runtime in runtimes and arguments.only in name + TITLES[variant]:
            rows.append(row(name, runtime, arguments.data, arguments.share, variant))
            print(rows[-1][0], flush=True)
            write(rows, runtimes, arguments.output)


def write(rows: list[tuple[str, str]], runtimes: list[str], output: Path) -> None:
    """Write the report of what is there: a run that is stopped has lost the rest alone."""
    command = "PYTHONPATH=DATA/nets OMP_NUM_THREADS=1 python tests/benchmarks/latency_prediction.py DATA"
    versions = [f"torch {torch.__version__}", *(f"ONNX Runtime {version(r)}" for r in runtimes if r != "torch")]
    where = f"{machine_title()}, {', '.join(versions)}, one thread, batch 1."
    heads = ("network", "runtime", "learned from", "unseen", "ratio", "mean error", "within 10 %", "rank correlation")
    heads += ("in 95 % interval", "repeat", "left out", "roofline")
    lines = [
        *(
            "# Latency predicted from short measurements",
            "",
            "```",
            command,
            "```",
            "",
            fill(f"{where} {' '.join(ABOUT.split())}", 119),
            "",
        ),
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
        *(main for main, _ in rows),
        *("", "## By number of measurements", "", "Mean error, within 10 %, rank correlation on the unseen networks."),
        *("", f"| network | runtime |{' |' * (len(CURVE) + 1)}", f"|{'---|' * (len(CURVE) + 3)}"),
        *(curve for _, curve in rows),
    ]
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
