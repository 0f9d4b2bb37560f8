"""Which activations stay on chip, and so which share of an operator's tensors crosses an edge: arrays over versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.cost.dataflow import Dataflow
from autoprune.cost.extents import Floats, Ints
from autoprune.cost.traits import Sums
from autoprune.cost.workload import Op


@dataclass(frozen=True)
class Activations:
    """Bytes of the activations of ``n`` versions.

    Attributes:
        live: Of all that exist while an operator runs, shape (n, ops).
        terms: What each operator reads from outside a fused one, tensor by tensor; shape (n, reads).
        safe: Bytes that each operator reads, 1 where it reads none; shape (n, ops).
        known: Where it reads some.
        read: Share of these that is not inside a fused operator, shape (n, ops).
    """

    live: Floats
    terms: Ints
    safe: Ints
    known: NDArray[np.bool_]
    read: Floats


@dataclass(frozen=True)
class Paid:
    """Which part of an operator's tensors crosses an edge, shape (n, ops)."""

    inputs: Floats
    outputs: Floats


class Residency:
    """What is kept of the activations of one network.

    Args:
        flow: Its dataflow, of any version.
        ops: Its operators.

    Attributes:
        written: Which operators write outside a fused one, shape (1, ops).
    """

    def __init__(self, flow: Dataflow, ops: Sequence[Op]) -> None:
        values = flow.values
        self._activation = np.array([value.activation for value in values], np.int64)
        self._outside = np.array([number not in flow.internal for number in range(len(values))], np.bool_)
        self._leaves = np.array([value.leaves for value in values], np.bool_)
        self._first = np.array([max(value.writer, 0) for value in values], np.int64)
        self._last = np.array([value.last for value in values], np.int64)
        reads, enters, writes, alive = np.zeros((4, len(values), len(ops)), np.int64)
        for step in range(len(ops)):
            for read in flow.reads[step]:
                reads[read, step] += 1
                # What is resident costs nothing, but an input of the network arrives once.
                enters[read, step] += values[read].writer < 0 and step == values[read].readers[0]
            writes[list(flow.writes[step]), step] = 1
        for number, value in enumerate(values):
            if value.last >= 0 and self._outside[number]:
                alive[number, max(value.writer, 0) : value.last + 1] = 1
        self._reads, self._writes, self._alive = Sums(reads), Sums(writes), Sums(alive)
        self._outside_terms = self._outside[self._reads.terms] if len(values) else np.zeros(0, np.bool_)
        self._enters = enters[self._reads.terms, self._reads.owners] * (self._reads.weights > 0)
        self._reads_none = np.array([0.0 if op.reads else 1.0 for op in ops])
        self._writes_none = np.array([not op.writes for op in ops], np.bool_)
        self.written = (self._writes.any(self._outside[None]) | self._writes_none).astype(np.float64)

    def activations(self, tensor_bytes: Ints, extra: Ints | None = None) -> Activations:
        """Return the bytes that are read and alive.

        Args:
            tensor_bytes: Of the activations of the workload, shape (n, activations).
            extra: What operators hold beside them while they run, shape (n, ops).
        """
        values = tensor_bytes[:, self._activation]
        of_terms = values[:, self._reads.terms] if values.shape[1] else np.zeros((len(values), 0), np.int64)
        terms = of_terms * self._outside_terms
        total = self._reads.added(of_terms * self._reads.weights)
        known = total > 0
        safe = np.where(known, total, 1)
        live = self._alive.of(values).astype(np.float64)
        return Activations(
            live=live if extra is None else live + extra,
            terms=terms,
            safe=safe,
            known=known,
            read=np.where(known, self._reads.added(terms * self._reads.weights) / safe, self._reads_none),
        )

    def paid(self, of: Activations, capacity: float) -> Paid:
        """Find what is resident: values beside which all that lives fits, from first write to last read."""
        over = of.live > capacity
        crowded = np.zeros((len(over), over.shape[1] + 1), np.int64)
        np.cumsum(over, axis=1, out=crowded[:, 1:])
        resident = (crowded[:, self._last + 1] == crowded[:, self._first]) & (self._last >= 0)
        if resident.shape[1]:
            times = np.where(resident[:, self._reads.terms], self._enters, self._reads.weights)
            paid = self._reads.added(of.terms * times)
        else:
            paid = np.zeros_like(of.safe)
        leaves = self._writes.any(self._outside & (~resident | self._leaves))
        return Paid(
            inputs=np.where(of.known, paid / of.safe, self._reads_none),
            outputs=(leaves | self._writes_none).astype(np.float64),
        )
