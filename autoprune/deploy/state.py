"""What a sparsifier's state holds, and whether it fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor

from autoprune.errors import ConfigError
from autoprune.graph.groups import ModelGraph
from autoprune.spec.config import PruningConfig
from autoprune.training.masks import Masks, packed, unpacked
from autoprune.training.methods import Method
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
        settings: Hyperparameters of the method by name, as text; None in a state that an older version wrote.
    """

    step: int
    config: str
    schedule: str
    method: str
    remove: str
    masks: Masks
    method_state: Mapping[str, Any]
    settings: Mapping[str, str] | None = None


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
        "blocks": dict(state.masks.blocks),
        "method_state": dict(state.method_state),
        "settings": dict(state.settings or {}),
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
            {name: units.cpu().long() for name, units in state["gone"].items()},
            patterns,
            dict(state["granularities"]),
            dict(state.get("blocks", {})),  # a state of an older version has none
        )
        return SparsifierState(
            int(state["step"]),
            str(state["config"]),
            str(state["schedule"]),
            str(state["method"]),
            str(state["remove"]),
            masks,
            state["method_state"],
            None if "settings" not in state else {str(key): str(value) for key, value in state["settings"].items()},
        )
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise ConfigError(f"the sparsifier's state is damaged ({error}); take an earlier checkpoint") from error


def settings_of(method: Method) -> dict[str, str]:
    """Return the hyperparameters of a method: the fields that its constructor takes, as text."""
    if not is_dataclass(method):
        return {}
    return {each.name: repr(getattr(method, each.name)) for each in fields(method) if each.init}


def check_state(state: SparsifierState, config: PruningConfig, schedule: Schedule, method: Method, remove: str) -> None:
    """Check that a state is of this training.

    Raises:
        ConfigError: Says what differs.
    """
    if state.config != config.signature:
        raise ConfigError("the checkpoint was made with another config; give the config that it was trained with")
    for what, then, now in (
        ("schedule", state.schedule, repr(schedule)),
        ("method", state.method, method.key),
        ("remove", state.remove, remove),
    ):
        if then != now:
            raise ConfigError(f"the checkpoint was made with {what} {then}, not {now}; give what it was trained with")
    now_set = settings_of(method)
    for name, then in (state.settings or {}).items():
        if now_set.get(name, then) != then:
            raise ConfigError(
                f"the checkpoint was made with {name} {then} of method {method.key!r}, not {now_set[name]}; "
                "give what it was trained with"
            )


def check_masks(state: SparsifierState, dense: ModelGraph, cut: bool) -> None:
    """Check that the masks of a state fit a model, before anything is changed.

    Args:
        state: The state.
        dense: Graph of the dense model.
        cut: Whether the units that are gone are cut out, so that masks have the shapes that this leaves.

    Raises:
        ConfigError: Names the group or the weight.
    """
    known = {block.name: block.length for stage in dense.stages.values() for block in stage.blocks}
    for name, length in state.masks.blocks.items():
        if known.get(name) != length:
            raise ConfigError(f"the state removes block {name!r} that this model lacks; load it into the same model")
    taken: dict[tuple[str, int], set[int]] = {}
    for name, units in state.masks.gone.items():
        if not units.numel():
            continue
        group = dense.groups.get(name)
        if group is None or not 0 <= int(units.min()) <= int(units.max()) < group.units:
            raise ConfigError(f"the state removes units of {name!r} that this model lacks; load it into the same model")
        if len(set(units.tolist())) == group.units:
            raise ConfigError(f"the state removes all units of {name!r}; take an earlier checkpoint")
        for each in group.slices if cut else ():
            taken.setdefault((each.tensor, each.dim), set()).update(each.index[units].reshape(-1).tolist())
    for name, mask in state.masks.patterns.items():
        shape = dense.shapes.get(name, ())
        left = tuple(size - len(taken.get((name, dim), ())) for dim, size in enumerate(shape))
        if tuple(mask.shape) != left or name not in dense.shapes:
            raise ConfigError(f"the state has a mask of {name!r} in another shape; load it into the same model")
