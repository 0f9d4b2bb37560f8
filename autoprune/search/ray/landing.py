"""How trials end: what a worker and the meters said becomes a record."""

from __future__ import annotations

from collections import deque

from autoprune.errors import RunError
from autoprune.search.executors import Job
from autoprune.search.local import failed
from autoprune.search.ray.actors import Answer, Measured
from autoprune.search.ray.flights import Flight
from autoprune.search.ray.targets import OWN, Target
from autoprune.spec.findings import WorkerRecord
from autoprune.spec.record import TrialRecord
from autoprune.trial.runner import TrialRunner


class Landing:
    """Takes what is said of flights, and keeps their records.

    Args:
        runner: What trials of the study share.
        targets: What measures them, by device.

    Attributes:
        done: Jobs with their records, in the order in which they ended.
    """

    def __init__(self, runner: TrialRunner, targets: dict[str, Target]) -> None:
        self._runner, self._targets = runner, targets
        self.done: deque[tuple[Job, TrialRecord]] = deque()

    def scored(self, flight: Flight, answer: Answer) -> None:
        """Take what a worker says: the trial is over, or its network waits for the meters.

        Raises:
            AutopruneError: The dense model cannot be scored.
        """
        if answer.scored is None:
            if flight.job.dense is None and answer.failure is not None:
                raise answer.failure
            self.fail(flight, answer.error or "")
            return
        flight.answer = answer
        if not answer.measurable:
            self._finish(flight, answer.scored.record)
            return
        flight.awaits = set(self._targets)
        for device, target in self._targets.items():
            if target.gone:
                self.unmeasured(flight, device, f"target {target.title} is lost")
            else:
                target.queue.append(flight)
        self._finish_if_measured(flight)

    def measured(self, flight: Flight, device: str, measured: Measured) -> None:
        """Take what a meter says.

        Raises:
            RunError: The dense model cannot be measured.
        """
        if measured.latency is not None:
            flight.awaits.discard(device)
            flight.measured[device] = measured
            self._finish_if_measured(flight)
            return
        cause = (measured.error or "").strip().splitlines()[-1]
        if flight.job.dense is None:
            where = f"target {self._targets[device].title}"
            raise RunError(f"the dense model cannot be measured on {where} ({cause}); mend the cause")
        if device == OWN:
            self.fail(flight, measured.error or "")
        else:
            self.unmeasured(flight, device, cause)

    def unmeasured(self, flight: Flight, device: str, why: str) -> None:
        """Go on without a further device."""
        flight.events.append(f"not measured on {device}: {why}")
        flight.awaits.discard(device)
        self._finish_if_measured(flight)

    def fail(self, flight: Flight, error: str) -> None:
        """End a trial as a failed one.

        Raises:
            RunError: It is the dense model.
        """
        if flight.job.dense is None:
            raise RunError(f"the dense model could not be run ({error.strip().splitlines()[-1]}); mend the cause")
        self._finish(flight, failed(flight.job, error))

    def _finish_if_measured(self, flight: Flight) -> None:
        if flight.awaits or flight.void:
            return
        answer = flight.answer
        assert answer is not None
        assert answer.scored is not None
        found = {device: each.latency for device, each in flight.measured.items() if each.latency is not None}
        latency = found.pop(OWN, answer.latency)
        assert latency is not None
        seconds = max((each.seconds for each in flight.measured.values()), default=0.0)
        self._finish(flight, self._runner.record(answer.scored, latency, flight.job.dense, seconds, found))

    def _finish(self, flight: Flight, record: TrialRecord) -> None:
        flight.void = True
        place, answer = flight.place, flight.answer
        if place is not None:
            worker = WorkerRecord(
                host=place.host,
                pid=place.pid,
                threads=place.threads,
                attempts=max(flight.attempts, 1),
                events=tuple(flight.events),
                samples_per_s=answer.samples_per_s if answer else None,
            )
            record = record.model_copy(update={"worker": worker})
        if record.devices is not None:  # where a device is measured, no model stands among its measurements
            kept = {name: each for name, each in record.devices.items() if each.measured or name not in self._targets}
            record = record.model_copy(update={"devices": kept or None})
        self.done.append((flight.job, record))
