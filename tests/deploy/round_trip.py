"""From a config to the numbers of another runtime, for any of the networks of ``tests/graph``."""

from dataclasses import dataclass
from pathlib import Path

import torch
from test_surgery_equivalence import build

import autoprune
from autoprune.graph.groups import find_groups
from autoprune.graph.session import relative_difference
from autoprune.graph.trace import output_tensors
from autoprune.spec.config import PruningConfig


@dataclass(frozen=True)
class Trip:
    """What came of one network.

    Attributes:
        dense: Its parameters.
        pruned: Those of the smaller network.
        same_bits: Whether the loaded network computes the same bits.
        expanded: Relative difference of the dense-shaped network that holds the weights at their places.
        like: Whether the same cut on the dense checkpoint gives the same weights.
        exported: Suffix to the relative difference of the exported file.
    """

    dense: int
    pruned: int
    same_bits: bool
    expanded: float
    like: bool
    exported: dict[str, float]


def half_config(model, inputs) -> PruningConfig:
    """Half of the units of every group, and half of the weights of the last layer, at random."""
    graph = find_groups(model, inputs)
    layers = {
        name: [{"granularity": group.kind, "criterion": "random", "sparsity": 0.5}]
        for name, group in graph.groups.items()
        if group.units > 1
    }
    layers.setdefault(list(graph.layers)[-1], []).append(
        {"granularity": "weight", "criterion": "random", "sparsity": 0.5}
    )
    return PruningConfig.model_validate(
        {"schema": "autoprune/config/1", "model": {"fingerprint": graph.fingerprint}, "layers": layers}
    )


def go_round(name: str, directory: Path, suffixes=()) -> Trip:
    """Config, apply, save, load, expand, cut alike, export."""
    model, inputs = build(name)
    model = model.float()
    inputs = tuple(value.float() if value.is_floating_point() else value for value in inputs)
    config = half_config(model, inputs)
    smaller = autoprune.apply(model, config, inputs)
    path = directory / "p.safetensors"
    autoprune.save_pruned(smaller, path, config)
    fresh = build(name, seed=5)[0].float()
    loaded, expanded, like = (
        step(source, path)
        for step, source in (
            (autoprune.load_pruned, fresh),
            (autoprune.expand_pruned, fresh),
            (autoprune.prune_like, model),
        )
    )
    with torch.no_grad():
        wanted, found, whole = (output_tensors(each(*inputs)) for each in (smaller, loaded, expanded))
    exported = {suffix: autoprune.export(loaded, directory / f"p{suffix}", inputs).difference for suffix in suffixes}
    weights = smaller.state_dict()
    return Trip(
        sum(p.numel() for p in model.parameters()),
        sum(p.numel() for p in smaller.parameters()),
        all(map(torch.equal, wanted, found)),
        max(map(relative_difference, whole, wanted)),
        all(torch.equal(value, weights[key]) for key, value in like.state_dict().items()),
        exported,
    )
