"""Costs of many candidates on one device, from counts alone: traffic, activations, modelled latency and energy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autoprune.cost.candidates import Candidates
from autoprune.cost.energy import energy_parts
from autoprune.cost.extents import Floats
from autoprune.cost.model import BlueprintError, CostModel
from autoprune.cost.moved import Moved, TrafficModel
from autoprune.cost.roofline import Corners, Roofline, Times
from autoprune.cost.table import OpTable
from autoprune.spec.hardware import DeviceProfile


@dataclass(frozen=True)
class DeviceCost:
    """Modelled costs of ``n`` candidates on one device.

    Attributes:
        table: Their operators.
        moved: Bytes of every operator over every edge.
        times: Modelled seconds of every operator.
        dram_bytes: Between DRAM and the last level on chip, shape (n,).
        llc_bytes: Between the last level on chip and the one inside it, shape (n,); 0 where there is none.
        activation_bytes: Most bytes of activations that exist at once, shape (n,).
        latency_s: Modelled seconds of one run, shape (n,).
        effective_macs: Multiply-adds that this device executes, shape (n,).
    """

    table: OpTable
    moved: Moved
    times: Times
    dram_bytes: Floats
    llc_bytes: Floats
    activation_bytes: Floats
    latency_s: Floats
    effective_macs: Floats


class DeviceCosts:
    """Costs on one device as functions of counts.

    Args:
        model: Costs that hold on any device.
        profile: The device.
        runtime: Only its entries of ``sparse_support`` count; None: those of any runtime.

    Raises:
        BlueprintError: The size of an image changes with the channels, so tiles must be found for each candidate.
    """

    def __init__(self, model: CostModel, profile: DeviceProfile, runtime: str | None = None) -> None:
        for name in ("H", "W", "E", "F"):
            if not model.blueprint.constant[name]:
                raise BlueprintError(f"the {name} of an operator changes with the channels that groups keep")
        self.model = model
        self.profile = profile
        nothing = np.full((1, len(model.layers)), -1, np.int64)
        dense = model.table(Candidates(model.blueprint.units[None], nothing, nothing))
        varies = ~model.blueprint.extents.constant()[model.blueprint.fields["N"]]
        self._traffic = TrafficModel(dense, profile, runtime, most_images=np.where(varies, dense.N[0], 0))
        self._roofline = Roofline(dense.traits, profile)
        self._corners = Corners(dense.traits, profile)
        self._dtypes = {
            dtype: np.array([op.dtype == dtype for op in dense.ops], np.bool_)
            for dtype in dict.fromkeys(op.dtype for op in dense.ops)
        }

    def costs(self, candidates: Candidates) -> DeviceCost:
        """Return the costs: those of the built model by ``traffic_of``, where ``CostModel.exact_traffic`` says so."""
        table = self.model.table(candidates)
        moved = self._traffic.moved(table)
        times = self._roofline.times(table, moved.dense_level_bytes, moved.savings.speedup, moved.fused)
        levels = moved.level_bytes.sum(axis=1)
        return DeviceCost(
            table=table,
            moved=moved,
            times=times,
            dram_bytes=levels[:, -1],
            llc_bytes=levels[:, -2] if levels.shape[1] > 1 else np.zeros(len(levels)),
            activation_bytes=moved.live.max(axis=1, initial=0.0),
            latency_s=times.seconds.sum(axis=1),
            effective_macs=moved.savings.effective_macs.sum(axis=1),
        )

    def corners_s(self, cost: DeviceCost) -> Floats:
        """Return the modelled seconds of one run where the device's figures are off, shape (n, 8).

        Args:
            cost: What :meth:`costs` gave.
        """
        moved = cost.moved
        return self._corners.seconds(cost.table, moved.dense_level_bytes, moved.savings.speedup, moved.fused)

    def energy_j(self, cost: DeviceCost, latency_s: Floats | None = None) -> Floats:
        """Return the energy of one run, J, shape (n,).

        Args:
            cost: What :meth:`costs` gave.
            latency_s: Measured or predicted seconds, shape (n,); None: those that the roofline models.
        """
        seconds = cost.latency_s if latency_s is None else latency_s
        levels = list(cost.moved.level_bytes.sum(axis=1).T)
        parts = energy_parts(self.profile, seconds, self.executed(cost), levels)
        total: Floats = sum(parts, np.zeros(len(seconds)))
        return total

    def executed(self, cost: DeviceCost) -> Mapping[str, Floats]:
        """Return dtype to the multiply-adds that the device executes, shape (n,)."""
        macs = cost.moved.savings.effective_macs
        return {dtype: macs[:, of].sum(axis=1) for dtype, of in self._dtypes.items()}
