"""N:M, at most N non-zeros in M consecutive inputs (Zhou et al. 2021, arXiv 2102.04010)."""

from __future__ import annotations

from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoprune.graph.groups import Layer
from autoprune.pruning.granularity.shape import Counts, Granularity, Sizes, elements, size_of
from autoprune.spec.config import n_of_m


def n_of_m_granularity(key: str) -> Granularity:
    """Return the granularity of an N:M key.

    Raises:
        ValueError: Not of the form N:M with 0 < N < M.
    """
    kept, of = n_of_m(key)

    def mask(scores: Tensor, _: float) -> Tensor:
        # After channels were removed the inner size may have a rest below M: it stays, every whole run obeys N:M.
        matrix = scores.flatten(1)
        keep = torch.ones_like(matrix, dtype=torch.bool)
        whole = matrix.shape[1] // of * of
        runs = matrix[:, :whole].reshape(-1, of)
        order = torch.argsort(runs, dim=1, stable=True)
        kept_in_runs = torch.ones_like(runs, dtype=torch.bool).scatter(1, order[:, : of - kept], False)
        keep[:, :whole] = kept_in_runs.reshape(-1, whole) if whole else keep[:, :0]
        return keep.reshape(scores.shape)

    def refusal(layer: Layer) -> str:
        inner = prod(size_of(layer)[1:])
        if inner % of == 0:
            return ""
        return f"{key} needs an inner size that is a multiple of {of}, layer {layer.name!r} has {inner}"

    def stays(sizes: Sizes, _: NDArray[np.float64]) -> Counts:
        inner = elements(sizes[1:])
        counts: Counts = sizes[0] * (inner - inner // of * (of - kept))
        return counts

    unit = f"{of - kept} zeros in {of} consecutive inputs (im2col order)"
    return Granularity(key, unit, False, mask, refusal, kept=stays)
