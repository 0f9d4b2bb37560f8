"""Groundwork: what one runner of a study found out, for runners of it elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from autoprune.errors import TaskError
from autoprune.graph.groups import ModelGraph
from autoprune.pruning.proof import Proof
from autoprune.pruning.surgery import head_sizes, rebuild, skipped_blocks
from autoprune.spec.hardware import DeviceProfile


@dataclass(frozen=True)
class Groundwork:
    """What is the same for every runner of a study, and costs time to find out.

    Attributes:
        weights: The dense model's state, as safetensors: all runners prune the same network, also where the task
            trains one that differs a little from machine to machine.
        profile: The device.
        graph: Layers, groups, and what is pinned.
        proof: That surgery on this model is exact.
        scores: Criterion to its scores.
        devices: Further devices by name.
    """

    weights: bytes
    profile: DeviceProfile
    graph: ModelGraph
    proof: Proof
    scores: Mapping[str, Mapping[str, Tensor]]
    devices: Mapping[str, DeviceProfile]

    @classmethod
    def of(
        cls,
        model: nn.Module,
        profile: DeviceProfile,
        graph: ModelGraph,
        proof: Proof,
        scores: Mapping[str, Mapping[str, Tensor]],
        devices: Mapping[str, DeviceProfile],
    ) -> Groundwork:
        """Gather it; tensors are brought to the CPU."""
        on_cpu = {key: {name: value.cpu() for name, value in values.items()} for key, values in scores.items()}
        return cls(to_bytes(model), profile, graph, proof, on_cpu, devices)

    def load_weights(self, model: nn.Module) -> None:
        """Give a model of the same architecture the dense model's weights, in place.

        Raises:
            TaskError: It is another architecture.
        """
        try:
            with torch.no_grad():
                model.load_state_dict(load(self.weights))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise TaskError(
                f"the task gives another network here than where the search was started ({reason}); "
                "use the same code, data and environment everywhere"
            ) from error


def to_bytes(model: nn.Module) -> bytes:
    """Return the tensors of a model's state as safetensors; tensors that share memory are written one by one."""
    state = {
        name: value.detach().cpu().contiguous().clone()
        for name, value in model.state_dict().items()
        if isinstance(value, Tensor)
    }
    return save(state)


@dataclass(frozen=True)
class PackedNetwork:
    """A smaller network as data: what :func:`autoprune.pruning.surgery.rebuild` needs beside the dense one.

    Attributes:
        weights: Its state, as safetensors.
        sizes: Integer attributes that surgery may change.
        skipped: Residual blocks that the identity replaced.
    """

    weights: bytes
    sizes: Mapping[str, int]
    skipped: Mapping[str, int]

    @classmethod
    def of(cls, model: nn.Module) -> PackedNetwork:
        """Pack a network that surgery made."""
        return cls(to_bytes(model), head_sizes(model), skipped_blocks(model))

    def unpack(self, dense: nn.Module) -> nn.Module:
        """Build the network again from the dense one."""
        return rebuild(dense, load(self.weights), self.sizes, self.skipped).eval()
