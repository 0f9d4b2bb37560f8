"""Memory traffic of one run, per operator and memory level: tiles, then residency, then fusion, then what zeros save.

The search is that of :mod:`autoprune.cost.tiling`. A tensor beside which everything alive fits into a level does not
leave it (most small networks at batch 1 never send an activation to DRAM). A fused operator makes no round trip. Zeros
count only where the profile lists them.
"""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.cost.dataflow import Dataflow, dataflow_of
from autoprune.cost.savings import Savings, format_factor, savings_of
from autoprune.cost.tiling import TiledBytes, compulsory_elements, search_tiles, tiles_of
from autoprune.cost.workload import Op, Workload
from autoprune.spec.hardware import DeviceProfile


@dataclass(frozen=True)
class OpTraffic:
    """Bytes that one operator moves.

    Attributes:
        name: As in the workload.
        kind: As in the workload.
        level_bytes: Bytes over the inner edge of each memory level but the innermost, in the profile's order: the last
            is DRAM. What moves inside the innermost level is part of the energy and the rate of a MAC.
        dense_level_bytes: The same with the zeros stored and read.
        lower_bound_bytes: DRAM bytes that no tiling can avoid, given what is resident.
        compulsory_bytes: Each tensor once, resident or not.
        untiled_bytes: Both operands of every MAC from DRAM.
        savings: What the weight's zeros save.
        fused: Whether it runs inside the operator before it.
    """

    name: str
    kind: str
    level_bytes: tuple[float, ...]
    dense_level_bytes: tuple[float, ...]
    lower_bound_bytes: float
    compulsory_bytes: float
    untiled_bytes: float
    savings: Savings
    fused: bool

    @property
    def dram_bytes(self) -> float:
        """Bytes between DRAM and the last level on chip."""
        return self.level_bytes[-1]

    @property
    def llc_bytes(self) -> float:
        """Bytes between the last level on chip and the one inside it; 0 where there is none."""
        return self.level_bytes[-2] if len(self.level_bytes) > 1 else 0.0


@dataclass(frozen=True)
class Traffic:
    """Bytes that one run moves.

    Attributes:
        ops: One entry per operator of the workload.
        level_bytes: Totals of ``OpTraffic.level_bytes``.
        lower_bound_bytes: Total.
        compulsory_bytes: Total.
        untiled_bytes: Total.
        effective_macs: MACs that are executed on this device.
    """

    ops: tuple[OpTraffic, ...]
    level_bytes: tuple[float, ...]
    lower_bound_bytes: float
    compulsory_bytes: float
    untiled_bytes: float
    effective_macs: float

    @property
    def dram_bytes(self) -> float:
        """Bytes between DRAM and the last level on chip."""
        return self.level_bytes[-1]

    @property
    def llc_bytes(self) -> float:
        """Bytes between the last level on chip and the one inside it; 0 where there is none."""
        return self.level_bytes[-2] if len(self.level_bytes) > 1 else 0.0


def traffic_of(workload: Workload, profile: DeviceProfile, runtime: str | None = None, warm: bool = False) -> Traffic:
    """Estimate the traffic of one run.

    Args:
        workload: What is executed.
        profile: On what.
        runtime: By what; only its entries of ``sparse_support`` count. None: those of any runtime.
        warm: Whether weights that fit beside the activations stay from the run before. Cold by default: on a device
            that does other things too, a network's weights come from DRAM in each run.
    """
    flow = dataflow_of(workload, profile.runtime.fusion)
    savings = [savings_of(op, profile, runtime) for op in workload.ops]
    live = flow.live_bytes()
    weights = sum(op.weight_bytes for op in workload.ops)
    rows: list[list[tuple[TiledBytes, float]]] = []
    for inner in profile.memory[:-1]:
        capacity = inner.effective_bytes
        resident = flow.resident(capacity, live)
        kept = warm and weights + max(live, default=0) <= capacity
        rows.append(
            [
                _op_traffic(
                    step, workload.ops[step], flow, resident, live[step], capacity, kept, savings[step], profile
                )
                for step in range(len(workload.ops))
            ]
        )
    ops = tuple(
        OpTraffic(
            name=op.name,
            kind=op.kind,
            level_bytes=tuple(row[step][0].model for row in rows),
            dense_level_bytes=tuple(row[step][1] for row in rows),
            lower_bound_bytes=rows[-1][step][0].lower_bound,
            compulsory_bytes=rows[-1][step][0].compulsory,
            untiled_bytes=rows[-1][step][0].untiled,
            savings=savings[step],
            fused=step in flow.fused,
        )
        for step, op in enumerate(workload.ops)
    )
    return Traffic(
        ops=ops,
        level_bytes=tuple(sum(op.level_bytes[level] for op in ops) for level in range(len(rows))),
        lower_bound_bytes=sum(op.lower_bound_bytes for op in ops),
        compulsory_bytes=sum(op.compulsory_bytes for op in ops),
        untiled_bytes=sum(op.untiled_bytes for op in ops),
        effective_macs=sum(op.savings.effective_macs for op in ops),
    )


