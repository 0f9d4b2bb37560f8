"""Kernels of convolutions: whole, and 4-of-9 patterns of 3x3 ones (PatDNN, Niu et al. 2020, arXiv 2001.00138)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoprune.graph.groups import Layer
from autoprune.pruning.granularity.shape import Counts, Granularity, Size, Sizes, elements, lowest, partition, size_of

PATTERNS = torch.tensor(
    [
        # The centre and three of its four edge neighbours (PCONV, Ma et al. 2020, arXiv 1909.05073).
        [[0, 1, 0], [1, 1, 1], [0, 0, 0]],
        [[0, 1, 0], [0, 1, 1], [0, 1, 0]],
        [[0, 0, 0], [1, 1, 1], [0, 1, 0]],
        [[0, 1, 0], [1, 1, 0], [0, 1, 0]],
        # The centre with one corner and the two edges between: a 2x2 square.
        [[1, 1, 0], [1, 1, 0], [0, 0, 0]],
        [[0, 1, 1], [0, 1, 1], [0, 0, 0]],
        [[0, 0, 0], [0, 1, 1], [0, 1, 1]],
        [[0, 0, 0], [1, 1, 0], [1, 1, 0]],
    ],
    dtype=torch.bool,
)
"""Kept places of each pattern, shape (8, 3, 3). Eight, as in PatDNN, all with the centre."""


def _kernels(size: Size) -> Tensor:
    return torch.arange(size[0] * size[1]).reshape(size[0], size[1], *[1] * (len(size) - 2)).expand(size)


def _convolution_only(layer: Layer) -> str:
    if len(layer.shape) > 2:
        return ""
    return f"kernel needs a convolution, layer {layer.name!r} is {layer.type_name}"


def _pattern_mask(scores: Tensor, sparsity: float) -> Tensor:
    """Return the kept weights, at most ``sparsity`` of them gone.

    With K kernels, a kernel that takes its pattern loses 5 of 9 weights, and 4 more when it goes. Up to a sparsity of
    5/9, 9/5 * sparsity * K kernels take their best pattern, those first that lose the smallest score; beyond it all
    have one, and (9 * sparsity - 5) / 4 * K kernels, those with the smallest score left, go whole.
    """
    flat = scores.reshape(-1, 9).double()
    kernels = flat.shape[0]
    library = PATTERNS.reshape(-1, 9).to(scores.device)
    held = flat @ library.T.double()
    best = held.argmax(dim=1)
    kept_score = held.gather(1, best[:, None])[:, 0]
    keep = torch.ones_like(flat, dtype=torch.bool)
    patterned = min(int(kernels * sparsity * 9 / 5 + 1e-6), kernels)
    chosen = lowest(flat.sum(dim=1) - kept_score, patterned)
    keep[chosen] = library[best[chosen]]
    if patterned == kernels:
        gone = min(max(int((9 * sparsity - 5) / 4 * kernels + 1e-6), 0), kernels - 1)
        keep[lowest(kept_score, gone)] = False
    return keep.reshape(scores.shape)


def _pattern_kept(sizes: Sizes, sparsity: NDArray[np.float64]) -> Counts:
    """Count what :func:`_pattern_mask` keeps: five of nine weights go with a pattern, four more with the kernel."""
    kernels: Any = elements(sizes[:2])
    patterned = np.minimum((kernels * sparsity * 9 / 5 + 1e-6).astype(np.int64), kernels)
    beyond = ((9 * sparsity - 5) / 4 * kernels + 1e-6).astype(np.int64)
    gone = np.where(patterned == kernels, np.minimum(np.maximum(beyond, 0), kernels - 1), 0)
    counts: Counts = 9 * kernels - 5 * patterned - 4 * gone
    return counts


def _three_by_three_only(layer: Layer) -> str:
    if size_of(layer)[2:] == (3, 3):
        return ""
    kernel = "x".join(map(str, size_of(layer)[2:])) or "no"
    return f"pattern needs 3x3 kernels, layer {layer.name!r} is {layer.type_name} with {kernel} kernels"


KERNEL = partition(
    "kernel",
    "one kernel of a convolution: (output, input)",
    _kernels,
    _convolution_only,
    lambda size: (elements(size[:2]), elements(size[2:])),
)
PATTERN = Granularity(
    "pattern",
    "5 of 9 weights of a 3x3 kernel, by the best of 8 patterns; beyond 5/9 whole kernels",
    False,
    _pattern_mask,
    _three_by_three_only,
    kept=_pattern_kept,
)
