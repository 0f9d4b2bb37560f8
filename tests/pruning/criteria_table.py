"""One-shot accuracy of every criterion on trained networks, and what its scores cost; writes a Markdown report.

    python tests/pruning/criteria_table.py --data DIR [--out reports/criteria/README.md]

DIR holds ``weights/``, ``nets/``, ``cifar10_small.npz`` and ``kws_mlperf_tiny.npz``. Not collected by pytest.
"""

from __future__ import annotations

import argparse
import copy
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.cost.macs import count_macs
from autoprune.graph.groups import ModelGraph
from autoprune.pruning.allocation import ALLOCATIONS, MacsTarget, allocate
from autoprune.pruning.criteria import CRITERIA
from autoprune.pruning.criteria.passes import batches_of, gradients
from autoprune.pruning.granularity import granularity
from autoprune.pruning.plan import make_plan
from autoprune.pruning.proof import proven_groups
from autoprune.pruning.scores import ScoreBook
from autoprune.pruning.surgery import prune
from autoprune.spec.config import LayerChoice, ModelIdentity, PruningConfig, RecoverySpec
from autoprune.trial.pruned import pruned_model, recover_pruned
from autoprune.trial.recovery import recalibrate_batchnorm
from autoprune.trial.task import Calibration

TARGETS = (("weight", 0.5), ("weight", 0.8), ("weight", 0.9), ("2:4", 0.5), ("channel", 0.3), ("channel", 0.5))
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Subject:
    """A trained network with the data to calibrate and to score it on.

    Attributes:
        norms_with_fit: Whether batch norm is recalibrated after a least-squares fit as well.
    """

    name: str
    about: str
    model: nn.Module
    calibration: Batch
    validation: Batch
    norms_with_fit: bool = True


def subjects(data: Path) -> list[Subject]:
    sys.path.insert(0, str(data / "nets"))
    from nets_mlperf_tiny import DSCNN, ResNet8
    from nets_resnet_cifar import resnet_cifar

    cifar, words = dict(np.load(data / "cifar10_small.npz")), dict(np.load(data / "kws_mlperf_tiny.npz"))
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    raw = {key: torch.from_numpy(cifar[key]).permute(0, 3, 1, 2).float() for key in ("x_train", "x_test")}
    train, test = (torch.from_numpy(cifar[key]).long() for key in ("y_train", "y_test"))
    normal = {key: (value / 255 - mean) / std for key, value in raw.items()}
    mfcc = (torch.from_numpy(words["x_int8"]).float() - float(words["zero_point"])) * float(words["scale"])
    mfcc, spoken = mfcc.reshape(-1, 1, 49, 10), torch.from_numpy(words["y"]).long()
    pixels = "calibrated on 512 training images, scored on the first 1,000 test images"

    def load(model: nn.Module, file: str) -> nn.Module:
        model.load_state_dict(torch.load(data / "weights" / file, map_location="cpu", weights_only=True))
        return model.eval()

    return [
        Subject(
            "ResNet-20, CIFAR-10",
            pixels,
            load(resnet_cifar(20), "cifar10_resnet20.pt"),
            (normal["x_train"][:512], train[:512]),
            (normal["x_test"][:1000], test[:1000]),
        ),
        Subject(
            "DS-CNN, keyword spotting (MLPerf Tiny)",
            "no training data is at hand: calibrated on the first 500 evaluation samples, scored on the other 500",
            load(DSCNN(), "mlperf_tiny_kws_dscnn.pt"),
            (mfcc[:500], spoken[:500]),
            (mfcc[500:], spoken[500:]),
            norms_with_fit=False,
        ),
        Subject(
            "ResNet-8, CIFAR-10 (MLPerf Tiny)",
            pixels,
            load(ResNet8(), "mlperf_tiny_ic_resnet8.pt"),
            (raw["x_train"][:512], train[:512]),
            (raw["x_test"][:1000], test[:1000]),
        ),
    ]


