"""The executor of a Ray cluster: workers score networks, the meter of the target measures them, this keeps order."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

from autoprune.cost.meters.choice import meter_for
from autoprune.errors import ClusterError, RunError
from autoprune.search.executors import ExecutorRequest, Job
from autoprune.search.local import failed
from autoprune.search.ray import cluster
from autoprune.search.ray.actors import Answer, Measured, MeterActor, Place, Setup, Worker
from autoprune.search.ray.seats import Seat, why_lost
from autoprune.spec.executor import TARGET, RaySpec, ray_options
from autoprune.spec.findings import WorkerRecord
from autoprune.spec.record import LatencyRecord, TrialRecord

TICK_S = 1.0
"""Seconds between two looks at timeouts and at nodes."""

MOST_FOR_METER_S = 120.0
"""Seconds for the meter to start: a small board takes most of a minute to import torch."""

MOST_WITHOUT_WORKERS_S = 300.0
"""Seconds without any worker after which a search ends."""

_log = logging.getLogger("autoprune")


@dataclass
class _Flight:
    """A job on its way through workers and meter."""

    job: Job
    attempts: int = 0
    events: list[str] = field(default_factory=list)
    place: Place | None = None
    answer: Answer | None = None
    network: Any = None


class RayExecutor:
    """Trials on a Ray cluster.

    A worker is free again as soon as its network is scored; the network then waits in the object store for the meter,
    which measures one at a time in the order asked. What is lost with a process or a node is started again, at most
    ``retries`` times; a trial that is lost more often, or passes its time, is a failed one. With one worker, a trial
    is proposed when the one before it is settled, as on one machine.

    Args:
        request: The study.

    Raises:
        UsageError: Ray is missing, or the cluster, or what trials need of it.
    """

    def __init__(self, request: ExecutorRequest) -> None:
        self._runner = request.runner
        spec = request.runner.spec
        self._options: RaySpec = ray_options(spec.executor)
        self._ray = cluster.import_ray()
        self._joined = cluster.join(self._options)
        self._waiting: deque[_Flight] = deque()
        self._to_measure: deque[_Flight] = deque()
        self._done: deque[tuple[Job, TrialRecord]] = deque()
        self._workers: list[Seat] = []
        self._meter: Seat | None = None
        self._worked = time.monotonic()
        try:
            self._open(request)
        except BaseException:
            self.close()
            raise

    @property
    def capacity(self) -> int:
        """Jobs in flight: one a worker, and as many again as wait for the meter, so that no worker waits for it."""
        count = len(self._workers)
        measuring = len(self._to_measure) + (self._meter is not None and self._meter.flight is not None)
        return count if count == 1 else count + min(measuring, count)

    def submit(self, job: Job) -> None:
        """Take a job."""
        self._waiting.append(_Flight(job))

    def wait(self) -> tuple[Job, TrialRecord]:
        """Return the next job that is done, with its record."""
        while not self._done:
            self._give_out()
            pending = {seat.pending: seat for seat in self._seats if seat.pending is not None}
            ready, _ = self._ray.wait(list(pending), num_returns=1, timeout=TICK_S) if pending else ([], [])
            for ref in ready:
                self._take(pending[ref])
            self._look()
        return self._done.popleft()

    def close(self) -> None:
        """Stop all actors, and leave the cluster if this joined it."""
        for seat in self._seats:
            if seat.actor is not None:
                self._ray.kill(seat.actor, no_restart=True)
        self._workers, self._meter = [], None
        if self._joined:
            self._ray.shutdown()

    @property
    def _seats(self) -> list[Seat]:
        return [*self._workers, *([self._meter] if self._meter else [])]

    def _open(self, request: ExecutorRequest) -> None:
        options, spec = self._options, self._runner.spec
        wanted = cluster.wanted_by_trial(options)
        found = cluster.check_offers(options, wanted)
        cluster.check_versions(found)
        setup = self._ray.put(
            Setup(
                spec=spec.model_copy(update={"storage": None}),
                groundwork=self._runner.groundwork,
                directory=str(request.directory.resolve()),
                working_dir="." if options.runtime_env.working_dir else os.getcwd(),
                versions=cluster.versions_here(),
            )
        )
        kept_free: dict[str, tuple[int, ...]] = {}
        free = found
        if options.target is not None or meter_for(spec.latency, self._runner.profile) is not None:
            node, cpus = self._place_of_meter(found, wanted)
            self._meter = self._meter_seat(setup, node, cpus)
            place = self._start_meter(self._meter)
            kept_free[place.node] = place.cores
            free = [_less(n, "CPU", cpus) if n.id == node.id else n for n in found]
        fits = sum(node.fits(wanted) for node in free)
        if not fits:
            raise ClusterError(
                "the meter holds the only cores of the cluster for itself, and no trial fits beside it; add a node"
            )
        self._workers = [self._worker_seat(setup, kept_free) for _ in range(min(options.workers or fits, fits))]
        for seat in self._workers:
            seat.fill()
        self._worked = time.monotonic()

    def _place_of_meter(self, found: list[cluster.Node], wanted: dict[str, float]) -> tuple[cluster.Node, float]:
        """Return the node of the meter, and the cores that it takes there: all of a target that has none to give."""
        threads = float(self._runner.spec.latency.threads)
        if self._options.target is None:
            here = self._ray.get_runtime_context().get_node_id()
            node = next((node for node in found if node.id == here), found[0])
        else:
            node = next(node for node in found if TARGET + self._options.target in node.resources)
        offered = node.resources.get("CPU", 0.0)
        others = any(other.fits(wanted) for other in found if other.id != node.id)
        takes_all = self._options.target is not None and others
        return node, offered if takes_all else min(threads, offered)

    def _start_meter(self, meter: Seat) -> Place:
        meter.fill()
        deadline = time.monotonic() + max(self._options.wait_s, MOST_FOR_METER_S)
        while meter.place is None:
            if self._ray.wait([meter.pending], timeout=TICK_S)[0]:
                meter.started()
            elif time.monotonic() > deadline:
                raise ClusterError(
                    f"the meter of target {self._options.target or 'this machine'} did not start: something else holds "
                    "what its node offers ('ray status' shows what); free it"
                )
        return meter.place

    def _meter_seat(self, setup: Any, node: cluster.Node, cpus: float) -> Seat:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        if self._options.target is not None:
            where: dict[str, Any] = {"resources": {TARGET + self._options.target: 1e-3}}
        else:
            where = {"scheduling_strategy": NodeAffinitySchedulingStrategy(node.id, soft=False)}
        actor = self._ray.remote(MeterActor).options(num_cpus=cpus, max_restarts=0, **where)
        return Seat(lambda: actor.remote(setup, pinned=True), "meter")

    def _worker_seat(self, setup: Any, kept_free: dict[str, tuple[int, ...]]) -> Seat:
        options = self._options
        actor = self._ray.remote(Worker).options(
            num_cpus=options.cpus,
            num_gpus=options.gpus,
            resources=options.resources,
            memory=options.memory_bytes,
            max_restarts=0,
            scheduling_strategy="SPREAD",
        )
        return Seat(lambda: actor.remote(setup, options.threads, options.memory_bytes, kept_free), "worker")

    def _give_out(self) -> None:
        for seat in self._workers:
            if seat.idle and self._waiting:
                flight = self._waiting.popleft()
                flight.attempts += 1
                flight.place = seat.place
                answer, flight.network = seat.actor.score.options(num_returns=2).remote(flight.job)
                seat.give(flight, answer)
        meter = self._meter
        if meter is not None and meter.idle and self._to_measure:
            flight = self._to_measure.popleft()
            meter.give(flight, meter.actor.measure.remote(flight.network, flight.job.dense))

    def _take(self, seat: Seat) -> None:
        if seat.place is None:
            seat.started()
            if seat.place is not None:
                self._warn()
            return
        try:
            answer = self._ray.get(seat.pending)
        except self._ray.exceptions.RayTaskError as error:  # the task's result could not be made or sent
            flight = seat.free()
            self._fail(flight, f"{seat.where} gave no result: {error}")
            return
        except self._ray.exceptions.RayError as error:
            event = f"{seat.where} was lost ({why_lost(error)})"
            self._again(seat.empty(), event)
            seat.fill()
            return
        flight = seat.free()
        if isinstance(answer, Measured):
            self._measured(flight, answer)
        else:
            self._scored(flight, answer)

    def _scored(self, flight: _Flight, answer: Answer) -> None:
        if answer.scored is None:
            if flight.job.dense is None and answer.failure is not None:
                raise answer.failure
            self._fail(flight, answer.error or "")
            return
        flight.answer = answer
        if not answer.measurable:
            self._finish(flight, answer.scored.record)
        elif self._meter is not None:
            self._to_measure.append(flight)
        else:
            assert answer.latency is not None
            self._finish_measured(flight, answer.latency, 0.0)

    def _measured(self, flight: _Flight, measured: Measured) -> None:
        if measured.latency is None:
            if flight.job.dense is None:
                cause = (measured.error or "").strip().splitlines()[-1]
                raise RunError(f"the dense model cannot be measured on the target ({cause}); mend the cause")
            self._fail(flight, measured.error or "")
            return
        self._finish_measured(flight, measured.latency, measured.seconds)

    def _finish_measured(self, flight: _Flight, latency: LatencyRecord, seconds: float) -> None:
        assert flight.answer is not None
        assert flight.answer.scored is not None
        self._finish(flight, self._runner.record(flight.answer.scored, latency, flight.job.dense, seconds))

    def _fail(self, flight: _Flight, error: str) -> None:
        if flight.job.dense is None:
            raise RunError(f"the dense model could not be run ({error.strip().splitlines()[-1]}); mend the cause")
        self._finish(flight, failed(flight.job, error))

    def _finish(self, flight: _Flight, record: TrialRecord) -> None:
        place = flight.place
        if place is not None:
            worker = WorkerRecord(
                host=place.host,
                pid=place.pid,
                threads=place.threads,
                attempts=max(flight.attempts, 1),
                events=tuple(flight.events),
                samples_per_s=flight.answer.samples_per_s if flight.answer else None,
            )
            record = record.model_copy(update={"worker": worker})
        self._done.append((flight.job, record))

    def _again(self, flight: _Flight | None, event: str) -> None:
        """Start a job again after what it ran on was lost, or give it up."""
        if flight is None:
            return
        flight.events.append(event)
        _log.warning("trial %d: %s", flight.job.number, event)
        if flight.attempts > self._options.retries:
            self._fail(flight, f"lost {flight.attempts} times: {'; '.join(flight.events)}")
        else:
            self._waiting.appendleft(replace(flight, answer=None, network=None))

    def _look(self) -> None:
        """Look at what gives no sign: a trial that passes its time, a target or workers that stay away."""
        now = time.monotonic()
        limit = self._options.timeout_s
        for seat in self._seats:
            if seat.flight is not None and limit is not None and now - seat.since > limit:
                where, flight = seat.where, seat.empty()
                flight.events.append(f"{where} was stopped after {self._options.timeout}")
                self._fail(flight, f"the trial did not end within {self._options.timeout} (executor.ray.timeout)")
                seat.fill()
        meter = self._meter
        if meter is not None and meter.place is None and now - meter.since > max(self._options.wait_s, 60):
            raise RunError(
                f"the meter of target {self._options.target or 'this machine'} was lost and did not come back within "
                f"{now - meter.since:.0f} s; bring its node back, then run the same command again"
            )
        if any(seat.place is not None for seat in self._workers):
            self._worked = now
        elif now - self._worked > max(self._options.wait_s, MOST_WITHOUT_WORKERS_S):
            raise RunError(
                f"no worker could be started for {now - self._worked:.0f} s; check 'ray status', then run the same "
                "command again"
            )

    def _warn(self) -> None:
        """Say so where the workers of a node have more threads than it has cores."""
        by_host: dict[str, list[Place]] = {}
        for seat in self._seats:
            if seat.place is not None:
                by_host.setdefault(seat.place.host, []).append(seat.place)
        for host, places in by_host.items():
            threads = sum(place.threads for place in places)
            cores = len({core for place in places for core in place.cores})
            if threads > cores:
                _log.warning(
                    "%d actors with %d threads share %d cores of %s: spinning threads stop one another; start Ray "
                    "there with --num-cpus=%d",
                    len(places),
                    threads,
                    cores,
                    host,
                    cores,
                )


def _less(node: cluster.Node, name: str, amount: float) -> cluster.Node:
    return replace(node, resources={**node.resources, name: node.resources.get(name, 0.0) - amount})
