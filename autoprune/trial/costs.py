"""What a trial costs before it is run on data: from counts where they tell, else counted on the built network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from autoprune.cost.candidates import Candidates
from autoprune.cost.device import DeviceCosts
from autoprune.cost.energy import estimate_energy, executed_macs, time_power_w
from autoprune.cost.int8 import int8_scales, int8_workload
from autoprune.cost.macs import MacCounter
from autoprune.cost.model import BlueprintError, CostModel
from autoprune.cost.roofline import LatencyPrediction, predict_latency, ratio_range, roofline_meter
from autoprune.cost.storage import size_bytes
from autoprune.cost.traffic import traffic_of
from autoprune.cost.workload import Workload, workload_of
from autoprune.graph.groups import ModelGraph
from autoprune.pruning.granularity import DEPTH
from autoprune.pruning.plan import Plan, check_config
from autoprune.spec.config import Precision, PruningConfig
from autoprune.spec.findings import DeviceValues
from autoprune.spec.hardware import DeviceProfile
from autoprune.spec.objectives import METRICS
from autoprune.spec.record import LatencyRecord, LayerRecord


@dataclass(frozen=True)
class Elsewhere:
    """A network on a further device of the study, by the models.

    Attributes:
        latency_s: Modelled seconds of one run.
        energy_j: Modelled energy of one run, at that latency.
        power_w: What the energy grows by for each second that it takes.
        corners_s: Seconds of one run where the device's figures are off (:class:`autoprune.cost.roofline.Corners`).
    """

    latency_s: float
    energy_j: float
    power_w: float
    corners_s: tuple[float, ...]

    def measured(self, latency: LatencyRecord) -> DeviceValues:
        """Return the values of a network that was measured there: energy modelled, at the measured latency."""
        seconds = 1e-3 * latency.ms
        return DeviceValues(
            latency_ms=latency.ms,
            ratio=latency.ratio,
            ratio_low=latency.ratio_low,
            ratio_high=latency.ratio_high,
            energy_mj=1e3 * (self.energy_j + self.power_w * (seconds - self.latency_s)),
            measured=True,
            meter=latency.meter,
        )


@dataclass(frozen=True)
class Costs:
    """What is known of a network before it is run on data.

    Attributes:
        values: The exact metrics.
        layers: What became of each layer.
        uncounted_ops: Operator to the number of calls that fvcore has no handle for.
        macs: Multiply-adds of all products, zeros included.
        executed: Dtype to the multiply-adds that the device executes.
        level_bytes: Bytes over the inner edge of each memory level but the innermost.
        prediction: Latency by the roofline.
        elsewhere: Further devices of the study to what the network costs there.
    """

    values: Mapping[str, float]
    layers: Mapping[str, LayerRecord]
    uncounted_ops: Mapping[str, int]
    macs: float
    executed: Mapping[str, float]
    level_bytes: tuple[float, ...]
    prediction: LatencyPrediction
    elsewhere: Mapping[str, Elsewhere]

    def device_values(self, dense: Costs) -> dict[str, DeviceValues] | None:
        """Return what the network costs on the further devices, for a record; None where the study has none.

        Args:
            dense: Of the dense network.
        """
        found = {}
        for name, cost in self.elsewhere.items():
            base = dense.elsewhere[name]
            ratio, (low, high) = cost.latency_s / base.latency_s, ratio_range(cost.corners_s, base.corners_s)
            found[name] = DeviceValues(
                latency_ms=1e3 * cost.latency_s,
                ratio=ratio,
                ratio_low=min(low, ratio),
                ratio_high=max(high, ratio),
                energy_mj=1e3 * cost.energy_j,
                measured=False,
            )
        return found or None


@dataclass(frozen=True)
class _ByCounts:
    """What tells costs in one precision without building anything."""

    model: CostModel
    device: DeviceCosts
    elsewhere: Mapping[str, DeviceCosts]


class TrialCosts:
    """Costs of pruned versions of one model on one device, and on the further devices of its study.

    Args:
        model: The dense model.
        graph: Its layers and groups.
        inputs: Positional and keyword inputs, of the batch that costs are wanted for.
        profile: The device.
        runtime: What executes the model.
        seed: Of the cuts that the cost model is checked on.
        precisions: Number formats that configs may ask for.
        devices: Further devices by name. Whatever runtime they have executes the model there.

    Attributes:
        model: Costs from counts in the precision of the model itself; None where they do not follow from counts.
        device: The same with what depends on the device.
        counted_because: Why every network is built and counted, empty where it is not.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ModelGraph,
        inputs: tuple[tuple[Any, ...], Mapping[str, Any]],
        profile: DeviceProfile,
        runtime: str,
        seed: int = 0,
        *,
        precisions: Sequence[Precision] = ("fp32",),
        devices: Mapping[str, DeviceProfile] | None = None,
    ) -> None:
        self._graph, self._inputs, self._profile, self._runtime = graph, inputs, profile, runtime
        self._devices = dict(devices or {})
        self._counter = MacCounter(model, *inputs)
        self.model: CostModel | None = None
        self.device: DeviceCosts | None = None
        self.counted_because = ""
        self._by_counts: dict[Precision, _ByCounts] = {}
        try:
            known = CostModel(model, graph, *inputs, seed)
            for precision in dict.fromkeys(("fp32", *precisions)):
                costed = known.in_int8() if precision == "int8" else known
                elsewhere = {name: DeviceCosts(costed, each) for name, each in self._devices.items()}
                self._by_counts[precision] = _ByCounts(costed, DeviceCosts(costed, profile, runtime), elsewhere)
            self.model, self.device = known, self._by_counts["fp32"].device
        except BlueprintError as error:
            self.counted_because = str(error)

    @property
    def devices(self) -> Mapping[Precision, DeviceCosts]:
        """Costs of many candidates at once on this device, in each precision; empty where counts do not tell."""
        return {precision: each.device for precision, each in self._by_counts.items()} if self.model else {}

    def of_config(self, config: PruningConfig) -> Costs | None:
        """Return the costs of a config without building anything; None where the built network must tell.

        That is so for a threshold, which only scores can turn into counts, for residual blocks, of which they choose
        which go, and where :class:`CostModel` is not exact.

        Raises:
            ConfigError: The config does not fit the model.
        """
        check_config(config, self._graph)
        scored = any(choice.threshold is not None or choice.granularity == DEPTH for _, choice in config.choices())
        if self.model is None or scored:
            return None
        return self._from_counts(config.precision, self.model.asked.configs([config]))

    def of_built(self, smaller: nn.Module, plan: Plan, precision: Precision = "fp32") -> Costs:
        """Return the costs of a network that was built, by counts where they tell all."""
        costs = (
            None if self.model is None or plan.skipped else self._from_counts(precision, self.model.asked.plan(plan))
        )
        return costs or self.count(smaller, plan, precision)

    def count(self, smaller: nn.Module, plan: Plan, precision: Precision = "fp32") -> Costs:
        """Return the costs of a network by running and counting it, as it is shipped in a precision."""
        macs = self._counter.count(smaller)
        density = {name: int(mask.sum()) / max(mask.numel(), 1) for name, mask in plan.masks.items()}
        patterns = {name: (plan.patterns[name], kept) for name, kept in density.items()}
        workload = workload_of(smaller, *self._inputs, patterns)
        scales = int8_scales(workload) if precision == "int8" else {}
        workload = int8_workload(workload) if precision == "int8" else workload
        traffic = traffic_of(workload, self._profile, self._runtime)
        parameters = dict(smaller.named_parameters())
        moved_by = [(op.module, moved.dram_bytes) for op, moved in zip(workload.ops, traffic.ops, strict=True)]
        zero = sum(op.macs - round(op.macs * op.weight_density) for op in workload.ops if op.kind in ("conv", "gemm"))
        return Costs(
            values=_exact(
                macs=macs.total,
                effective_macs=macs.total - zero,
                params=sum(parameter.numel() for parameter in smaller.parameters()),
                size_bytes=size_bytes(smaller, scales),
                dram_bytes=traffic.dram_bytes,
                llc_bytes=traffic.llc_bytes,
                activation_bytes=traffic.activation_bytes,
            ),
            layers={
                layer.name: LayerRecord(
                    channels=parameters[layer.weight].shape[layer.out_dim] if layer.weight in parameters else 0,
                    dense_channels=layer.shape[layer.out_dim],
                    weight_sparsity=1 - density.get(layer.weight, 1.0),
                    macs=macs.modules.get(layer.name, 0),
                    dram_bytes=sum(dram for name, dram in moved_by if _inside(name, layer.name)),
                )
                for layer in self._graph.layers.values()
            },
            uncounted_ops=dict(macs.uncounted_ops),
            macs=workload.macs,
            executed=executed_macs(workload, traffic),
            level_bytes=traffic.level_bytes,
            prediction=predict_latency(workload, traffic, self._profile),
            elsewhere={name: _elsewhere(workload, profile) for name, profile in self._devices.items()},
        )

    def _from_counts(self, precision: Precision, candidates: Candidates) -> Costs | None:
        known = self._by_counts[precision]
        model, device = known.model, known.device
        if not (model.exact_size(candidates).all() and model.exact_traffic(candidates).all()):
            return None
        counts, cost = model.counts(candidates), device.costs(candidates)
        layers = zip(
            self._graph.layers.values(),
            counts.layer_channels[0].tolist(),
            counts.layer_density[0].tolist(),
            counts.layer_macs[0].tolist(),
            model.by_layer(cost.moved.level_bytes[:, :, -1])[0].tolist(),
            strict=True,
        )
        return Costs(
            values=_exact(
                macs=int(counts.macs[0]),
                effective_macs=int(counts.effective_macs[0]),
                params=int(counts.params[0]),
                size_bytes=int(counts.size_bytes[0]),
                dram_bytes=float(cost.dram_bytes[0]),
                llc_bytes=float(cost.llc_bytes[0]),
                activation_bytes=float(cost.activation_bytes[0]),
            ),
            layers={
                layer.name: LayerRecord(
                    channels=channels,
                    dense_channels=layer.shape[layer.out_dim],
                    weight_sparsity=1 - density,
                    macs=macs,
                    dram_bytes=dram,
                )
                for layer, channels, density, macs, dram in layers
            },
            uncounted_ops=dict(model.dense.uncounted_ops),
            macs=int(cost.table.macs.sum()),
            executed={dtype: float(macs[0]) for dtype, macs in device.executed(cost).items()},
            level_bytes=tuple(cost.moved.level_bytes[0].sum(axis=0).tolist()),
            prediction=LatencyPrediction(
                seconds=float(cost.latency_s[0]),
                ops=(),
                meter=roofline_meter(self._profile, cost.table.batch, cost.table.dtype),
                corners=tuple(device.corners_s(cost)[0].tolist()),
            ),
            elsewhere={name: _elsewhere_by_counts(other, candidates) for name, other in known.elsewhere.items()},
        )


def _elsewhere(workload: Workload, profile: DeviceProfile) -> Elsewhere:
    traffic = traffic_of(workload, profile)
    told = predict_latency(workload, traffic, profile)
    energy = estimate_energy(workload, traffic, profile, told.seconds).total_j
    return Elsewhere(told.seconds, energy, time_power_w(profile), told.corners)


def _elsewhere_by_counts(device: DeviceCosts, candidates: Candidates) -> Elsewhere:
    cost = device.costs(candidates)
    corners = tuple(device.corners_s(cost)[0].tolist())
    return Elsewhere(float(cost.latency_s[0]), float(device.energy_j(cost)[0]), time_power_w(device.profile), corners)


def _inside(module: str, layer: str) -> bool:
    return module == layer or not layer or module.startswith(f"{layer}.")


def _exact(**values: float) -> dict[str, float]:
    assert all(METRICS[name].exact for name in values)
    return {name: float(value) for name, value in values.items()}