class Bench:
    """One network, traced and scored once."""

    def __init__(self, subject: Subject) -> None:
        images, labels = subject.calibration
        self.subject = subject
        self.data = Calibration(images[:1], list(zip(images.split(128), labels.split(128), strict=True)), cross_entropy)
        self.graph: ModelGraph = proven_groups(subject.model, (images[:1],))[0]
        self.book = ScoreBook(self.data.evidence(subject.model, self.graph, seed=0))

    def accuracy(self, model: nn.Module) -> float:
        images, labels = self.subject.validation
        with torch.no_grad():
            right = sum(
                int((model(x).argmax(1) == y).sum()) for x, y in zip(images.split(250), labels.split(250), strict=True)
            )
        return right / len(labels)

    def recalibrated(self) -> float:
        """Return the accuracy of the dense model with batch norm recalibrated: what recalibration alone does."""
        model = copy.deepcopy(self.subject.model)
        recalibrate_batchnorm(model, self.data, 512)
        return self.accuracy(model)

    def pruned(self, config: PruningConfig, compensate: str) -> float:
        keeps_norms = compensate != "none" and not self.subject.norms_with_fit
        recovery = RecoverySpec(compensate=compensate, batchnorm_samples=0 if keeps_norms else 512)
        config = config.model_copy(update={"recovery": recovery})
        found = pruned_model(self.subject.model, self.graph, self.book, config)
        recover_pruned(found, config, self.data)
        return self.accuracy(found.model)

    def config(self, criterion: str, key: str, sparsity: float) -> PruningConfig | None:
        """Return the same sparsity everywhere, or None where the criterion cannot judge every layer or group."""
        if key == "channel":
            judged = [(group.name, group) for group in self.graph.groups.values() if group.kind == key]
        else:
            judged = [(name, layer) for name, layer in self.graph.layers.items() if not granularity(key).refusal(layer)]
        if not all(self.book.serves(criterion, key, item) for _, item in judged):
            return None
        fraction = None if key == "2:4" else sparsity
        choice = LayerChoice(granularity=key, criterion=criterion, sparsity=fraction)
        identity = ModelIdentity(fingerprint=self.graph.fingerprint)
        return PruningConfig(model=identity, layers={name: (choice,) for name, _ in judged})


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def accuracy_table(bench: Bench, compensate: str) -> str:
    head = ["criterion", *(f"{key} {sparsity:.0%}" if key != "2:4" else key for key, sparsity in TARGETS)]
    rows = []
    for criterion in CRITERIA.names():
        cells = []
        for key, sparsity in TARGETS:
            config = bench.config(criterion, key, sparsity)
            cells.append("–" if config is None else f"{bench.pruned(config, compensate):.1%}")
        rows.append([f"`{criterion}`", *cells])
    return table(head, rows)


def allocation_table(bench: Bench) -> str:
    wanted = (0.8, 0.9, 0.95)
    example = (bench.subject.calibration[0][:1],)

    def macs(config: PruningConfig) -> float:
        return float(count_macs(prune(bench.subject.model, make_plan(config, bench.graph, bench.book)), example).total)

    rows = []
    for key in ALLOCATIONS.names():
        cells = []
        for sparsity in wanted:
            if key == "global_per_mac":
                cells.append("–")
                continue
            config = allocate(key, bench.graph, bench.book, "weight", "magnitude_l2", sparsity=sparsity)
            cells.append(f"{bench.pruned(config, 'none'):.1%}")
        config = allocate(key, bench.graph, bench.book, "channel", "taylor", macs=MacsTarget(0.6, macs))
        rows.append([f"`{key}`", *cells, f"{bench.pruned(config, 'none'):.1%}"])
    return table(["allocation", *(f"weight {s:.0%}" for s in wanted), "channels, 60% of MACs"], rows)


