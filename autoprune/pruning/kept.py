"""Which places of the dense network a smaller one kept: noted by surgery, carried by the smaller module itself.

It survives a copy and further surgery, and no hook, parameter or buffer is added for it. What it is good for: the
smaller network's channels can be told in the dense network's numbers, written back to their places, and the same cut
made on another checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from autoprune.graph.rules import SIZE

_ATTRIBUTE = "autoprune_kept"


@dataclass(frozen=True)
class Kept:
    """Where the tensors of a smaller network stand in the dense one.

    Attributes:
        places: (tensor name, dimension) to the places of the dense tensor that stayed, ascending, shape (kept,); an
            axis that is not named stayed whole.
        dense: (tensor name, dimension) to the size of that axis in the dense network.
    """

    places: Mapping[tuple[str, int], Tensor] = field(default_factory=dict)
    dense: Mapping[tuple[str, int], int] = field(default_factory=dict)


def kept_of(model: nn.Module) -> Kept | None:
    """Return what surgery noted on a model; None for a model that surgery did not make."""
    found = vars(model).get(_ATTRIBUTE)
    return found if isinstance(found, Kept) else None


def note_kept(model: nn.Module, kept: Kept) -> None:
    """Note on a model where its tensors stand in the dense one."""
    setattr(model, _ATTRIBUTE, kept)


def note_cut(
    smaller: nn.Module,
    before: Kept | None,
    cuts: Mapping[tuple[str, int], Tensor],
    sizes: Mapping[str, tuple[int, ...]],
) -> None:
    """Note a cut on the model that it made.

    Args:
        smaller: The model after the cut.
        before: What was noted on the model that was cut.
        cuts: As ``pruning.plan.Cuts``, in the places of that model.
        sizes: Tensor name to its shape in that model.
    """
    places = dict(before.places) if before else {}
    dense = dict(before.dense) if before else {}
    for axis, stays in cuts.items():
        name, dim = axis
        if dim == SIZE:
            continue
        dense.setdefault(axis, sizes[name][dim])
        stays = stays.cpu()
        places[axis] = places[axis][stays] if axis in places else stays.to(torch.int64)
    note_kept(smaller, Kept(places, dense))
