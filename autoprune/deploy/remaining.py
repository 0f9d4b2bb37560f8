"""Which units of the dense model are left in a model that is cut while it trains."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from autoprune.graph.groups import ModelGraph
from autoprune.pruning.granularity import removed_count


class Remaining:
    """Keeps the numbers that units had in the dense model.

    Args:
        dense: Graph of the dense model.
    """

    def __init__(self, dense: ModelGraph) -> None:
        self.dense = dense
        self._alive = {name: torch.arange(group.units) for name, group in dense.groups.items()}

    def cut(self, gone: Mapping[str, Tensor]) -> None:
        """Take out units, numbered as in the present model."""
        for name, units in gone.items():
            stays = torch.ones(len(self._alive[name]), dtype=torch.bool)
            stays[units] = False
            self._alive[name] = self._alive[name][stays]

    def removed(self, masked: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what is cut out or masked, group by group, numbered as in the dense model.

        Args:
            masked: Masked units, numbered as in the present model.
        """
        found = {}
        for name, alive in self._alive.items():
            gone = masked.get(name)
            left = alive if gone is None else alive[~torch.isin(torch.arange(len(alive)), gone)]
            every = torch.arange(self.dense.groups[name].units)
            units = every[~torch.isin(every, left)]
            if units.numel():
                found[name] = units
        return found

    def present(self, units: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the places in the present model of units that are numbered as in the dense one; the cut ones lack."""
        found = {name: torch.nonzero(torch.isin(self._alive[name], each)).reshape(-1) for name, each in units.items()}
        return {name: each for name, each in found.items() if each.numel()}

    def still_to_go(self, name: str, sparsity: float) -> float:
        """Return which fraction of a group's present units must go, so that ``sparsity`` of the dense ones is gone."""
        dense, left = self.dense.groups[name].units, len(self._alive[name])
        return (removed_count(dense, sparsity) - (dense - left)) / left
