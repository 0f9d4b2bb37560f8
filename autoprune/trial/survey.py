"""Measurements on the device before the first trial: what pays, on which widths steps lie, how long networks take."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from autoprune.cost.meters import rebatch
from autoprune.cost.meters.protocol import RUNTIMES
from autoprune.cost.workload import workload_of
from autoprune.errors import ExportError, TraceError
from autoprune.pruning.granularity import granularity
from autoprune.pruning.plan import make_plan
from autoprune.pruning.surgery import prune
from autoprune.spec.config import PruningConfig
from autoprune.spec.profile import DeviceSummary, Payoff, Staircase
from autoprune.spec.survey import LatencySample
from autoprune.trial.profile.alone import AloneMeter
from autoprune.trial.profile.bottlenecks import bottlenecks
from autoprune.trial.profile.costs import summarise_device
from autoprune.trial.profile.payoffs import Trials
from autoprune.trial.runner import TrialRunner
from autoprune.trial.shipped import timed_as

MOST_SAMPLES = 200
"""Random networks that a predictor learns from before the first trial."""

_LEAST_S, _MOST_S = 0.04, 0.25  # of one measurement
_PARTS = 100  # measurements that a budget is cut into
_Z = 1.96


class Surveyor:
    """Measures with the study's runtime, or asks the models where the device is not at hand.

    Args:
        runner: Model, graph, device, meter.
        budget_s: Wall time of all measurements together: it sets how long a single one takes.
        patience: How many times that a network may wait for a machine that is slow meanwhile.
    """

    def __init__(self, runner: TrialRunner, budget_s: float, patience: float = 1.0) -> None:
        self._runner = runner
        self._one_s = min(max(budget_s / _PARTS, _LEAST_S), _MOST_S)
        spec = runner.spec.latency
        self._inputs = rebatch(runner.task.args, runner.task.kwargs, spec.batch)
        # Many, soon: none waits for a slow machine as long as a trial would.
        self._spec = spec.model_copy(update={"budget_s": self._one_s, "wait_s": patience * self._one_s})
        meter = None if runner.meter is None else AloneMeter(spec, self._one_s)
        self._trials = Trials(runner, self._inputs, meter)

    def dense(self) -> DeviceSummary:
        """Return what the models say of the dense network, module by module."""
        runner, spec = self._runner, self._runner.spec
        workload = workload_of(runner.model, self._inputs.args, self._inputs.kwargs)
        return summarise_device(
            runner.model, workload, self.prunable, spec.device, runner.profile, spec.latency.runtime, None
        )

    @property
    def prunable(self) -> tuple[str, ...]:
        """Layers that the space speaks of."""
        return tuple(name for name in self._runner.graph.layers if self._trials.options(name) is not None)

    def slowest(self, dense: DeviceSummary) -> Sequence[str]:
        """Return the slowest prunable layers of unlike shapes, the slowest first."""
        return bottlenecks(self._trials, dense)

    def payoffs(self, slow: Sequence[str]) -> tuple[Payoff, ...]:
        """Try every pattern of the space that only sets weights to zero, on the whole network and the slowest layers.

        Raises:
            MeterError: The runtime gave no usable number.
        """
        found = self._trials.on_network(self.prunable, removing=False)
        tried = {payoff.granularity for payoff in found}
        if tried:
            found += [payoff for layer in slow[:2] for payoff in self._trials.on_layer(layer, removing=False)]
        return tuple(found)

    def staircases(self, slow: Sequence[str]) -> tuple[Staircase, ...]:
        """Return the time of the slowest layers over sixteen widths each.

        Raises:
            MeterError: The runtime gave no usable number.
        """
        found = []
        for layer in slow:
            units = sum(group.units for group in self._trials.removable(layer))
            step = max(1, units // 16)
            kept = range(units - units % step, 0, -step)
            stairs = self._trials.staircase(layer, self._runner.spec.latency.half_width, kept)
            if stairs is not None and len(stairs.points) > 1:
                found.append(stairs)
        return tuple(found)

    def samples(
        self,
        configs: Iterable[PruningConfig],
        until: float,
        least: int = 0,
        latest: float = 0.0,
        told: Callable[[int], None] = lambda _: None,
    ) -> tuple[LatencySample, ...]:
        """Measure networks against the dense one until the clock (``time.perf_counter``) says ``until``.

        None on a device that is modelled, and none where costs do not follow from counts. A network that cannot be
        made int8 is left out.

        Args:
            configs: What to measure, in order.
            until: When to stop.
            least: Networks that are worth more time: while there are fewer it goes on until ``latest``.
            latest: When to stop even so.
            told: How many there are, after each.

        Raises:
            MeterError: The runtime gave no usable number.
        """
        runner, found = self._runner, dict[tuple[object, ...], LatencySample]()
        if runner.meter is None or runner.costs.model is None:
            return ()
        meter = RUNTIMES.get(self._spec.runtime)(self._spec)
        for config in configs:
            if time.perf_counter() >= (latest if len(found) < least else until) or len(found) >= MOST_SAMPLES:
                break
            plan = make_plan(config, runner.graph, runner.book)
            kept = tuple(runner.costs.model.asked.plan(plan).kept[0].tolist())
            gone = tuple(sorted(plan.skipped))
            key = (config.precision, kept, gone)
            if key in found:
                continue
            try:
                network = timed_as(prune(runner.model, plan).eval(), config.precision, runner.data)
            except (ExportError, TraceError):
                continue
            paired = meter.measure_pair(runner.model, network, self._inputs)
            spread = (paired.high - paired.low) / 2 / _Z / paired.ratio
            found[key] = LatencySample(
                kept=kept, ratio=paired.ratio, spread=spread, precision=config.precision, gone=gone
            )
            told(len(found))
        return tuple(found.values())


def masks_only(granularities: Collection[str]) -> tuple[str, ...]:
    """Return the granularities that remove nothing but set weights to zero."""
    return tuple(key for key in granularities if not granularity(key).removed)


def best_payoffs(payoffs: Iterable[Payoff]) -> Mapping[str, Payoff]:
    """Return granularity to the try of it that gained most."""
    best: dict[str, Payoff] = {}
    for payoff in payoffs:
        known = best.get(payoff.granularity)
        if known is None or (payoff.pays, -payoff.ratio.value) > (known.pays, -known.ratio.value):
            best[payoff.granularity] = payoff
    return best
