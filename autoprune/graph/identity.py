"""Channel identities: integers that stand where activations stand, united when channels must go together.

An identity tensor has the shape of the activation. Its entries say which channel's value stands there; 0 is no channel
(network input, constants, padding). An axis along which nothing changes is a stride-0 view, so that a 512 x 7 x 7
activation costs 512 integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

FIXED = 0
"""The identity of everything that is not a removable channel."""


class Identities:
    """A union-find over identities; a class may be pinned, with a reason, or rest on an assumption."""

    def __init__(self) -> None:
        self._parent: list[int] = [FIXED]
        self._pinned: dict[int, str] = {FIXED: "follows the network's input or a constant"}
        self._assumed: dict[int, str] = {}
        self._marks: dict[int, frozenset[str]] = {}
        self._axes: dict[tuple[str, int], Tensor] = {}

    def fresh(self, count: int) -> Tensor:
        """Return ``count`` new identities, shape (count,)."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return torch.arange(start, start + count)

    def find(self, identity: int) -> int:
        """Return the root of the class of ``identity``."""
        parent = self._parent
        root = identity
        while parent[root] != root:
            root = parent[root]
        while parent[identity] != root:
            parent[identity], identity = root, parent[identity]
        return root

    def roots(self, ids: Tensor) -> list[int]:
        """Return the root of every entry of a 1-D tensor."""
        return [self.find(i) for i in ids.tolist()]

    def canonical(self, ids: Tensor) -> Tensor:
        """Return the same tensor with every identity replaced by the root of its class: what is united looks alike."""
        slim = compact(ids)
        known, places = torch.unique(slim, return_inverse=True)
        roots = torch.tensor([self.find(identity) for identity in known.tolist()], dtype=torch.int64)
        return shrink(roots[places].expand(ids.shape))

    def unite(self, a: Tensor, b: Tensor, reason: str) -> None:
        """Unite entry by entry, both of one shape; where one side is no channel the other is pinned for ``reason``."""
        count = len(self._parent)
        pairs = torch.unique(compact(a, b).reshape(-1) * count + compact(b, a).reshape(-1))
        for pair in pairs.tolist():
            self._join(pair // count, pair % count, reason)

    def unite_all(self, ids: Tensor, axis: int, reason: str) -> Tensor:
        """Unite all positions that share an index along ``axis``; return one identity per index, shape (size,)."""
        rows = compact(ids).movedim(axis, 0)
        rows = rows.expand(ids.shape[axis], *rows.shape[1:]).reshape(ids.shape[axis], -1)
        first = rows[:, 0]
        if rows.shape[1] > 1:
            self.unite(first.unsqueeze(1).expand_as(rows), rows, reason)
        return first

    def pin(self, ids: Tensor, reason: str) -> None:
        """Say that the channels in ``ids`` must stay."""
        for identity in torch.unique(compact(ids)).tolist():
            self._pinned.setdefault(self.find(identity), reason)

    def assume(self, ids: Tensor, reason: str) -> None:
        """Say that removing the channels in ``ids`` rests on what a run of the smaller model must prove."""
        for identity in torch.unique(compact(ids)).tolist():
            self._assumed.setdefault(self.find(identity), reason)

    def mark(self, ids: Tensor, mark: str) -> None:
        """Note something about the channels in ``ids`` that decides which kind of unit they are."""
        for identity in torch.unique(compact(ids)).tolist():
            root = self.find(identity)
            self._marks[root] = self._marks.get(root, frozenset()) | {mark}

    def tie(self, tensor: str, dim: int, ids: Tensor, reason: str) -> Tensor:
        """Say that index i of ``tensor`` along ``dim`` goes with ``ids[i]``; return the identities of that axis.

        A tensor that is used twice (shared weights) ties both uses.
        """
        known = self._axes.get((tensor, dim))
        if known is None:
            self._axes[tensor, dim] = ids
            return ids
        self.unite(known, ids, reason)
        return known

    def table(self) -> Tensor:
        """Return the root of every identity, shape (identities,)."""
        return torch.tensor([self.find(identity) for identity in range(len(self._parent))])

    def free(self, table: Tensor) -> Tensor:
        """Return for every identity whether its class may go, shape of ``table``."""
        free = torch.ones_like(table, dtype=torch.bool)
        free[torch.tensor(sorted(self._pinned))] = False
        return free[table]

    def axes(self) -> Iterable[tuple[tuple[str, int], Tensor]]:
        """Return every tied axis: (tensor, dim) and its identities."""
        return self._axes.items()

    def pinned(self, root: int) -> str | None:
        """Return why the class of ``root`` must stay, or None if it may go."""
        return self._pinned.get(root)

    def assumption(self, root: int) -> str:
        """Return what the removal of the class of ``root`` rests on; empty if on nothing."""
        return self._assumed.get(root, "")

    def marks(self, root: int) -> frozenset[str]:
        """Return what was noted about the class of ``root``."""
        return self._marks.get(root, frozenset())

    def _join(self, a: int, b: int, reason: str) -> None:
        root_a, root_b = self.find(a), self.find(b)
        if root_a == root_b:
            return
        if FIXED in (root_a, root_b):
            self._pinned.setdefault(max(root_a, root_b), reason)
            return
        self._parent[root_b] = root_a
        for facts in (self._pinned, self._assumed):
            if root_b in facts:
                facts.setdefault(root_a, facts.pop(root_b))
        if root_b in self._marks:
            self._marks[root_a] = self.marks(root_a) | self._marks.pop(root_b)


def constant_axes(ids: Tensor) -> tuple[bool, ...]:
    """Say for every axis whether all entries along it are the same (an axis of size 1 is constant)."""
    return tuple(size == 1 or stride == 0 for size, stride in zip(ids.shape, ids.stride(), strict=True))


def carrying_axes(ids: Tensor) -> tuple[int, ...]:
    """Return the axes along which identities change."""
    return tuple(axis for axis, constant in enumerate(constant_axes(ids)) if not constant)


def shrink(ids: Tensor) -> Tensor:
    """Return the same tensor with every constant axis as a stride-0 view (checked by value)."""
    slim = compact(ids)
    for axis, size in enumerate(slim.shape):
        if size > 1:
            first = slim.narrow(axis, 0, 1)
            if bool((slim == first).all()):
                slim = first
    return slim.expand(ids.shape)


def compact(ids: Tensor, other: Tensor | None = None) -> Tensor:
    """Return ``ids`` with constant axes narrowed to size 1; with ``other``, only axes that are constant in both."""
    constant = constant_axes(ids)
    if other is not None:
        constant = tuple(a and b for a, b in zip(constant, constant_axes(other), strict=True))
    for axis, same in enumerate(constant):
        if same and ids.shape[axis] > 1:
            ids = ids.narrow(axis, 0, 1)
    return ids


def along(ids: Tensor, axis: int, shape: Sequence[int]) -> Tensor:
    """Lay identities, shape (shape[axis],), along ``axis`` of a tensor of ``shape``; stride 0 elsewhere."""
    view = [1] * len(shape)
    view[axis] = shape[axis]
    return ids.reshape(view).expand(tuple(shape))


def fixed(shape: Sequence[int]) -> Tensor:
    """Return an identity tensor of ``shape`` that holds no channel."""
    return torch.zeros((), dtype=torch.int64).expand(tuple(shape))
