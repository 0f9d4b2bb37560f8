"""How sparse a network in training is, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from autoprune.graph.groups import ModelGraph
from autoprune.pruning.granularity import DEPTH
from autoprune.pruning.plan import Plan
from autoprune.training.methods import Training
from autoprune.training.units import Units


@dataclass(frozen=True)
class LayerSparsity:
    """One entry of the config.

    Attributes:
        granularity: As in the config.
        wanted: What the config asks for; NaN where a threshold decides.
        masked: Fraction that is masked or removed: of channels, heads or blocks, or of the weights in the channels that
            stay.
        zero: Likewise, the fraction that is zero, masked or not: with L1 or group lasso it grows before any mask does.
    """

    granularity: str
    wanted: float
    masked: float
    zero: float


@dataclass(frozen=True)
class SparsityReport:
    """The state of a pruned training.

    Attributes:
        step: Optimizer steps done.
        layers: Layer or group name and granularity, as "name granularity", to its state.
    """

    step: int
    layers: Mapping[str, LayerSparsity]

    def __str__(self) -> str:
        lines = [f"step {self.step}"]
        lines += [
            f"  {name}: wanted {each.wanted:.1%}, masked {each.masked:.1%}, zero {each.zero:.1%}"
            for name, each in self.layers.items()
        ]
        return "\n".join(lines)


def report_of(training: Training, dense: ModelGraph, removed: Mapping[str, Tensor], plan: Plan) -> SparsityReport:
    """Count masked and zero units.

    Args:
        training: The training, its weights settled.
        dense: Graph of the dense model.
        removed: Group name to its masked or removed units, numbered as in the dense model.
        plan: What finalizing would cut and zero.
    """
    layers = {}
    for units in training.units:
        if units.removed:
            total = dense.groups[units.name].units
            masked = len(removed.get(units.name, ())) / total
            zero = (total - units.count + _zero_units(units, training)) / total
        else:
            weight = units.weights()[0].tensor
            left = _left(weight, training, plan)
            mask = plan.masks.get(weight)
            masked = 0.0 if mask is None else 1 - float(mask.double().mean())
            zero = float((left == 0).double().mean())
        key = f"{units.name} {units.choice.granularity}"
        layers[key] = LayerSparsity(units.choice.granularity, units.choice.fraction, masked, zero)
    for name, choice in training.config.choices():
        if choice.granularity == DEPTH:
            stage = dense.stages[name]
            gone = sum(block.name in plan.skipped for block in stage.blocks) / stage.depth
            layers[f"{name} {DEPTH}"] = LayerSparsity(DEPTH, choice.fraction, gone, gone)
    return SparsityReport(training.step, layers)


def _left(name: str, training: Training, plan: Plan) -> Tensor:
    """Return a weight without the channels that are masked."""
    weight = training.parameters[name].detach()
    for dim in range(weight.dim()):
        if (name, dim) in plan.cuts:
            weight = weight.index_select(dim, plan.cuts[name, dim].to(weight.device))
    return weight


def _zero_units(units: Units, training: Training) -> int:
    nonzero = {each.tensor: (training.parameters[each.tensor] != 0).double() for each in units.weights()}
    return int((units.sums(nonzero, units.weights()) == 0).sum())
