"""The problems of the race: networks on real data, small enough that an evaluation takes a fraction of a second.

An evaluation is one-shot pruning, batch norm recalibrated on 100 images, and the score on 300 to 500 validation
samples (ResNet-20 300, digits 450, DS-CNN 500, GPT 48 windows of 128 characters). Costs
are those of a Raspberry Pi 4 by the models, so that every number is the same on every machine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.examples import digits
from autoprune.spec.config import RecoverySpec
from autoprune.spec.space import SpaceSpec
from autoprune.spec.study import SearchSpec, StudySpec, resolve_study
from autoprune.trial.task import Task

DEVICE = "raspberry-pi-4"
OBJECTIVES = {2: ("accuracy_drop", "macs"), 4: ("accuracy_drop", "macs", "latency_ms", "energy_mj")}
WORST_DROP = {"digits": 0.5, "resnet20": 0.5, "dscnn": 0.5, "gpt": 1.0}
"""The hypervolume's reference point: this drop (of accuracy, for the GPT nats a character), and the dense costs."""

CHANNELS = {
    "schema": "autoprune/space/1",
    "name": "channels",
    "rules": [
        {
            "granularity": ["channel"],
            "criterion": ["magnitude_l1", "magnitude_l2", "taylor", "batchnorm_scale"],
            "sparsity": {"low": 0.0, "high": 0.8, "step": 0.1},
        }
    ],
}
MIXED = {
    "schema": "autoprune/space/1",
    "name": "mixed",
    "rules": [
        {
            "granularity": ["channel", "head", "weight", "2:4"],
            "criterion": ["magnitude_l1", "magnitude_l2", "taylor", "batchnorm_scale", "random"],
            "sparsity": {"low": 0.0, "high": 0.8, "step": 0.1},
        }
    ],
}
GPT_CHANNELS = {
    "schema": "autoprune/space/1",
    "name": "channels",
    "rules": [
        {
            "granularity": ["channel", "head"],
            "criterion": ["magnitude_l1", "magnitude_l2", "taylor"],
            "sparsity": {"low": 0.0, "high": 0.8, "step": 0.1},
        }
    ],
}


@dataclass(frozen=True)
class Problem:
    """One network with one space.

    Attributes:
        network: "digits", "resnet20", "dscnn" or "gpt".
        space: "channels" or "mixed".
    """

    network: str
    space: str

    @property
    def name(self) -> str:
        """How files call it."""
        return f"{self.network}-{self.space}"

    def spec(self) -> StudySpec:
        """Return the study: four objectives; a race of two reads the first two."""
        space = MIXED if self.space == "mixed" else GPT_CHANNELS if self.network == "gpt" else CHANNELS
        # The thousand samples of the DS-CNN are unlike what it was trained on: recalibrated on 100 of them, the dense
        # network falls from 91 to 74 %.
        samples = {"digits": 100, "resnet20": 100, "dscnn": 0, "gpt": 0}[self.network]
        spec = StudySpec(
            task="tests.benchmarks.sampling.problems:task",
            device=DEVICE,
            space=SpaceSpec.model_validate(space),
            objectives=OBJECTIVES[4],
            search=SearchSpec(trials=320),
            recovery=RecoverySpec(batchnorm_samples=samples),
        )
        return resolve_study(spec)

    def task(self, data: Path, work: Path) -> Task:
        """Return the network with its data.

        Args:
            data: Folder with weights, nets and data sets; not read for the digits.
            work: Where the digits network is kept.
        """
        return _TASKS[self.network](data, work)


def _accuracy(x: Tensor, y: Tensor, model: nn.Module) -> float:
    return float(torch.cat([model(part).argmax(1) for part in x.split(100)]).eq(y).float().mean())


