"""A runtime is timed only on a network that it computes: its outputs are compared with torch's first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autoprune.cost.meters.protocol import ModelInputs
from autoprune.errors import MeterError
from autoprune.graph.session import largest_difference
from autoprune.graph.trace import output_tensors

TOLERANCES = {"float64": 1e-8, "float32": 1e-3, "float16": 3e-2, "bfloat16": 2e-1}
"""Largest difference over the largest output: rounding in another order, widely; a wrong graph is far off."""


def torch_outputs(model: nn.Module, inputs: ModelInputs) -> list[Tensor]:
    """Return the tensors that torch computes, in order; the model should be in evaluation mode."""
    with torch.inference_mode():
        return output_tensors(model(*inputs.args, **inputs.kwargs))


def check_parity(found: Sequence[Tensor], wanted: Sequence[Tensor], dtype: str, runtime: str) -> None:
    """Check that a runtime computes what torch computes.

    Args:
        found: The runtime's outputs.
        wanted: Torch's.
        dtype: Floating type that the network computes in: it sets what is allowed.
        runtime: Name for the message.

    Raises:
        MeterError: They differ by more than rounding.
    """
    difference, allowed = largest_difference(found, wanted), TOLERANCES.get(dtype, 0.0)
    if not difference <= allowed:
        raise MeterError(
            f"{runtime} differs from torch by {difference:.1e} of the largest output where {allowed:.0e} is allowed in "
            f"{dtype}, so its time is not that of this network; take another runtime or latency.dtype"
        )
