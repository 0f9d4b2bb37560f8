"""The config as it stands in the middle of a schedule, and scores under which what is gone goes first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from autoprune.graph.blocks import Stage
from autoprune.graph.groups import Group, Layer
from autoprune.pruning.scores import ScoreBook
from autoprune.spec.config import LayerChoice, PruningConfig, is_n_of_m, n_of_m


def config_at(config: PruningConfig, sparsity: Callable[[str, LayerChoice], float]) -> PruningConfig:
    """Return the config with the sparsities of one moment; entries that prune nothing yet are left out.

    N:M is reached through patterns that remove less from the same runs (3:4 before 2:4), as Kao et al. 2022
    (arXiv 2209.07617) decay the structure. A threshold stands as it is.

    Args:
        config: The final config.
        sparsity: From a layer or group and its entry to the sparsity of the moment.
    """
    layers: dict[str, tuple[LayerChoice, ...]] = {}
    for name, choices in config.layers.items():
        now = tuple(filter(None, (_choice_at(choice, sparsity(name, choice)) for choice in choices)))
        if now:
            layers[name] = now
    return config.model_copy(update={"layers": layers})


def _choice_at(choice: LayerChoice, sparsity: float) -> LayerChoice | None:
    if choice.threshold is not None:
        return choice if sparsity > 0 else None
    if is_n_of_m(choice.granularity):
        of = n_of_m(choice.granularity)[1]
        removed = int(sparsity * of + 1e-6)
        update = {"granularity": f"{of - removed}:{of}", "sparsity": None}
        return choice.model_copy(update=update) if removed else None
    return choice.model_copy(update={"sparsity": sparsity}) if sparsity > 0 else None


@dataclass(frozen=True)
class HeldScores:
    """Scores under which everything that is masked already is the lowest.

    Attributes:
        inner: The scores of the network as it is.
        kept: Parameter name to its kept entries.
        gone: Group name to its masked units.
        blocks: Masked residual blocks.
    """

    inner: ScoreBook
    kept: Mapping[str, Tensor]
    gone: Mapping[str, Tensor]
    blocks: Collection[str] = ()

    def layer_scores(self, criterion: str, layer: Layer) -> Tensor:
        """Return the layer's scores, 0 where masked and above 0 elsewhere."""
        scores = self.inner.layer_scores(criterion, layer)
        kept = self.kept.get(layer.weight)
        if kept is None:
            return scores
        if scores.dim() == kept.dim():
            scores = scores.clamp_min(torch.finfo(scores.dtype).tiny)
        return scores * kept.to(scores.device)

    def unit_scores(self, criterion: str, group: Group) -> Tensor:
        """Return the group's scores, -1 where masked."""
        scores = self.inner.unit_scores(criterion, group)
        gone = self.gone.get(group.name)
        return scores if gone is None else scores.index_fill(0, gone, -1.0)

    def block_scores(self, criterion: str, stage: Stage) -> Tensor:
        """Return the scores of the stage's blocks, -1 where masked."""
        gone = [i for i, block in enumerate(stage.blocks) if block.name in self.blocks]
        return self.inner.block_scores(criterion, stage).index_fill(0, torch.tensor(gone, dtype=torch.long), -1.0)
