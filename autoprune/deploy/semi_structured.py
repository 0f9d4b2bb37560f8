"""2:4 weights as PyTorch's semi-structured tensors: half the weight bytes, and sparse tensor cores, on a GPU."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autoprune.errors import UsageError

DTYPES = (torch.float16, torch.bfloat16)
ROWS = 32
"""Rows and columns of a weight come in multiples of 32 and 64 in every kernel of torch for these types."""
COLUMNS = 64


@dataclass(frozen=True)
class SemiStructured:
    """What was converted.

    Attributes:
        model: A copy whose converted weights are semi-structured; in evaluation mode, for inference.
        converted: Names of the layers.
        refused: Layer name to why it stays dense, for layers that hold a 2:4 pattern.
    """

    model: nn.Module
    converted: tuple[str, ...]
    refused: Mapping[str, str]


def to_semi_structured(model: nn.Module) -> SemiStructured:
    """Store every linear layer whose weight is 2:4 as PyTorch's semi-structured tensor.

    Args:
        model: A pruned network on a GPU, in float16 or bfloat16; not changed.

    Raises:
        UsageError: There is no GPU that has sparse tensor cores, or no linear layer is 2:4.
    """
    layers = {name: module for name, module in model.named_modules() if type(module) is nn.Linear}
    patterned = {name: layer for name, layer in layers.items() if is_2_of_4(layer.weight)}
    if not patterned:
        raise UsageError("no linear layer has at most 2 non-zeros in each 4 inputs; prune with granularity 2:4 first")
    refused = {name: why for name, layer in patterned.items() if (why := refusal(layer.weight))}
    _need_gpu(next(iter(patterned.values())).weight)
    made = copy.deepcopy(model).eval()
    converted = tuple(name for name in patterned if name not in refused)
    for name in converted:
        layer = made.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        sparse = torch.sparse.to_sparse_semi_structured(layer.weight.detach())
        layer.weight = nn.Parameter(sparse, requires_grad=False)
    return SemiStructured(made, converted, refused)


def is_2_of_4(weight: Tensor) -> bool:
    """Whether each four consecutive inputs hold at most two non-zeros, and the weight is sparse at all."""
    if weight.dim() != 2 or weight.shape[1] % 4:
        return False
    counts = (weight.detach() != 0).reshape(-1, 4).sum(dim=1)
    return bool((counts <= 2).all())


def refusal(weight: Tensor) -> str:
    """Return why the kernels do not take a 2:4 weight; empty if they do."""
    if weight.dtype not in DTYPES:
        return f"its weight is {str(weight.dtype).removeprefix('torch.')}; use float16 or bfloat16"
    rows, columns = weight.shape
    if rows % ROWS or columns % COLUMNS:
        return f"its weight is {rows} x {columns}, and the kernels take multiples of {ROWS} x {COLUMNS}"
    return ""


def _need_gpu(weight: Tensor) -> None:
    where = "this process sees no GPU"
    if torch.cuda.is_available():
        if weight.is_cuda and torch.cuda.get_device_capability(weight.device) >= (8, 0):
            return
        where = f"the model is on {weight.device}"
    raise UsageError(
        f"semi-structured tensors need an NVIDIA GPU of compute capability 8.0 or later, and {where}; "
        "move the model to one (elsewhere 2:4 makes the file smaller, not the model faster)"
    )
