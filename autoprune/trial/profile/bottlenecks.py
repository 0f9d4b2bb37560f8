"""On which layers patterns are tried."""

from __future__ import annotations

from autoprune.spec.profile import DeviceSummary, LayerCosts
from autoprune.trial.profile.alone import record_inputs, signature
from autoprune.trial.profile.payoffs import Trials

MOST = 3
"""Layers of unlike shapes, slowest first."""


def bottlenecks(trials: Trials, device: DeviceSummary) -> list[str]:
    """Return the slowest layers that the space speaks of, one of each shape: the one that can lose most channels."""
    model, layers = trials.runner.model, [layer for layer in device.layers if layer.prunable]
    inputs = record_inputs(model, trials.inputs, [layer.name for layer in layers])
    alike: dict[str, list[LayerCosts]] = {}
    for layer in layers:
        alike.setdefault(signature(model.get_submodule(layer.name), inputs[layer.name]) or layer.name, []).append(layer)
    ranked = sorted(alike.values(), key=lambda found: -sum(layer.ms for layer in found))
    return [max(found, key=lambda layer: trials.free_units(layer.name)).name for found in ranked[:MOST]]
