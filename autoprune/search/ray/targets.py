"""Targets: the devices that a study measures on a cluster, each with its meter and the networks that wait for it."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autoprune.cost.meters.choice import meter_for
from autoprune.errors import AutopruneError, ClusterError
from autoprune.search.ray import cluster
from autoprune.search.ray.actors import MeterActor, Place
from autoprune.search.ray.flights import Flight, Outing
from autoprune.search.ray.seats import Seat
from autoprune.spec.executor import TARGET, RaySpec
from autoprune.trial.runner import TrialRunner

OWN = ""
"""The study's own device, among the further ones by name."""

TICK_S = 1.0
"""Seconds between two looks at what gives no sign."""

MOST_TO_START_S = 120.0
"""Seconds for a meter to start: a small board takes most of a minute to import torch."""

MOST_AWAY_S = 60.0
"""Seconds after which a meter that was lost counts as gone."""

_log = logging.getLogger("autoprune")


@dataclass(eq=False)
class Target:
    """A device with its meter.

    Attributes:
        device: Further device of the study; :data:`OWN` for the study's own.
        name: Of the target in the cluster; None for the machine of the search.
        seat: The place of the meter.
        node: On which node it is expected.
        cpus: Cores that it takes there.
        gpus: GPUs that it takes there.
        queue: What waits for it.
        gone: Whether it stays away: nothing waits for it any more.
    """

    device: str
    name: str | None
    seat: Seat
    node: str
    cpus: float
    gpus: float
    queue: deque[Flight | Outing] = field(default_factory=deque)
    gone: bool = False

    @property
    def title(self) -> str:
        """In words."""
        return self.name or "this machine"

    def start(self, wait_s: float) -> Place:
        """Start the meter.

        Raises:
            AutopruneError: It cannot work there, or does not start.
        """
        ray = cluster.import_ray()
        self.seat.fill()
        deadline = time.monotonic() + max(wait_s, MOST_TO_START_S)
        while self.seat.place is None:
            if ray.wait([self.seat.pending], timeout=TICK_S)[0]:
                self.seat.started()
            elif time.monotonic() > deadline:
                raise ClusterError(
                    f"the meter of target {self.title} did not start: something else holds what its node offers "
                    "('ray status' shows what); free it"
                )
        return self.seat.place

    def is_away(self, now: float, wait_s: float) -> bool:
        """Whether the meter was lost and does not come back."""
        return self.seat.place is None and now - self.seat.since > max(wait_s, MOST_AWAY_S)

    def started_again(self) -> None:
        """Take in what a meter says that was started anew.

        Raises:
            AutopruneError: The study's own device cannot be measured any more.
        """
        try:
            self.seat.started()
        except AutopruneError as error:
            if self.device == OWN:
                raise
            _log.warning("target %s is lost: %s", self.title, error)
            self.seat.empty()
            self.gone = True
        else:
            self.gone = self.gone and self.seat.place is None


class Targets:
    """All targets of a study.

    Args:
        runner: What trials of the study share.
        options: How it runs on the cluster.
        setup: What actors are started with, in the object store.
        found: Nodes of the cluster.

    Attributes:
        by_device: Device to its target; the study's own is missing where it is modelled.
        free: The nodes with what meters leave of them.
        kept_free: Node to cores that meters hold there for themselves.

    Raises:
        AutopruneError: A meter cannot work, or does not start.
    """

    def __init__(self, runner: TrialRunner, options: RaySpec, setup: Any, found: Sequence[cluster.Node]) -> None:
        self._runner, self._options, self._setup = runner, options, setup
        self.free = list(found)
        self.kept_free: dict[str, tuple[int, ...]] = {}
        self._held: dict[str, tuple[str, tuple[int, ...]]] = {}
        self.by_device: dict[str, Target] = {}
        wanted: dict[str, str | None] = {}
        if options.target is not None or meter_for(runner.spec.latency, runner.profile) is not None:
            wanted[OWN] = options.target
        wanted |= {device: each.target for device, each in options.further.items()}
        places = {device: self._node_of(name) for device, name in wanted.items()}
        for device, name in wanted.items():
            self.by_device[device] = self._placed(device, name, places)

    def start(self) -> None:
        """Start the meters, one after the other: each takes cores that no other holds."""
        for target in self.by_device.values():
            place = target.start(self._options.wait_s)
            self.kept_free[place.node] = (*self.kept_free.get(place.node, ()), *place.cores)
            self._held[target.device] = (place.host, place.cores)

    def _node_of(self, name: str | None) -> cluster.Node:
        if name is not None:
            return next(node for node in self.free if TARGET + name in node.resources)
        here = cluster.import_ray().get_runtime_context().get_node_id()
        return next((node for node in self.free if node.id == here), self.free[0])

    def _placed(self, device: str, name: str | None, places: Mapping[str, cluster.Node]) -> Target:
        """Return a target with what its meter takes: all cores of a node that has no other use, and its GPU."""
        latency, node = self._runner.spec.latency, places[device]
        profile = self._runner.profile if device == OWN else self._runner.devices[device]
        own = None if device == OWN else self._options.further[device].threads
        offered = node.resources.get("CPU", 0.0)
        held = {place.id for place in places.values()}
        trial = cluster.wanted_by_trial(self._options)
        elsewhere = any(other.fits(trial) for other in self.free if other.id not in held)
        alone = name is not None and elsewhere and sum(place.id == node.id for place in places.values()) == 1
        cpus = offered if alone else min(float(own or latency.threads), offered)
        gpus = self._gpus(node, held, trial) if profile.gpu is not None else 0.0
        self.free = [n.less(CPU=cpus, GPU=gpus) if n.id == node.id else n for n in self.free]
        seat = Seat(lambda: self._spawn(device, name, node, cpus, gpus), "meter")
        return Target(device, name, seat, node.id, cpus, gpus)

    def _gpus(self, node: cluster.Node, held: set[str], trial: Mapping[str, float]) -> float:
        """Return the GPUs that a meter of a GPU takes: one for itself, unless trials would then have none."""
        if node.resources.get("GPU", 0.0) < 1:
            return 0.0
        left = [n.less(GPU=1.0) if n.id == node.id else n for n in self.free]
        if any(each.fits(trial) for each in left):
            return 1.0
        _log.warning(
            "trials and the meter share the only GPU of node %s: latencies are measured under load; add a node for the "
            "trials",
            node.host,
        )
        return 0.0

    def _spawn(self, device: str, name: str | None, node: cluster.Node, cpus: float, gpus: float) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        if name is not None:
            where: dict[str, Any] = {"resources": {TARGET + name: 1e-3}}
        else:
            where = {"scheduling_strategy": NodeAffinitySchedulingStrategy(node.id, soft=False)}
        if not gpus and self._profile_gpu(device):  # an actor without a share of one would see no GPU
            where["runtime_env"] = {"env_vars": {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}}
        actor = cluster.import_ray().remote(MeterActor)
        return actor.options(num_cpus=cpus, num_gpus=gpus, max_restarts=0, **where).remote(
            self._setup, device or None, self._taken(device)
        )

    def _taken(self, device: str) -> dict[str, tuple[int, ...]]:
        """Return machine to the cores that the meters of other devices hold there."""
        taken: dict[str, tuple[int, ...]] = {}
        for other, (host, cores) in self._held.items():
            if other != device:
                taken[host] = (*taken.get(host, ()), *cores)
        return taken

    def _profile_gpu(self, device: str) -> bool:
        profile = self._runner.profile if device == OWN else self._runner.devices[device]
        return profile.gpu is not None
