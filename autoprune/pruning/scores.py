"""Scores of weights and units: computed once per criterion, kept over trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from autoprune.errors import ConfigError
from autoprune.graph.groups import Group
from autoprune.pruning.criteria import CRITERIA, Evidence


@dataclass
class ScoreBook:
    """All scores of one dense model.

    Attributes:
        evidence: What criteria look at.
    """

    evidence: Evidence
    _weights: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)
    _units: dict[tuple[str, str], Tensor] = field(default_factory=dict)

    def weight_scores(self, criterion: str) -> Mapping[str, Tensor]:
        """Return for each tensor that the criterion judges its scores, same shape.

        Raises:
            ConfigError: The criterion needs data that the task does not give, or yields NaN or a negative score.
        """
        if criterion not in self._weights:
            rule = CRITERIA.get(criterion)
            if rule.needs_data and (self.evidence.batches is None or self.evidence.loss is None):
                raise ConfigError(
                    f"criterion {criterion!r} needs data, and the task has no batches and loss; "
                    "give Task.batches and Task.loss, or choose another criterion"
                )
            scores = rule.scores(self.evidence)
            for name, values in scores.items():
                if not bool(torch.isfinite(values).all()) or bool((values < 0).any()):
                    raise ConfigError(
                        f"criterion {criterion!r} gives a score for {name!r} that is negative or not finite; "
                        "check the loss on Task.batches, or choose another criterion"
                    )
            self._weights[criterion] = scores
        return self._weights[criterion]

    def unit_scores(self, criterion: str, group: Group) -> Tensor:
        """Return the scores of a group's units, shape (units,).

        Every tensor in which the group's channels are made or read, and that the criterion judges, counts the same: its
        scores are summed over each unit and divided by their mean over the units. Without that, the tensor with the
        largest numbers alone would decide (the "mean" normaliser of Fang et al. 2023, arXiv 2301.12900).

        Raises:
            ConfigError: The criterion judges no tensor of the group.
        """
        key = (criterion, group.name)
        if key not in self._units:
            scores = self.weight_scores(criterion)
            judged = [slices for slices in group.slices if slices.tensor in scores]
            if not judged:
                raise ConfigError(
                    f"criterion {criterion!r} judges nothing in group {group.name!r} (it has no batch norm); "
                    "choose another criterion for it"
                )
            total = torch.zeros(group.units, dtype=torch.float64)
            for slices in judged:
                values = scores[slices.tensor].movedim(slices.dim, 0)
                per_place = values.reshape(values.shape[0], -1).sum(dim=1, dtype=torch.float64).cpu()
                per_unit = per_place[slices.index].sum(dim=1)
                mean = per_unit.mean()
                total += per_unit / mean if mean > 0 else per_unit
            self._units[key] = total
        return self._units[key]