def speed_table(bench: Bench, repeats: int = 5) -> str:
    """Time scores beside the passes that they need, in turns; the least of a few counts."""
    evidence = bench.book.evidence

    def forward(samples: int = 512) -> None:
        with torch.no_grad():
            for batch in batches_of(evidence, samples):
                cross_entropy(evidence.model, batch)

    def backward() -> None:
        for _ in gradients(evidence):
            pass

    def least(runs: Sequence[Callable[[], object]]) -> list[float]:
        best = [float("inf")] * len(runs)
        for _ in range(repeats):
            for place, run in enumerate(runs):
                started = time.perf_counter()
                run()
                best[place] = min(best[place], time.perf_counter() - started)
        return best

    rows = []
    for name, rule in CRITERIA:
        samples = 8 if name == "hrank" else 512
        needed: Callable[[], object] = backward if rule.needs_loss else lambda samples=samples: forward(samples)
        base, taken = least([needed, lambda rule=rule: rule.scores(evidence)])
        passes = f"forward and backward, {samples}" if rule.needs_loss else f"forward, {samples}"
        ratio = f"{taken / base:.2f}" if rule.needs_data else f"none needed ({taken / base:.2f} of a forward pass)"
        rows.append([f"`{name}`", passes if rule.needs_data else "–", f"{1e3 * taken:.0f} ms", ratio])
    return table(["criterion", "passes needed, samples", "scores", "over the passes alone"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("reports/criteria/README.md"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    parts = [HEADER]
    for number, subject in enumerate(subjects(chosen.data)):
        bench = Bench(subject)
        dense, recalibrated = bench.accuracy(subject.model), bench.recalibrated()
        scores = f"Dense {dense:.1%}, with batch norm recalibrated {recalibrated:.1%}"
        parts.append(f"## {subject.name}\n\n{scores}; {subject.about}.\n")
        if number == 0:
            parts.append(f"Time of all scores, one thread, the least of five runs in turns:\n\n{speed_table(bench)}\n")
        parts.append(f"Batch norm recalibrated, nothing else:\n\n{accuracy_table(bench, 'none')}\n")
        how = "before it" if subject.norms_with_fit else "in its place, for recalibration alone costs too much here"
        parts.append(f"With `compensate: least_squares` {how}:\n\n{accuracy_table(bench, 'least_squares')}\n")
        if number == 0:
            parts.append(
                "Allocations, `magnitude_l2` for weights and `taylor` for channels, batch norm recalibrated:\n\n"
                f"{allocation_table(bench)}\n"
            )
        minutes = (time.perf_counter() - started) / 60
        made = f"Made in {minutes:.0f} minutes with torch {torch.__version__} on {platform.machine()}, one thread.\n"
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text("\n".join([*parts, made]), encoding="utf-8")


HEADER = """# Criteria, one shot

What is left of trained networks when every layer or group loses the same share at once, with no training after it.
`–`: the criterion cannot judge this granularity, or not every layer of this network. `random` is one draw. With 1,000
images the standard error of an accuracy is about 1 point, with 500 about 1.5.

```
python tests/pruning/criteria_table.py --data DIR
```

How to read it:

- The magnitudes and `lamp` order the weights of one layer alike, so with one share for all layers they agree for
  `weight` and `2:4`; they differ for channels, and as allocations.
- As published, on ResNet-20 magnitude, `wanda` and `obs` lead for weights, the allocations beat `uniform` for weights,
  and `gradient` alone is no better than `random` there. DS-CNN has little to spare, and without a fit every criterion
  fails on it; `taylor` and `wanda` fail last.
- Least squares on some 500 samples gives back much of what is lost at 50 % of the weights, at 2:4 and at 30 % of the
  channels, without training; there it is worth more than the choice among the better criteria.
- Batch norm recalibrated on few samples that are not as the training data were (no augmentation, other noise) costs
  accuracy by itself: compare the two dense figures before using it.
- `obs` and `hrank` do arithmetic beside their passes (second moments, ranks); the others cost little more than the
  passes. The machine was shared while this ran, so a ratio is good to about 10 %.
"""

if __name__ == "__main__":
    main()
