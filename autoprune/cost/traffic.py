"""Memory traffic of one run, per operator and memory level: tiles, then residency, then fusion, then what zeros save.

The model itself works on arrays, many versions of a network at once (:mod:`autoprune.cost.moved`); here is one
version, operator by operator. The search is that of :mod:`autoprune.cost.tiling`. A tensor beside which everything
alive fits into a level does not leave it (most small networks at batch 1 never send an activation to DRAM). A fused
operator makes no round trip. Zeros count only where the profile lists them.
"""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.cost.moved import TrafficModel
from autoprune.cost.savings import Savings
from autoprune.cost.table import table_of
from autoprune.cost.workload import Workload
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
        activation_bytes: Most bytes of activations that exist at once.
    """

    ops: tuple[OpTraffic, ...]
    level_bytes: tuple[float, ...]
    lower_bound_bytes: float
    compulsory_bytes: float
    untiled_bytes: float
    effective_macs: float
    activation_bytes: float = 0.0

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
    table = table_of(workload)
    moved = TrafficModel(table, profile, runtime, warm).moved(table, bounds=True)
    around = moved.bounds
    assert around is not None
    ops = tuple(
        OpTraffic(
            name=op.name,
            kind=op.kind,
            level_bytes=tuple(moved.level_bytes[0, step].tolist()),
            dense_level_bytes=tuple(moved.dense_level_bytes[0, step].tolist()),
            lower_bound_bytes=float(around.lower[0, step]),
            compulsory_bytes=float(around.compulsory[0, step]),
            untiled_bytes=float(around.untiled[0, step]),
            savings=moved.savings.at(0, step, profile),
            fused=bool(moved.fused[step]),
        )
        for step, op in enumerate(workload.ops)
    )
    return Traffic(
        ops=ops,
        level_bytes=tuple(sum(op.level_bytes[level] for op in ops) for level in range(len(profile.memory) - 1)),
        lower_bound_bytes=sum(op.lower_bound_bytes for op in ops),
        compulsory_bytes=sum(op.compulsory_bytes for op in ops),
        untiled_bytes=sum(op.untiled_bytes for op in ops),
        effective_macs=sum(op.savings.effective_macs for op in ops),
        activation_bytes=float(moved.live.max(initial=0.0)),
    )