def _op_traffic(
    step: int,
    op: Op,
    flow: Dataflow,
    resident: frozenset[int],
    live: int,
    capacity: float,
    weights_kept: bool,
    savings: Savings,
    profile: DeviceProfile,
) -> tuple[TiledBytes, float]:
    """Return the bytes of one operator over one edge, and those with the weight's zeros stored."""
    read = [n for n in flow.reads[step] if n not in flow.internal]
    # What is resident costs nothing, but an input of the network arrives once and an output leaves once.
    paid = [n for n in read if n not in resident or (flow.values[n].writer < 0 and step == flow.values[n].readers[0])]
    total = sum(flow.values[n].size for n in flow.reads[step])
    share_in = sum(flow.values[n].size for n in paid) / total if total else float(not op.reads)
    share_read = sum(flow.values[n].size for n in read) / total if total else float(not op.reads)
    written = [n for n in flow.writes[step] if n not in flow.internal]
    share_written = float(bool(written) or not op.writes)
    share_out = float(not op.writes or any(n not in resident or flow.values[n].leaves for n in written))
    if profile.runtime.activation_format:
        bits = 8 * op.itemsize
        packed_in = format_factor(profile.runtime.activation_format, op.input_density, bits)
        packed_out = format_factor(profile.runtime.activation_format, op.output_density, bits)
    else:
        packed_in = packed_out = 1.0
    # A norm inside a fused operator is folded into the weights before it.
    weight = 0.0 if weights_kept or step in flow.fused else 1.0
    if op.kind in ("conv", "gemm"):
        b = op.itemsize
        shape = tiles_of(op, profile.compute.accumulator_bytes)
        once = search_tiles(
            shape._replace(
                input_bytes=b * packed_in * (share_read > 0),
                weight_bytes=b * savings.weight_factor,
                output_bytes=b * packed_out * share_written,
            ),
            capacity,
        )
        if live <= capacity and (op.reads or op.writes):
            # Everything lives side by side, so nothing is read twice; what is resident is not even read once.
            x, w, o = compulsory_elements(shape)
            rest = x * b * packed_in * share_in + o * b * packed_out * share_out
            model = rest + w * b * savings.weight_factor * weight
            return TiledBytes(model, model, once.compulsory, max(once.untiled, model)), rest + w * b * weight
        dense = (
            once
            if savings.support is None
            else search_tiles(
                shape._replace(
                    input_bytes=b * packed_in * (share_read > 0),
                    weight_bytes=b,
                    output_bytes=b * packed_out * share_written,
                ),
                capacity,
            )
        )
        return once, dense.model
    inputs, outputs = op.input_bytes * packed_in, op.output_bytes * packed_out
    once_bytes = inputs * share_read + outputs * share_written + op.weight_bytes * (step not in flow.fused)
    model = inputs * share_in + outputs * share_out + op.weight_bytes * weight
    untiled = once_bytes
    if op.kind == "attention":
        keys_again = _attention_rereads(op, capacity, profile.compute.accumulator_bytes) if live > capacity else 0.0
        untiled += 2.0 * op.macs * op.itemsize
        lower, model = model, min(model + keys_again, untiled)
        return TiledBytes(model, lower, once_bytes, untiled), model
    return TiledBytes(model, model, once_bytes, untiled), model


def _attention_rereads(op: Op, capacity: float, accumulator: int) -> float:
    """Return the extra bytes of keys and values, read once per block of queries (FlashAttention, arXiv 2205.14135)."""
    d_k, d_v = op.c_in // op.groups, op.c_out // op.groups
    block = max(1, int(capacity // (d_k * op.itemsize + (d_v + 2) * accumulator)))
    passes = -(-op.N // block)
    return float((passes - 1) * op.groups * op.E * (d_k + d_v) * op.itemsize)
