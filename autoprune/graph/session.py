"""An ONNX file run by ONNX Runtime on the CPU: as a function, and as a module that may stand for the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from autoprune.graph.export import onnx_feed

Runner = Callable[[tuple[Any, ...], Mapping[str, Any]], list[Tensor]]


def onnx_session(data: bytes, threads: int = 1) -> Any:
    """Return an ONNX Runtime session on the CPU.

    Args:
        data: The file.
        threads: Of one operator; operators run one after another.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; what it says of its own optimisations is no news
    # Threads spin for work inside a run; after it they would take the cores from whatever runs next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def run_onnx(data: bytes, threads: int = 1) -> tuple[Runner, str]:
    """Return what runs an ONNX file on the CPU, and its name.

    Args:
        data: The file.
        threads: Of one operator.
    """
    import onnxruntime

    session = onnx_session(data, threads)
    names = [item.name for item in session.get_inputs()]

    def run(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
        return [torch.from_numpy(np.asarray(value)) for value in session.run(None, onnx_feed(names, args, kwargs))]

    return run, f"ONNX Runtime {onnxruntime.__version__}"


def relative_difference(found: Tensor, wanted: Tensor) -> float:
    """Return the largest absolute difference over the largest absolute value wanted; inf where one is not finite."""
    gap = float((found.double() - wanted.double()).abs().max())
    return gap / (float(wanted.double().abs().max()) or 1.0) if gap == gap else float("inf")


def largest_difference(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Return the largest relative difference over all outputs; inf where they differ in number or shape."""
    if [tensor.shape for tensor in found] != [tensor.shape for tensor in wanted]:
        return float("inf")
    pairs = [(a.cpu(), b.cpu()) for a, b in zip(found, wanted, strict=True) if b.numel()]
    return max((relative_difference(a, b) for a, b in pairs), default=0.0)


class OnnxModule(nn.Module):
    """A module that runs an ONNX file, so that whatever scores a network scores the file.

    It has one parameter without entries, for code that asks where a model's parameters are, and no layers.

    Args:
        data: The file.
        output: Output of the network that was exported: outputs of the file come in its structure.
        threads: Of one operator.

    Attributes:
        data: The file, for what would otherwise export the module anew.
        runtime: What runs it.
    """

    def __init__(self, data: bytes, output: Any, threads: int = 1) -> None:
        super().__init__()
        self.data, self.threads = data, threads
        self._run, self.runtime = run_onnx(data, threads)
        # Tensors without entries keep the structure: torch's own description of it cannot be sent to another process.
        self._output = tree_map(lambda leaf: torch.empty(0) if isinstance(leaf, Tensor) else leaf, output)
        self.anchor = nn.Parameter(torch.empty(0), requires_grad=False)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the session: where it goes, the file gives another."""
        return {key: value for key, value in self.__dict__.items() if key != "_run"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call] # torch leaves it untyped
        self._run, self.runtime = run_onnx(self.data, self.threads)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the network returns, on the device of the first input."""
        where = next((leaf.device for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)), None)
        found = [tensor.to(where) for tensor in self._run(args, kwargs)]
        leaves, structure = tree_flatten(self._output)
        places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        if len(found) != len(places):  # a cache of keys, say, which an exported network leaves out
            return found[0] if len(found) == 1 else tuple(found)
        for place, tensor in zip(places, found, strict=True):
            leaves[place] = tensor
        return tree_unflatten(leaves, structure)
