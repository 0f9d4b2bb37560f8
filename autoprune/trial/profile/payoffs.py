"""What pays here: each pattern of the study's space tried on the slowest layers and on the whole network.

Nothing is recovered or scored: only time is asked, and which units go does not change it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from autoprune.cost.meters import ModelInputs
from autoprune.cost.roofline import predict_latency
from autoprune.cost.traffic import traffic_of
from autoprune.cost.workload import workload_of
from autoprune.graph.groups import Group
from autoprune.pruning.granularity import granularity, removed_count
from autoprune.spec.config import LayerChoice, ModelIdentity, PruningConfig, is_n_of_m, n_of_m
from autoprune.spec.profile import Payoff, Ratio, Staircase, StairPoint
from autoprune.spec.space import LayerSpace
from autoprune.trial.profile.alone import AloneMeter, record_inputs
from autoprune.trial.pruned import PrunedModel, pruned_model
from autoprune.trial.runner import TrialRunner

_CRITERION = "magnitude_l1"  # any will do: time does not depend on which units go
_SHARES = (0.25, 0.5, 0.75)
_STAIRS = 8  # eighths of the width, each with the width just below it


@dataclass(frozen=True)
class Trials:
    """Tries patterns on one network and one device.

    Attributes:
        runner: Model, graph, device.
        inputs: Of the model, at the study's batch.
        meter: None where the device is modelled.
    """

    runner: TrialRunner
    inputs: ModelInputs
    meter: AloneMeter | None

    def options(self, layer: str) -> LayerSpace | None:
        """Return what the space says of a layer."""
        space = self.runner.spec.space
        assert not isinstance(space, str)
        found = self.runner.graph.layers[layer]
        return space.resolve(layer, found.type_name)

    def on_layer(self, layer: str, removing: bool = True) -> list[Payoff]:
        """Try every granularity of the space on one layer, measured alone before and after.

        Args:
            layer: Which.
            removing: Whether those that cut channels out are tried too.
        """
        options, tried = self.options(layer), []
        for key in options.granularities if options is not None else ():
            if granularity(key).removed:
                if not removing:
                    continue
                groups = self.groups(layer, key)
                for count in _counts(sum(group.units for group in groups), self._step()):
                    tried.append(self._try(layer, key, _spread(groups, count)))
            elif options is not None and not granularity(key).refusal(self.runner.graph.layers[layer]):
                tried += [self._try(layer, key, {layer: sparsity}) for sparsity in _sparsities(key, options)]
        return tried

    def on_network(self, layers: Sequence[str], removing: bool = True) -> list[Payoff]:
        """Try every granularity of the space on all layers that it allows, half of the units gone.

        Args:
            layers: Those that the space speaks of.
            removing: Whether granularities that cut channels out are tried too.
        """
        wanted: dict[str, dict[str, float]] = {}
        for layer in layers:
            options = self.options(layer)
            for key in options.granularities if options is not None else ():
                if granularity(key).removed and not removing:
                    continue
                choices = wanted.setdefault(key, {})
                if granularity(key).removed:
                    groups = self.groups(layer, key)
                    choices |= {group.name: removed_count(group.units, 0.5) / group.units for group in groups}
                elif not granularity(key).refusal(self.runner.graph.layers[layer]):
                    kept, of = n_of_m(key) if is_n_of_m(key) else (1, 2)
                    choices[layer] = 1 - kept / of
        return [self._try(None, key, choices) for key, choices in wanted.items() if choices]

    def removable(self, layer: str) -> tuple[Group, ...]:
        """Return the groups whose channels the space may take from a layer: those of its first granularity that can."""
        options = self.options(layer)
        for key in options.granularities if options is not None else ():
            if granularity(key).removed and (groups := self.groups(layer, key)):
                return groups
        return ()

    def staircase(self, layer: str, half_width: float, kept: Collection[int] | None = None) -> Staircase | None:
        """Return the time of a layer over its width; None where it has no channels that may go.

        Args:
            layer: Which.
            half_width: What a measurement cannot tell apart, relative.
            kept: Units that are left; None: the eighths of all and those just below, so that a step shows as two
                widths of unlike time.
        """
        groups = self.removable(layer)
        if not groups:
            return None
        key, units = groups[0].kind, sum(group.units for group in groups)
        eighths = [units * part // _STAIRS for part in range(_STAIRS, 0, -1)]
        usual = {width - less for width in eighths for less in (0, 1) if width > less}
        widths = sorted(usual if kept is None else set(kept), reverse=True)
        points = [(self._width(layer), Ratio(value=1.0, low=1.0, high=1.0))]
        for width in widths:
            if len(groups) <= width < units:  # one unit of each group stays
                tried = self._try(layer, key, _spread(groups, units - width))
                assert tried.channels is not None
                points.append((tried.channels, tried.ratio))
        return Staircase(layer=layer, measured=self.meter is not None, points=find_steps(points, half_width))

    def groups(self, layer: str, kind: str) -> tuple[Group, ...]:
        """Return the groups of a kind whose channels this layer loses: several where it feeds padded shortcuts."""
        found = self.runner.graph.groups.values()
        return tuple(group for group in found if layer in group.layers and group.kind == kind and group.units > 1)

    def free_units(self, layer: str) -> int:
        """Return how many units of any kind the groups of a layer have: what pins leave free."""
        return sum(group.units for group in self.runner.graph.groups.values() if layer in group.layers)

    def _try(self, layer: str | None, key: str, choices: Mapping[str, float]) -> Payoff:
        config = PruningConfig(
            model=ModelIdentity(fingerprint=self.runner.graph.fingerprint),
            layers={
                name: (LayerChoice(granularity=key, criterion=_CRITERION, sparsity=sparsity),)
                for name, sparsity in choices.items()
            },
        )
        pruned = pruned_model(self.runner.model, self.runner.graph, self.runner.book, config)
        removed, listed = granularity(key).removed, granularity(key).removed or self._listed(key)
        ratio, measured, converged = self._ratio(layer, pruned)
        if measured and not listed and ratio.high < 1:
            # Zeros that the runtime is not known to exploit: on a busy machine one measurement in many says so.
            ratio, measured, converged = max(
                (ratio, measured, converged), self._ratio(layer, pruned), key=lambda each: each[0].value
            )
        width = self._width(layer) if layer is not None and removed else None
        left = None
        if layer is not None and removed:
            found = self.runner.graph.layers[layer]
            left = pruned.model.get_parameter(found.weight).shape[found.out_dim]
        return Payoff(
            layer=layer,
            granularity=key,
            sparsity=1 - left / width if left is not None and width is not None else max(choices.values()),
            channels=left,
            of=width,
            ratio=ratio,
            measured=measured,
            converged=converged,
            listed=listed,
        )

    def _ratio(self, layer: str | None, pruned: PrunedModel) -> tuple[Ratio, bool, bool]:
        model = self.runner.model
        if self.meter is not None:
            if layer is None:
                paired = self.meter.measure(model, self.inputs, pruned.model, self.inputs)
            else:
                before, after = (record_inputs(each, self.inputs, [layer])[layer][0] for each in (model, pruned.model))
                paired = self.meter.measure(
                    model.get_submodule(layer), before, pruned.model.get_submodule(layer), after
                )
            if paired is not None:
                return Ratio(value=paired.ratio, low=paired.low, high=paired.high), True, paired.converged
        value = self._modelled(layer, pruned) / self._modelled(layer, PrunedModel(model, pruned.plan))
        return Ratio(value=value, low=value, high=value), False, True

    def _modelled(self, layer: str | None, pruned: PrunedModel) -> float:
        dense = pruned.model is self.runner.model
        masks = {} if dense else pruned.plan.masks
        patterns = {name: (pruned.plan.patterns[name], float(mask.float().mean())) for name, mask in masks.items()}
        workload = workload_of(pruned.model, self.inputs.args, self.inputs.kwargs, patterns)
        traffic = traffic_of(workload, self.runner.profile, self.runner.spec.latency.runtime)
        times = predict_latency(workload, traffic, self.runner.profile).ops
        return sum(
            time.seconds for op, time in zip(workload.ops, times, strict=True) if layer is None or op.module == layer
        )

    def _width(self, layer: str) -> int:
        found = self.runner.graph.layers[layer]
        return found.shape[found.out_dim]

    def _step(self) -> int:
        steps = self.runner.profile.compute.channel_step.values()
        return max((step.c_out for step in steps), default=8)

    def _listed(self, key: str) -> bool:
        runtime = self.runner.spec.latency.runtime
        support = self.runner.profile.sparse_support
        return any(entry.pattern == key and (self.meter is None or entry.runtime == runtime) for entry in support)


def find_steps(points: Iterable[tuple[int, Ratio]], half_width: float) -> tuple[StairPoint, ...]:
    """Mark the widths that are worth taking: no wider one is as quick.

    Args:
        points: Width and time relative to dense, by falling width.
        half_width: What a measurement cannot tell apart, relative: 0.02 is 2 %.
    """
    found: list[StairPoint] = []
    quickest = float("inf")
    for channels, ratio in points:
        found.append(StairPoint(channels=channels, ratio=ratio, on_step=ratio.value < quickest * (1 - 2 * half_width)))
        quickest = min(quickest, ratio.value)
    return tuple(found)


def _counts(units: int, step: int) -> list[int]:
    """Units to remove: a quarter, a half and three quarters, half rounded to the step, and half just off it."""
    kept = {units - removed_count(units, share) for share in _SHARES}
    rounded = -(-(units - removed_count(units, 0.5)) // step) * step
    kept |= {rounded, rounded + 1}
    return sorted({units - each for each in kept if 0 < each < units})


def _spread(groups: Sequence[Group], count: int) -> dict[str, float]:
    """Take ``count`` units from the groups, the first ones first, one unit of each at least left."""
    shares: dict[str, float] = {}
    for group in groups:
        taken = min(count, group.units - 1)
        count -= taken
        if taken:
            shares[group.name] = taken / group.units
    return shares


def _sparsities(key: str, options: LayerSpace) -> list[float]:
    """Half of the weights, and as many as the space allows; an N:M pattern says it itself."""
    if is_n_of_m(key):
        keep, of = n_of_m(key)
        return [1 - keep / of]
    allowed = [value for value in options.sparsities if value]
    return sorted({min(allowed, key=lambda value: abs(value - 0.5)), max(allowed)}) if allowed else []
