"""Networks that nobody wrote: random operators on random earlier values, and the same exactness."""

from __future__ import annotations

import random

import architectures
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from autoprune.graph.groups import find_groups
from autoprune.pruning.proof import half_of_each, surgery_error


class RandomNetwork(nn.Module):
    """A chain of random operators, each on one or two of the values so far; 6 x 6 maps throughout."""

    def __init__(self, seed: int, length: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        self.steps: list[tuple[str, tuple[int, ...], int]] = []
        dice = random.Random(seed)
        widths = [4]
        self.layers.append(nn.Conv2d(3, 4, 3, padding=1))
        while len(self.steps) < length:
            kind = dice.choice(sorted(OPERATORS))
            width = self._plan(kind, dice, widths)
            if width:
                widths.append(width)
        self.layers.append(nn.Linear(widths[-1], 3))

    def _plan(self, kind: str, dice: random.Random, widths: list[int]) -> int:
        """Add a step; return its width, or 0 where the operator does not fit."""
        source = dice.choice([len(widths) - 1, dice.randrange(len(widths))])
        width, sources, layer = widths[source], (source,), -1
        if kind in {"add", "mul"}:
            partners = [i for i, other in enumerate(widths) if other == width]
            sources = (source, dice.choice(partners))
        elif kind == "cat":
            sources = (source, dice.randrange(len(widths)))
            width += widths[sources[1]]
        elif kind in {"half", "gate", "pairs"}:
            if width % 2 or width < 4:
                return 0
            width //= 1 if kind == "pairs" else 2
        elif kind == "pad":
            width += 3
        elif kind in {"conv", "depthwise", "grouped", "norm", "slope", "excite"}:
            wide = dice.choice([4, 6, 8])
            if kind == "grouped" and width % 2:
                return 0
            made = {
                "conv": lambda: nn.Conv2d(width, wide, 3, padding=1),
                "depthwise": lambda: nn.Conv2d(width, width, 3, padding=1, groups=width),
                "grouped": lambda: nn.Conv2d(width, wide, 1, groups=2),
                "norm": lambda: nn.BatchNorm2d(width),
                "slope": lambda: nn.PReLU(width),
                "excite": lambda: nn.Conv2d(width, width, 1),
            }[kind]
            self.layers.append(made())
            layer = len(self.layers) - 1
            width = wide if kind in {"conv", "grouped"} else width
        if width > 24:
            return 0
        self.steps.append((kind, sources, layer))
        return width

    def forward(self, x: Tensor) -> Tensor:
        values = [self.layers[0](x)]
        for kind, sources, layer in self.steps:
            chosen = [values[source] for source in sources]
            values.append(OPERATORS[kind](self.layers[layer], *chosen))
        return self.layers[-1](values[-1].mean((2, 3)))


OPERATORS = {
    "add": lambda _, a, b: a + b,
    "cat": lambda _, a, b: torch.cat([a, b], 1),
    "conv": lambda layer, a: layer(a),
    "depthwise": lambda layer, a: layer(a),
    "excite": lambda layer, a: a * layer(a.mean((2, 3), keepdim=True)).sigmoid(),
    "flip": lambda _, a: a.flip(1),
    "gate": lambda _, a: torch.mul(*a.chunk(2, 1)),
    "grouped": lambda layer, a: layer(a),
    "half": lambda _, a: a[:, : a.shape[1] // 2],
    "mul": lambda _, a, b: a * b,
    "norm": lambda layer, a: layer(a),
    "pad": lambda _, a: F.pad(a, (0, 0, 0, 0, 1, 2)),
    "pairs": lambda _, a: a.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2),
    "relu": lambda _, a: F.relu(a),
    "slope": lambda layer, a: layer(a),
    "turn": lambda _, a: a.transpose(2, 3),
}


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), length=st.integers(3, 14))
@example(seed=2089, length=6)  # two places of one channel meet two channels: a tie, no broadcast
def test_surgery_is_exact_on_networks_that_nobody_wrote(seed: int, length: int) -> None:
    torch.manual_seed(seed)
    model = architectures.randomised(RandomNetwork(seed, length)).double().eval()
    inputs = (torch.randn(2, 3, 6, 6, dtype=torch.float64),)
    graph = find_groups(model, inputs)
    assert not graph.untraced
    assert surgery_error(model, graph, half_of_each(graph, seed), inputs) < 1e-9
