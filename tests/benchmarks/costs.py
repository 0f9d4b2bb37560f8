"""Make ``reports/costs/README.md``: how exact the costs from counts are, how quick, and how near to silicon.

OMP_NUM_THREADS=1 python tests/benchmarks/costs.py > reports/costs/README.md
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "cost"), str(TESTS / "graph")]

from cache_simulation import TINY, least_words  # noqa: E402
from eyeriss import ENERGY_MJ, MODELS, leave_one_out  # noqa: E402
from sequence_models import CharGPT  # noqa: E402
from test_attention import BYTES, SHAPES, brute_force, modelled  # noqa: E402
from test_attention import words_moved as attention_words  # noqa: E402
from test_cache import model_words  # noqa: E402
from test_model import NETWORKS, made, random_candidates, surgery  # noqa: E402
from test_traffic import ALEXNET, alexnet  # noqa: E402

from autoprune.cost.device import DeviceCosts  # noqa: E402
from autoprune.cost.macs import count_macs  # noqa: E402
from autoprune.cost.model import CostModel  # noqa: E402
from autoprune.cost.storage import size_bytes  # noqa: E402
from autoprune.cost.traffic import traffic_of  # noqa: E402
from autoprune.cost.workload import workload_of  # noqa: E402
from autoprune.graph.groups import find_groups  # noqa: E402
from autoprune.spec.hardware import load_device  # noqa: E402

CONFIGS = 30
BATCH = 4096


class Block(nn.Module):
    """A basic (3x3, 3x3) or bottleneck (1x1, 3x3, 1x1) residual block."""

    def __init__(self, inputs: int, width: int, outputs: int, stride: int) -> None:
        super().__init__()
        bottleneck = outputs != width
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        widths = (inputs, width, width, outputs) if bottleneck else (inputs, width, outputs)
        strides = (1, stride, 1) if bottleneck else (stride, 1)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, k, s, k // 2, bias=False)
            for a, b, k, s in zip(widths, widths[1:], kernels, strides, strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(y if number == 0 else F.relu(y)))
        return F.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet-20 for 32x32, or ResNet-50 for 224x224 (He et al. 2015)."""

    def __init__(self, large: bool) -> None:
        super().__init__()
        stem, expansion = (64, 4) if large else (16, 1)
        self.stem = nn.Conv2d(3, stem, 7 if large else 3, 2 if large else 1, 3 if large else 1, bias=False)
        self.norm, self.large = nn.BatchNorm2d(stem), large
        stages = ((64, 3), (128, 4), (256, 6), (512, 3)) if large else ((16, 3), (32, 3), (64, 3))
        blocks, inputs = [], stem
        for stage, (width, depth) in enumerate(stages):
            for number in range(depth):
                blocks.append(Block(inputs, width, width * expansion, 2 if stage and not number else 1))
                inputs = width * expansion
        self.blocks, self.fc = nn.Sequential(*blocks), nn.Linear(inputs, 1000 if large else 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = F.max_pool2d(x, 3, 2, 1) if self.large else x
        return self.fc(F.adaptive_avg_pool2d(self.blocks(x), 1).flatten(1))


def timed_networks() -> Iterator[tuple[str, nn.Module, tuple[Tensor, ...]]]:
    torch.manual_seed(0)
    yield "ResNet-50, 224x224", ResNet(large=True).eval(), (torch.randn(1, 3, 224, 224),)
    yield "ResNet-20, 32x32", ResNet(large=False).eval(), (torch.randn(1, 3, 32, 32),)
    gpt = CharGPT(vocabulary=65, width=128, heads=4, layers=4, time=128).eval()
    yield "character GPT, 4 layers", gpt, (torch.randint(65, (1, 128)),)


def paragraph(text: str) -> None:
    print(fill(" ".join(text.split()), 119) + "\n")


def exactness() -> None:
    print("## MACs, parameters and size against fvcore and the built model\n")
    paragraph(f"""{CONFIGS} random networks each: units of all groups cut at random, masks of seven granularities on
        half of the layers. Compared to the integer: MACs in all, MACs of every layer, parameters, stored bytes. *Same
        operators* is the share for which traffic and energy are those of the built model; for the others eager torch
        makes a copy more or less, and a trial counts the built model.""")
    print("| architecture | groups | configs | mismatches | same operators |\n|---|---|---|---|---|")
    all_configs = all_wrong = 0
    for name in NETWORKS:
        net, inputs, model = made(name)
        candidates = random_candidates(model, CONFIGS, seed=11)
        counts, wrong = model.counts(candidates), 0
        for row in range(CONFIGS):
            smaller = surgery(net, model, candidates, row, seed=12)
            counted = count_macs(smaller, inputs)
            told = (counts.macs[row], counts.params[row], counts.size_bytes[row], *counts.layer_macs[row])
            layers = (counted.modules.get(layer, 0) for layer in model.layers)
            parameters = sum(parameter.numel() for parameter in smaller.parameters())
            wrong += told != (counted.total, parameters, size_bytes(smaller), *layers)
        all_configs, all_wrong = all_configs + CONFIGS, all_wrong + wrong
        same = model.exact_traffic(candidates).mean()
        print(f"| {name} | {len(model.groups)} | {CONFIGS} | {wrong} | {same:.0%} |")
    print(f"| **all** | | **{all_configs}** | **{all_wrong}** | |\n")


def best_of(repeats: int, run: Callable[[], Any]) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def speed() -> None:
    profile = load_device("raspberry-pi-5")
    print("## Time of one config\n")
    paragraph("""Milliseconds, median, one thread. *Counts*: MACs, effective MACs, parameters, size. *All*: with traffic
        over every level, activations, latency and energy of every operator (raspberry-pi-5). In brackets: how many
        times quicker than building the network and counting it (surgery, fvcore; for all: also recording and modelling
        it).""")
    print(f"| network | made in | counts, alone | counts, of {BATCH} | all, alone | all, of {BATCH} | build + fvcore |")
    print("|---|---|---|---|---|---|---|")
    for name, net, inputs in timed_networks():
        graph = find_groups(net, inputs)
        started = time.perf_counter()
        model = CostModel(net, graph, inputs)
        made_in = time.perf_counter() - started
        device = DeviceCosts(model, profile)
        one, many = random_candidates(model, 1, 1), random_candidates(model, BATCH, 2)

        def both(candidates: Any, model: CostModel = model, device: DeviceCosts = device) -> None:
            model.counts(candidates)
            device.energy_j(device.costs(candidates))

        def build(net: nn.Module = net, model: CostModel = model, one: Any = one) -> nn.Module:
            return surgery(net, model, one, 0, 3)

        def model_it(net: nn.Module = net, inputs: Any = inputs, build: Callable[[], nn.Module] = build) -> None:
            traffic_of(workload_of(build(), inputs), profile)

        fvcore = best_of(3, lambda build=build, inputs=inputs: count_macs(build(), inputs))
        whole = fvcore + best_of(3, model_it)
        # A fresh object each time: what was just asked of the same one is remembered.
        cells = [
            (best_of(200, lambda model=model, one=one: model.counts(replace(one))), fvcore),
            (best_of(3, lambda model=model, many=many: model.counts(many)) / BATCH, fvcore),
            (best_of(200, lambda both=both, one=one: both(replace(one))), whole),
            (best_of(1, lambda both=both, many=many: both(many)) / BATCH, whole),
        ]
        shown = " | ".join(f"{1e3 * seconds:.3f} ({slow / seconds:,.0f}x)" for seconds, slow in cells)
        print(f"| {name} | {made_in:.1f} s | {shown} | {1e3 * fvcore:.0f} |")
    print()


def eyeriss_traffic() -> None:
    print("## DRAM traffic of Eyeriss, AlexNet, batch 4 (MB)\n")
    paragraph("""Nothing is tuned: 100 KB of buffer, 16-bit words, published shares of zeros, run-length coded as on the
        chip.""")
    print("| layer | published | modelled | error |\n|---|---|---|---|")
    traffic = traffic_of(alexnet(), load_device("eyeriss"))
    errors = []
    for row, op in zip(ALEXNET, traffic.ops, strict=True):
        errors.append(op.dram_bytes / 1e6 / row[-1] - 1)
        print(f"| {row[0]} | {row[-1]:.1f} | {op.dram_bytes / 1e6:.2f} | {errors[-1]:+.1%} |")
    print(f"| all | 15.4 | {traffic.dram_bytes / 1e6:.2f} | {traffic.dram_bytes / 15.4e6 - 1:+.1%} |\n")
    every = traffic.compulsory_bytes / 1e6
    print(f"Mean error per layer {np.abs(errors).mean():.1%}; every tensor once is {every:.1f} MB.\n")


def eyeriss_energy() -> None:
    print("## Chip energy of Eyeriss, leave-one-out over the five layers of AlexNet\n")
    print("Energy is published power times time; coefficients by relative least squares on the other four layers.\n")
    print("| terms | mean error | largest |\n|---|---|---|")
    for name, terms in MODELS.items():
        errors = np.abs(leave_one_out(terms, ENERGY_MJ))
        print(f"| {name} | {errors.mean():.1%} | {errors.max():.1%} |")
    print()


def caches() -> None:
    print("## Tiny layers against a cache played word by word\n")
    paragraph("""Words moved. LRU: the best tile of the same loops through a fully associative LRU cache of C or 2 C
        words. It must hold: lower bound <= LRU(C), and LRU(2 C) <= 2 x model(C) (Sleator and Tarjan 1985). A layer is
        (c_in, c_out, side, kernel, stride, padding).""")
    print("| layer | C | lower bound | LRU(C) | LRU(2 C) | model(C) | holds |")
    print("|---|---|---|---|---|---|---|")
    for layer, capacity in product(TINY, (24, 48, 96)):
        model = model_words(layer, capacity)
        small, large = least_words(layer, capacity), least_words(layer, 2 * capacity)
        holds = model.lower_bound <= small and large <= 2 * model.model
        cells = f"{model.lower_bound:.0f} | {small} | {large} | {model.model:.0f} | {'yes' if holds else 'NO'}"
        print(f"| {tuple(layer)} | {capacity} | {cells} |")


def attention() -> None:
    print("\n## Tiny attention against every block and against a cache played word by word\n")
    paragraph("""Words moved by a fused kernel. *Played*: the best of all blocks of both loop orders, the tensors once
        where all fit, and at most both operands of every multiply-add; the model must say the same. LRU as above, of
        the order that holds queries. A shape is (queries, keys, width of keys, width of values, heads).""")
    print("| shape | C | each tensor once | played | LRU(C) | LRU(2 C) | model(C) | holds |")
    print("|---|---|---|---|---|---|---|---|")
    for shape, capacity in product(SHAPES, (24, 40, 80)):
        found = modelled(shape, BYTES * capacity)
        once, model, untiled = (
            each / BYTES for each in (found.compulsory_bytes, found.dram_bytes, found.untiled_bytes)
        )
        played = once if once <= capacity else min(brute_force(*shape, capacity), untiled)
        small, large = (
            min(attention_words(shape, block, c) for block in range(1, shape[0] + 1)) for c in (capacity, 2 * capacity)
        )
        holds = model == played and once <= small and large <= 2 * model
        cells = f"{once:.0f} | {played:.0f} | {small} | {large} | {model:.0f} | {'yes' if holds else 'NO'}"
        print(f"| {shape} | {capacity} | {cells} |")


def main() -> None:
    print("# Costs from counts\n")
    print("Made by `OMP_NUM_THREADS=1 python tests/benchmarks/costs.py > reports/costs/README.md`.\n")
    torch.set_num_threads(1)
    exactness()
    speed()
    eyeriss_traffic()
    eyeriss_energy()
    caches()
    attention()


if __name__ == "__main__":
    main()
