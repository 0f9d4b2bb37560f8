"""Proximal steps: what a penalty does to the weights after the optimizer's step (Parikh & Boyd 2014, section 6.5)."""

from __future__ import annotations

import torch
from torch import Tensor


def soft_threshold(weight: Tensor, amount: float) -> None:
    """Move every entry towards zero by ``amount``, in place, and no further: the proximal operator of the L1 norm."""
    weight.copy_(torch.nn.functional.softshrink(weight, amount))


def shrink_factors(norms: Tensor, amounts: Tensor) -> Tensor:
    """Return the factor max(1 - amount / norm, 0) of each group: the proximal operator of the group lasso.

    Args:
        norms: L2 norm of each group, shape (groups,).
        amounts: Shape (groups,).
    """
    return (1 - amounts / norms.clamp_min(torch.finfo(norms.dtype).tiny)).clamp_min(0.0)
