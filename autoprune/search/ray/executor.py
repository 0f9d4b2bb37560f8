"""The executor of a Ray cluster: workers score networks, meters of the targets measure them, this keeps order."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from autoprune.errors import ClusterError, RunError
from autoprune.search.errands import Errand, Performed, T
from autoprune.search.executors import ExecutorRequest, Job
from autoprune.search.ray import cluster
from autoprune.search.ray.actors import Answer, Measured, Place, Report, Setup, Worker
from autoprune.search.ray.flights import Flight, Outing, taken_from
from autoprune.search.ray.landing import Landing
from autoprune.search.ray.seats import Seat, why_lost
from autoprune.search.ray.targets import OWN, TICK_S, Target, Targets
from autoprune.spec.executor import RaySpec, ray_options
from autoprune.spec.record import TrialRecord

MOST_WITHOUT_WORKERS_S = 300.0
"""Seconds without any worker after which a search ends."""

_log = logging.getLogger("autoprune")


class RayExecutor:
    """Trials on a Ray cluster.

    A worker is free again as soon as its network is scored; the network then waits in the object store for the meters,
    each of which measures one at a time in the order asked. What is lost with a process or a node is begun again, at
    most ``retries`` times; a trial that is lost more often, or passes its time, is a failed one. A further target that
    is lost for good is left out, and the records say so. With one worker, a trial is proposed when the one before it is
    settled, as on one machine.

    Args:
        request: The study.

    Raises:
        UsageError: Ray is missing, or the cluster, or what trials need of it.
    """

    def __init__(self, request: ExecutorRequest) -> None:
        self._runner = request.runner
        self._options: RaySpec = ray_options(request.runner.spec.executor)
        self._ray = cluster.import_ray()
        self._joined = cluster.join(self._options)
        self._waiting: deque[Flight | Outing] = deque()
        self._workers: list[Seat] = []
        self._targets: dict[str, Target] = {}
        self._landing = Landing(self._runner, self._targets)
        self._worked = time.monotonic()
        try:
            self._open(request)
        except BaseException:
            self.close()
            raise

    @property
    def capacity(self) -> int:
        """Jobs in flight: one a worker, and as many again as wait for a meter, so that no worker waits for it."""
        count = len(self._workers)
        return count if count == 1 else count + min(self._measuring, count)

    @property
    def has_meter(self) -> bool:
        """Whether the study's own device is measured."""
        return OWN in self._targets

    @property
    def ended(self) -> int:
        """Jobs that are done as well: they came while the driver proposed."""
        return len(self._landing.done)

    def submit(self, job: Job) -> None:
        """Take a job."""
        self._waiting.append(Flight(job))

    def wait(self) -> tuple[Job, TrialRecord]:
        """Return the next job that is done, with its record."""
        while not self._landing.done:
            self._step()
        return self._landing.done.popleft()

    def perform(self, errands: Sequence[Errand[T]]) -> Iterator[Performed[T]]:
        """Do errands: on the meter of the study's device what measures, on workers the rest."""
        outings = [Outing(errand) for errand in errands]
        for outing in outings:
            on_meter = outing.errand.on_device and self.has_meter
            (self._targets[OWN].queue if on_meter else self._waiting).append(outing)
        try:
            while outings:
                ended = [outing for outing in outings if outing.report is not None]
                for outing in ended:
                    outings.remove(outing)
                    assert outing.report is not None
                    yield Performed(outing.errand, outing.report.result, outing.report.error)
                if not ended:
                    self._step()
        finally:
            for outing in outings:
                outing.void = True

    def close(self) -> None:
        """Stop all actors, and leave the cluster if this joined it."""
        for seat in self._seats:
            if seat.actor is not None:
                self._ray.kill(seat.actor, no_restart=True)
        self._workers = []
        self._targets.clear()
        if self._joined:
            self._ray.shutdown()

    @property
    def _seats(self) -> list[Seat]:
        return [*self._workers, *(target.seat for target in self._targets.values())]

    @property
    def _measuring(self) -> int:
        """Trials that wait for a meter, or are measured."""
        queued = {each for target in self._targets.values() for each in (*target.queue, target.seat.flight)}
        return sum(isinstance(each, Flight) for each in queued)

    def _open(self, request: ExecutorRequest) -> None:
        options = self._options
        wanted = cluster.wanted_by_trial(options)
        found = cluster.check_offers(options, wanted)
        cluster.check_versions(found)
        setup = self._ray.put(
            Setup(
                spec=self._runner.spec.model_copy(update={"storage": None}),
                groundwork=self._runner.groundwork,
                directory=str(request.directory.resolve()),
                working_dir="." if self._sends_folder() else os.getcwd(),
                versions=cluster.versions_here(),
            )
        )
        targets = Targets(self._runner, options, setup, found)
        self._targets.update(targets.by_device)
        fits = sum(node.fits(wanted) for node in targets.free)
        if not fits:
            raise ClusterError(
                "meters hold the only cores of the cluster for themselves, and no trial fits beside them; add a node"
            )
        targets.start()
        self._workers = [self._worker_seat(setup, targets.kept_free) for _ in range(min(options.workers or fits, fits))]
        for seat in self._workers:
            seat.fill()
        self._worked = time.monotonic()

    def _sends_folder(self) -> bool:
        """Whether workers have a working directory of their own: the study's, or that of the job that this runs in."""
        env = self._ray.get_runtime_context().runtime_env
        return bool(self._options.runtime_env.working_dir or env.get("working_dir"))

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

    def _step(self) -> None:
        """Give out what can be given, take what comes within a second, and look after what gives no sign."""
        self._give_out()
        pending = {seat.pending: seat for seat in self._seats if seat.pending is not None}
        ready, late = self._ray.wait(list(pending), num_returns=1, timeout=TICK_S) if pending else ([], [])
        if ready and late:  # what else has ended meanwhile
            ready += self._ray.wait(late, num_returns=len(late), timeout=0)[0]
        for ref in ready:
            self._take(pending[ref])
        self._look()

    def _give_out(self) -> None:
        for seat in self._workers:
            if seat.idle and (thing := taken_from(self._waiting)) is not None:
                thing.attempts += 1
                if isinstance(thing, Outing):
                    seat.give(thing, seat.actor.perform.remote(thing.errand))
                else:
                    thing.place = seat.place
                    answer, thing.network = seat.actor.score.options(num_returns=2).remote(thing.job)
                    seat.give(thing, answer)
        for device, target in self._targets.items():
            seat = target.seat
            if seat.idle and (thing := taken_from(target.queue)) is not None:
                if isinstance(thing, Outing):
                    thing.attempts += 1
                    seat.give(thing, seat.actor.perform.remote(thing.errand))
                else:
                    seat.give(thing, seat.actor.measure.remote(thing.network, thing.dense_ms(device)))

    def _take(self, seat: Seat) -> None:
        target = next((each for each in self._targets.values() if each.seat is seat), None)
        if seat.place is None:
            if target is None:
                seat.started()
            else:
                target.started_again()
            if seat.place is not None:
                self._warn()
            return
        try:
            answer = self._ray.get(seat.pending)
        except self._ray.exceptions.RayTaskError as error:  # the task's result could not be made or sent
            self._unreadable(seat.free(), f"{seat.where} gave no result: {error}")
        except self._ray.exceptions.ObjectLostError as error:  # the network went with the node that made it
            self._again(seat.free(), None, f"its network was lost ({why_lost(error)})")
        except self._ray.exceptions.RayError as error:
            event = f"{seat.where} was lost ({why_lost(error)})"
            self._again(seat.empty(), target, event)
            seat.fill()
        else:
            self._answered(seat.free(), target, answer)

    def _answered(self, thing: Flight | Outing, target: Target | None, answer: Any) -> None:
        if thing.void:
            return
        if isinstance(thing, Outing):
            thing.report = answer
        elif isinstance(answer, Answer):
            self._landing.scored(thing, answer)
        elif isinstance(answer, Measured) and target is not None:
            self._landing.measured(thing, target.device, answer)

    def _unreadable(self, thing: Flight | Outing, error: str) -> None:
        if isinstance(thing, Outing):
            thing.report = Report(None, RunError(error))
        elif not thing.void:
            self._landing.fail(thing, error)

    def _again(self, thing: Flight | Outing | None, target: Target | None, event: str) -> None:
        """Begin again what was lost with an actor, or give it up.

        With a meter only the measurement is lost, and the network is measured again.
        """
        if thing is None or thing.void:
            return
        thing.events.append(event)
        what = f"trial {thing.job.number}" if isinstance(thing, Flight) else "before the first trial or after the last"
        _log.warning("%s: %s", what, event)
        if thing.attempts <= self._options.retries:
            if isinstance(thing, Flight) and target is None:
                thing = thing.anew()
            elif isinstance(thing, Flight):
                thing.attempts += 1
            (self._waiting if target is None else target.queue).appendleft(thing)
        else:
            self._give_up(thing, target, f"lost {thing.attempts} times: {'; '.join(thing.events)}")

    def _give_up(self, thing: Flight | Outing, target: Target | None, why: str) -> None:
        if isinstance(thing, Outing):
            thing.report = Report(None, RunError(f"{why}; see 'ray status', then run the same command again"))
        elif target is None or target.device == OWN:
            self._landing.fail(thing, why)
        else:
            self._landing.unmeasured(thing, target.device, why)

    def _look(self) -> None:
        """Look at what gives no sign: a trial that passes its time, a target or workers that stay away."""
        now = time.monotonic()
        for seat in self._workers:
            self._stop_overdue(seat, None, now)
        for target in self._targets.values():
            self._stop_overdue(target.seat, target, now)
            if not target.gone and target.is_away(now, self._options.wait_s):
                if target.device == OWN:
                    raise RunError(
                        f"the meter of target {target.title} was lost and did not come back within "
                        f"{now - target.seat.since:.0f} s; bring its node back, then run the same command again"
                    )
                _log.warning("target %s is lost; the search goes on without it", target.title)
                target.gone = True
            while target.gone and (thing := taken_from(target.queue)) is not None:
                self._give_up(thing, target, f"target {target.title} is lost")
        if any(seat.place is not None for seat in self._workers):
            self._worked = now
        elif now - self._worked > max(self._options.wait_s, MOST_WITHOUT_WORKERS_S):
            raise RunError(
                f"no worker could be started for {now - self._worked:.0f} s; check 'ray status', then run the same "
                "command again"
            )

    def _stop_overdue(self, seat: Seat, target: Target | None, now: float) -> None:
        """Stop an actor whose work passes the time of a trial; what a survey takes, its own budget says."""
        limit, thing = self._options.timeout_s, seat.flight
        surveys = target is not None and isinstance(thing, Outing)
        if thing is None or limit is None or surveys or now - seat.since <= limit:
            return
        where = seat.where
        seat.empty()
        if not thing.void:
            thing.events.append(f"{where} was stopped after {self._options.timeout}")
            what = "the trial" if isinstance(thing, Flight) else "it"
            told = f"{what} did not end within {self._options.timeout} (executor.ray.timeout)"
            self._give_up(thing, target, told)
        seat.fill()

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
