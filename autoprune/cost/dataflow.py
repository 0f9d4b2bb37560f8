"""Which activations never leave a level: fusion deletes a round trip, residency keeps what fits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from autoprune.cost.workload import Op, Workload

_ACTIVATIONS = frozenset(
    {
        *("relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "mish", "sigmoid", "tanh", "softplus"),
        *("hardswish", "hardsigmoid", "hardtanh", "clamp", "clamp_min", "prelu"),
    }
)
_NORMS = frozenset({"batch_norm", "native_batch_norm"})


@dataclass(frozen=True)
class Value:
    """One version of one activation; an in-place operator makes a new version.

    Attributes:
        size: Bytes.
        writer: Index of the operator that made it; -1 for an input of the network.
        readers: Indices of the operators that read it.
        last: Last operator during which it must be kept.
        leaves: Whether the network returns it.
        activation: Which activation of the workload it is a version of.
    """

    size: int
    writer: int
    readers: tuple[int, ...]
    last: int
    leaves: bool
    activation: int


@dataclass(frozen=True)
class Dataflow:
    """Activations of one workload after fusion.

    Attributes:
        values: All versions.
        reads: Operator to the values it reads.
        writes: Operator to the values it writes.
        internal: Values that live inside a fused operator and touch no memory.
        fused: Operators that run inside an earlier one.
    """

    values: tuple[Value, ...]
    reads: tuple[tuple[int, ...], ...]
    writes: tuple[tuple[int, ...], ...]
    internal: frozenset[int]
    fused: frozenset[int]

    def live_bytes(self) -> list[int]:
        """Return for each operator the bytes of all activations that exist while it runs."""
        change = [0] * (len(self.reads) + 1)
        for number, value in enumerate(self.values):
            if number not in self.internal and value.last >= 0:
                change[max(value.writer, 0)] += value.size
                change[value.last + 1] -= value.size
        live, total = [], 0
        for step in change[:-1]:
            total += step
            live.append(total)
        return live

    def resident(self, capacity: float, live: Sequence[int]) -> frozenset[int]:
        """Return the values beside which all that lives fits into ``capacity`` bytes, from first write to last read."""
        return frozenset(
            number
            for number, value in enumerate(self.values)
            if value.last >= 0 and max(live[max(value.writer, 0) : value.last + 1], default=0) <= capacity
        )


def dataflow_of(workload: Workload, fusion: Sequence[str] = ()) -> Dataflow:
    """Follow the activations of a workload.

    Args:
        workload: Operators with their reads and writes.
        fusion: Chains that the runtime executes as one operator ("conv+bn+act"); the longest that fits is taken.
    """
    current: dict[int, int] = {}  # activation -> its version now
    activations: list[int] = []
    writer: list[int] = []
    readers: defaultdict[int, list[int]] = defaultdict(list)
    replaced: dict[int, int] = {}  # version -> operator that overwrites it in place
    reads: list[tuple[int, ...]] = []
    writes: list[tuple[int, ...]] = []

    def version(activation: int, made_by: int) -> int:
        current[activation] = len(activations)
        activations.append(activation)
        writer.append(made_by)
        return len(activations) - 1

    for step, op in enumerate(workload.ops):
        read = tuple(current[a] if a in current else version(a, -1) for a in op.reads)
        for number in read:
            readers[number].append(step)
        replaced |= {current[a]: step for a in op.writes if a in op.reads}
        reads.append(read)
        writes.append(tuple(version(a, step) for a in op.writes))
    leaves = {current[a] for a in workload.outputs if a in current}
    end = len(workload.ops) - 1
    values = tuple(
        Value(
            size=workload.tensor_bytes[activations[number]],
            writer=writer[number],
            readers=tuple(readers[number]),
            # Overwritten in place: its successor stands for it from that operator on.
            last=end
            if number in leaves
            else replaced[number] - 1
            if number in replaced
            else max(readers[number], default=-1),
            leaves=number in leaves,
            activation=activations[number],
        )
        for number in range(len(activations))
    )
    internal, fused = _fuse(workload.ops, values, writes, [tuple(chain.split("+")) for chain in fusion])
    return Dataflow(values, tuple(reads), tuple(writes), frozenset(internal), frozenset(fused))


def _fuse(
    ops: Sequence[Op],
    values: Sequence[Value],
    writes: Sequence[tuple[int, ...]],
    chains: Sequence[tuple[str, ...]],
) -> tuple[set[int], set[int]]:
    internal: set[int] = set()
    fused: set[int] = set()
    for head in range(len(ops)) if chains else ():
        if head in fused:
            continue
        members, between = [head], list[int]()
        best = 1
        while len(members) < max(map(len, chains)) and len(writes[members[-1]]) == 1:
            value = writes[members[-1]][0]
            if len(values[value].readers) != 1 or values[value].leaves:
                break
            members.append(values[value].readers[0])
            between.append(value)
            if any(_is_chain([ops[m] for m in members], chain) for chain in chains):
                best = len(members)
        internal.update(between[: best - 1])
        fused.update(members[1:best])
    return internal, fused


def _is_chain(members: Sequence[Op], chain: Sequence[str]) -> bool:
    return len(members) == len(chain) and all(map(_plays, members, chain))


def _plays(op: Op, role: str) -> bool:
    if role in ("conv", "linear"):
        return op.kind == {"conv": "conv", "linear": "gemm"}[role]
    if role == "act":
        return op.operator in _ACTIVATIONS
    if role == "bn":
        return op.operator in _NORMS
    return op.operator == role
