"""What a sparsifier's state holds, and whether it fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from autoprune.errors import ConfigError
from autoprune.spec.config import PruningConfig
from autoprune.training.masks import Masks, packed, unpacked
from autoprune.training.schedules import Schedule

SCHEMA = "autoprune/sparsifier/1"


@dataclass(frozen=True)
class SparsifierState:
    """A moment of a pruned training, beside model and optimizer.

    Attributes:
        step: Optimizer steps done.
        config: Signature of the config.
        schedule: As it was written.
        method: Registry key.
        remove: "end" or "now".
        masks: What is masked; units are numbered as in the dense model.
        method_state: Of the method.
    """

    step: int
    config: str
    schedule: str
    method: str
    remove: str
    masks: Masks
    method_state: Mapping[str, Any]


def pack_state(state: SparsifierState) -> dict[str, Any]:
    """Return a state as tensors and plain values; masks take one bit a weight."""
    return {
        "schema": SCHEMA,
        "step": state.step,
        "config": state.config,
        "schedule": state.schedule,
        "method": state.method,
        "remove": state.remove,
        "gone": {name: units.clone() for name, units in state.masks.gone.items()},
        "masks": {name: packed(mask) for name, mask in state.masks.patterns.items()},
        "shapes": {name: list(mask.shape) for name, mask in state.masks.patterns.items()},
        "granularities": dict(state.masks.granularities),
        "method_state": dict(state.method_state),
    }


def unpack_state(state: Mapping[str, Any]) -> SparsifierState:
    """Return what :func:`pack_state` was given.

    Raises:
        ConfigError: It is no state of a sparsifier, or a damaged one.
    """
    if not isinstance(state, Mapping) or state.get("schema") != SCHEMA:
        raise ConfigError("the state is no state of a Sparsifier; give what Sparsifier.state_dict() returned")
    try:
        patterns: dict[str, Tensor] = {
            name: unpacked(bits.cpu(), tuple(state["shapes"][name])) for name, bits in state["masks"].items()
        }
        masks = Masks(
            {name: units.cpu().long() for name, units in state["gone"].items()}, patterns, dict(state["granularities"])
        )
        return SparsifierState(
            int(state["step"]),
            str(state["config"]),
            str(state["schedule"]),
            str(state["method"]),
            str(state["remove"]),
            masks,
            state["method_state"],
        )
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise ConfigError(f"the sparsifier's state is damaged ({error}); take an earlier checkpoint") from error


def check_state(state: SparsifierState, config: PruningConfig, schedule: Schedule, method: str, remove: str) -> None:
    """Check that a state is of this training.

    Raises:
        ConfigError: Says what differs.
    """
    if state.config != config.signature:
        raise ConfigError("the checkpoint was made with another config; give the config that it was trained with")
    for what, then, now in (
        ("schedule", state.schedule, repr(schedule)),
        ("method", state.method, method),
        ("remove", state.remove, remove),
    ):
        if then != now:
            raise ConfigError(f"the checkpoint was made with {what} {then}, not {now}; give what it was trained with")
