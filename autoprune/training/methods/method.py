"""What a training-time pruning method is, and what it sees of the training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from autoprune.graph.groups import ModelGraph
from autoprune.pruning.scores import Scores
from autoprune.registry import Registry
from autoprune.spec.config import PruningConfig
from autoprune.training.schedules import Schedule
from autoprune.training.units import Units


@dataclass
class Training:
    """The training as a method sees it.

    Attributes:
        model: The network that trains, without wrappers.
        optimizer: Its optimizer.
        config: The config.
        graph: Its layers and groups.
        schedule: When masks change.
        parameters: Parameter name to parameter.
        units: The units of every entry of the config.
        kept: Parameter name to its kept entries, where something is masked; bool, in the parameter's shape.
        step: Optimizer steps done.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    config: PruningConfig
    graph: ModelGraph
    schedule: Schedule
    parameters: Mapping[str, nn.Parameter]
    units: tuple[Units, ...]
    kept: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0

    def learning_rate(self, name: str) -> float:
        """Return the present learning rate of a parameter; 0 where the optimizer does not hold it."""
        wanted = self.parameters[name]
        for group in self.optimizer.param_groups:
            if any(parameter is wanted for parameter in group["params"]):
                return float(group["lr"])
        return 0.0

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients that are there, by parameter name."""
        return {name: weight.grad for name, weight in self.parameters.items() if weight.grad is not None}

    def pruned_weights(self) -> tuple[str, ...]:
        """Return the names of the weights in which units are made: what the config prunes."""
        return tuple(dict.fromkeys(each.tensor for units in self.units for each in units.weights()))


class Method:
    """One way to become sparse while training: hooks around the optimizer's step, all of them optional.

    In one step, in this order: ``on_gradient``, masked gradients, the optimizer, ``after_step``, masked weights,
    ``before_forward``. Where masks change: ``settle``, ``scores``, new masks, ``after_update``, ``before_forward``.

    Attributes:
        key: Registry key.
        summary: What it does and its source, in one line.
        removes_at_once: Whether channels may be cut out in the middle of training; not where a method keeps a tensor
            per weight.
        noisy: Whether the model holds other weights between steps than it is evaluated with; passes in evaluation mode
            then see the settled ones.
    """

    key: ClassVar[str]
    summary: ClassVar[str]
    removes_at_once: ClassVar[bool] = True
    noisy: ClassVar[bool] = False

    def start(self, training: Training) -> None:
        """Look at the network once, before anything is pruned.

        Raises:
            ConfigError: The config asks for what this method cannot do.
        """

    def on_gradient(self, training: Training) -> None:
        """See, and change, the whole gradients before the masks and the optimizer do."""

    def after_step(self, training: Training) -> None:
        """Change the weights after the optimizer did."""

    def settle(self, training: Training) -> None:
        """Put the weights themselves in place, without what only training sees."""

    def before_forward(self, training: Training) -> None:
        """Put in place what the next forward pass shall see."""

    def scores(self, training: Training) -> Scores | None:
        """Return what decides at a change of masks; None where the config's criteria do.

        A method that lets weights come back ranks all of them; where None is returned, what is masked stays masked.
        """
        return None

    def after_update(self, training: Training) -> None:
        """Go on after masks have changed."""

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values from which :meth:`load_state_dict` goes on."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`; called after :meth:`start`."""


METHODS: Registry[type[Method]] = Registry("method", "autoprune.methods")