def _cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def _train(batches: list[tuple[Tensor, Tensor]], model: nn.Module, steps: int, rate: float = 0.01) -> None:
    """SGD with momentum and a cosine schedule over the training batches, in an order drawn from torch's generator."""
    optimizer = torch.optim.SGD(model.train().parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order: list[int] = []
    for _ in range(steps):
        order = order or torch.randperm(len(batches)).tolist()
        optimizer.zero_grad()
        _cross_entropy(model, batches[order.pop()]).backward()
        optimizer.step()
        schedule.step()
    model.eval()


def _digits(data: Path, work: Path) -> Task:
    return digits.task(work)


def _import(data: Path, module: str) -> object:
    path = str(data / "nets")
    if path not in sys.path:
        sys.path.insert(0, path)
    return __import__(module)


def _loaded(model: nn.Module, path: Path) -> nn.Module:
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.eval()


def _resnet20(data: Path, work: Path) -> Task:
    nets = _import(data, "nets_resnet_cifar")
    arrays = dict(np.load(data / "cifar10_small.npz"))
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x, train = ((torch.from_numpy(arrays[k]).permute(0, 3, 1, 2) / 255 - mean) / std for k in ("x_test", "x_train"))
    y, labels = (torch.from_numpy(arrays[k]).long() for k in ("y_test", "y_train"))
    model = _loaded(nets.resnet_cifar(20), data / "weights" / "cifar10_resnet20.pt")  # type: ignore[attr-defined]
    batches = list(zip(train.split(100), labels.split(100), strict=True))
    return Task(
        model=model,
        example_inputs=x[:1],
        evaluate=partial(_accuracy, x[:300], y[:300]),
        test=partial(_accuracy, x[1000:], y[1000:]),
        batches=batches,
        loss=_cross_entropy,
        finetune=partial(_train, batches),
    )


def _dscnn(data: Path, work: Path) -> Task:
    nets = _import(data, "nets_mlperf_tiny")
    arrays = dict(np.load(data / "kws_mlperf_tiny.npz"))
    x = ((torch.from_numpy(arrays["x_int8"]).float() - float(arrays["zero_point"])) * float(arrays["scale"])).reshape(
        -1, 1, 49, 10
    )
    y = torch.from_numpy(arrays["y"]).long()
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(y)))
    x, y = x[order], y[order]  # 1,000 samples in all: 500 to score, 200 to calibrate, 300 to test
    return Task(
        model=_loaded(nets.DSCNN(), data / "weights" / "mlperf_tiny_kws_dscnn.pt"),  # type: ignore[attr-defined]
        example_inputs=x[:1],
        evaluate=partial(_accuracy, x[:500], y[:500]),
        test=partial(_accuracy, x[700:], y[700:]),
        batches=list(zip(x[500:700].split(100), y[500:700].split(100), strict=True)),
        loss=_cross_entropy,
    )


def _nats(x: Tensor, y: Tensor, model: nn.Module) -> float:
    return float(F.cross_entropy(model(x).flatten(0, 1), y.flatten()))


def _sequence_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())


def _gpt(data: Path, work: Path) -> Task:
    nets = _import(data, "nets_charlm")
    text = (data / "tinyshakespeare.txt").read_text()
    number = {letter: n for n, letter in enumerate(sorted(set(text)))}
    ids = torch.tensor([number[letter] for letter in text])
    first = int(0.9 * len(ids))

    def windows(start: int, count: int) -> tuple[Tensor, Tensor]:
        part = ids[start : start + count * 128 + 1]
        return part[:-1].reshape(count, 128), part[1:].reshape(count, 128)

    x, y = windows(first, 48)
    held = windows(first + 60_000, 96)
    batches = [windows(20_000 * n, 16) for n in range(8)]
    return Task(
        model=_loaded(nets.CharGPT(), data / "weights" / "charlm_tinyshakespeare_gpt.pt"),  # type: ignore[attr-defined]
        example_inputs=x[:1],
        evaluate=partial(_nats, x, y),
        higher_is_better=False,
        test=partial(_nats, *held),
        batches=batches,
        loss=_sequence_loss,
    )


_TASKS: dict[str, Callable[[Path, Path], Task]] = {
    "digits": _digits,
    "resnet20": _resnet20,
    "dscnn": _dscnn,
    "gpt": _gpt,
}
