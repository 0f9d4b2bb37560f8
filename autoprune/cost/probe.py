"""Runs of smaller models, to see which operators run and how large everything is.

A run is compared with the dense one operator by operator. Copies may come and go: with a single head left, what had to
be copied to put heads beside one another is a view.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from autoprune.cost.extents import Extents, Ints
from autoprune.cost.table import FIELDS
from autoprune.cost.workload import Op, Workload, workload_of
from autoprune.errors import AutopruneError
from autoprune.graph.copying import copy_module
from autoprune.graph.groups import ModelGraph
from autoprune.graph.walk import stored_tensors
from autoprune.pruning.plan import cuts_of
from autoprune.pruning.surgery import cut

UNSEEN = -1
"""Stands for a size that a run did not show."""

_CHECKS = 3

Run = tuple[Workload, Mapping[str, tuple[int, ...]]]
"""What ran, and the shapes of parameters and buffers."""


class BlueprintError(AutopruneError):
    """The sizes of a model do not follow from counts; the text says where."""


class Probe:
    """Cuts units of a model, runs it, and lays the sizes out as those of the dense run.

    Args:
        model: The dense model; left as it is.
        graph: Its groups.
        args: Positional inputs.
        kwargs: Keyword inputs.
        seed: Of the units that are cut.

    Attributes:
        run: From cuts to what runs then.
        dense_run: Of the dense model.
        dense: All sizes of it.
        thin: Groups whose last unit makes copies come or go; found by :meth:`check`.
        loose: Groups of which any unit does (with queries wider than values torch takes another attention kernel).
    """

    def __init__(
        self, model: nn.Module, graph: ModelGraph, args: tuple[Any, ...], kwargs: dict[str, Any], seed: int
    ) -> None:
        self._graph = graph
        self._rng = np.random.default_rng(seed)
        self.run = _runner(model, args, kwargs)
        self.dense_run = self.run({})
        self.dense = _laid_out(self.dense_run, self.dense_run)[0]
        self.thin: set[str] = set()
        self.loose: set[str] = set()

    def without(self, gone: Mapping[str, int]) -> Ints:
        """Return all sizes with some units removed, :data:`UNSEEN` where a copy did not run.

        Args:
            gone: Group name to how many of its units go; which ones is drawn.

        Raises:
            BlueprintError: Something else runs than in the dense model.
        """
        seen, whole = self._seen(gone)
        if not whole and self.loose.isdisjoint(gone):
            self.loose.update(gone)
        return seen

    def check(self, extents: Extents) -> None:
        """Compare what the functions say with runs that lose units of all groups at once.

        Raises:
            BlueprintError: They differ somewhere.
        """
        most = {name: group.units - 1 for name, group in self._graph.groups.items() if group.units > 1}
        if most and not self._compare(extents, most):
            firm = [name for name in most if name not in self.loose]
            self.thin.update(name for name in firm if not self._compare(extents, {name: most[name]}))
        for _ in range(_CHECKS if most else 0):
            self._compare_random(extents, most)

    def _compare_random(self, extents: Extents, most: Mapping[str, int]) -> None:
        counts = {
            name: int(self._rng.integers(0, top - (name in self.thin), endpoint=True)) for name, top in most.items()
        }
        if self._compare(extents, counts) or any(counts[name] for name in self.loose):
            return
        # Copies come or go only with several groups together.
        last = {name for name, count in counts.items() if count == most[name]}
        self.thin.update(last)
        if not last:
            self.loose.update(name for name, count in counts.items() if count)

    def _compare(self, extents: Extents, gone: Mapping[str, int]) -> bool:
        """Check sizes; return whether the same operators ran."""
        seen, whole = self._seen(gone)
        counts = np.array([[gone.get(name, 0) for name in self._graph.groups]], np.int64)
        told = extents.sizes(counts)[0]
        wrong = np.flatnonzero((seen != told) & (seen != UNSEEN))
        if wrong.size:
            at = wrong[0]
            raise BlueprintError(
                f"a size does not follow from counts: {seen[at]} where {told[at]} was expected, without {dict(gone)}"
            )
        return whole

    def _seen(self, gone: Mapping[str, int]) -> tuple[Ints, bool]:
        units = {
            name: torch.from_numpy(self._rng.permutation(self._graph.groups[name].units)[:count].copy())
            for name, count in gone.items()
            if count
        }
        return _laid_out(self.run(cuts_of(self._graph, units)), self.dense_run)


def _runner(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[Any], Run]:
    """Return what runs a cut model: on the meta device if the dense model does there what it does with data."""

    def real(cuts: Any) -> Run:
        return _run(cut(model, cuts) if cuts else model, args, kwargs)

    try:
        hollow = _hollow(model)
        on_meta = tree_map(lambda leaf: leaf.to("meta") if isinstance(leaf, Tensor) else leaf, (args, kwargs))

        def meta(cuts: Any) -> Run:
            with torch.device("meta"):
                return _run(cut(hollow, cuts) if cuts else hollow, *on_meta)

        sizes, same = _laid_out(meta({}), real({}))
        same = same and np.array_equal(sizes, _laid_out(real({}), real({}))[0])
    except Exception:  # noqa: BLE001  # what a model does with tensors that hold nothing is its own affair
        same = False
    return meta if same else real


def _hollow(model: nn.Module) -> nn.Module:
    """Return a copy whose tensors have shapes and no data."""
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        empty = torch.empty_like(tensor, device="meta")
        if isinstance(tensor, nn.Parameter):
            empty = nn.Parameter(empty, requires_grad=tensor.requires_grad)
        memo[id(tensor)] = empty
    return copy_module(model, memo).eval()


def _run(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Run:
    tensors = stored_tensors(model)
    # Told as dense, so that nobody counts zeros here.
    workload = workload_of(model, args, kwargs, dict.fromkeys(tensors, ("", 1.0)))
    return workload, {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _laid_out(run: Run, dense: Run) -> tuple[Ints, bool]:
    """Lay all sizes of a run out in the order of the dense one, and say whether the same operators ran.

    Raises:
        BlueprintError: They did not, even if copies are left out.
    """
    (workload, stored), (frame, frame_stored) = run, dense
    same = [_traits(op) for op in workload.ops] == [_traits(op) for op in frame.ops] and (
        workload.outputs == frame.outputs
        and [(len(t.shape), t.itemsize) for t in workload.tensors]
        == [(len(t.shape), t.itemsize) for t in frame.tensors]
    )
    sizes: list[int] = []
    ops = workload.ops if same else _aligned(workload.ops, frame.ops)
    stands_for = {n: n for n in range(len(frame.tensors))} if same else _stand_ins(ops, frame.ops)
    for op, expected in zip(ops, frame.ops, strict=True):
        sizes.extend([UNSEEN] * len(FIELDS) if op is None else [getattr(op, name) for name in FIELDS])
        for n, operand in enumerate(expected.operands):
            sizes.extend([UNSEEN] * len(operand.shape) if op is None else op.operands[n].shape)
    for n, tensor in enumerate(frame.tensors):
        known = workload.tensors[stands_for[n]].shape if n in stands_for else ()
        sizes.extend(known if len(known) == len(tensor.shape) else [UNSEEN] * len(tensor.shape))
    for name, shape in frame_stored.items():
        if len(stored[name]) != len(shape):
            raise BlueprintError(f"the smaller model stores {name!r} with another number of dimensions")
        sizes.extend(stored[name])
    return np.asarray(sizes, np.int64), same


def _aligned(smaller: Sequence[Op], dense: Sequence[Op]) -> list[Op | None]:
    """Find for each operator of the dense run its like, or None for a copy that did not run; pass over new copies."""
    found: list[Op | None] = []
    at = 0
    for op in dense:
        traits, start = _traits(op, flow=False), at
        while at < len(smaller) and _traits(smaller[at], flow=False) != traits and smaller[at].kind == "move":
            at += 1
        if at < len(smaller) and _traits(smaller[at], flow=False) == traits:
            found.append(smaller[at])
            at += 1
        elif op.kind == "move":
            found.append(None)
            at = start
        else:
            raise BlueprintError(
                f"a smaller model runs other operators than the dense one, at {op.module or op.name!r}"
            )
    if any(op.kind != "move" for op in smaller[at:]):
        raise BlueprintError(f"a smaller model runs more operators than the dense one, from {smaller[at].name!r} on")
    return found


def _stand_ins(smaller: Sequence[Op | None], dense: Sequence[Op]) -> dict[int, int]:
    """Find for each activation of the dense run its like: what the same operator writes, or reads if none writes it."""
    found: dict[int, int] = {}
    written = {n for op in dense for n in op.writes}
    for op, expected in zip(smaller, dense, strict=True):
        if op is not None:
            found |= zip(expected.writes, op.writes, strict=False)
            found |= (pair for pair in zip(expected.reads, op.reads, strict=False) if pair[0] not in written)
    return found


def _traits(op: Op, flow: bool = True) -> tuple[Any, ...]:
    """Return what must be alike in all runs: everything but sizes."""
    nothing: dict[str, Any] = dict.fromkeys((*FIELDS, "macs", "weight_bytes", "input_bytes", "output_bytes"), 0)
    rest: dict[str, Any] = {} if flow else {"reads": (), "writes": ()}
    if not op.macs:  # of several parameters the largest gives the name, and which that is may change
        rest |= {"name": "", "weight_name": None}
    operands = [(role, len(shape), itemsize) for role, shape, itemsize in op.operands]
    return replace(op, operands=(), **nothing, **rest), operands
