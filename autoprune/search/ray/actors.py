"""What runs on the nodes: workers, which score networks, and meters, which measure them.

Both import the task once and live on between trials. They answer with values, failures too: an exception that leaves
an actor means that the actor is lost.
"""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoprune.cost.host import core_count, machine_title
from autoprune.cost.meters import rebatch
from autoprune.cost.meters.choice import meter_here
from autoprune.errors import AutopruneError, ClusterError, RunError, one_line
from autoprune.graph.session import OnnxModule
from autoprune.search.errands import Errand, attempt, portable
from autoprune.search.executors import Job
from autoprune.search.ray.cluster import check_same, versions_here
from autoprune.spec.executor import ray_options
from autoprune.spec.hardware import DeviceProfile
from autoprune.spec.record import LatencyRecord
from autoprune.spec.study import LatencySpec, StudySpec
from autoprune.trial.bench import Bench
from autoprune.trial.groundwork import Groundwork, PackedNetwork
from autoprune.trial.runner import Scored, TrialRunner
from autoprune.trial.task import Task, load_task


@dataclass(frozen=True)
class Setup:
    """What every actor of a study is started with; it is put into the object store once.

    Attributes:
        spec: The study, without its storage.
        groundwork: What the driver found out.
        directory: The run directory, for tasks that keep something in it; used where it exists.
        working_dir: Working directory of the driver, for tasks in files; used where it exists.
        versions: What the driver runs.
    """

    spec: StudySpec
    groundwork: Groundwork
    directory: str
    working_dir: str
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Place:
    """Where an actor is.

    Attributes:
        host: Name of the machine.
        pid: Process.
        node: Ray's name of the node.
        threads: CPU threads that it computes with.
        cores: CPU cores that it may use.
        title: Processor of the machine.
    """

    host: str
    pid: int
    node: str
    threads: int
    cores: tuple[int, ...]
    title: str


@dataclass(frozen=True)
class Answer:
    """What a worker says of a job.

    Attributes:
        scored: The trial up to where the device is needed, without its network; None where it failed.
        measurable: Whether there is a network to measure.
        latency: Latency by the device's model; None where nothing is to be measured.
        error: Traceback of a trial that failed.
        failure: What went wrong with the dense model.
        samples_per_s: Samples evaluated per second.
    """

    scored: Scored | None = None
    measurable: bool = False
    latency: LatencyRecord | None = None
    error: str | None = None
    failure: AutopruneError | None = None
    samples_per_s: float | None = None


@dataclass(frozen=True)
class Measured:
    """What a meter says of a network.

    Attributes:
        latency: The measurement; None where it failed.
        seconds: Wall time that it took.
        error: Traceback of a measurement that failed.
    """

    latency: LatencyRecord | None
    seconds: float
    error: str | None = None


@dataclass(frozen=True)
class Report:
    """What became of an errand.

    Attributes:
        result: What it gave.
        error: What it raised, in a form that any process can read; None where it gave a result.
    """

    result: Any
    error: Exception | None


class Worker:
    """Scores networks. One job at a time; the task is imported once and kept.

    Args:
        setup: The study.
        threads: CPU threads to compute with.
        memory: Bytes that a trial may allocate beside what the worker holds at its start; None: no limit.
        kept_free: Node to cores that its meter holds for itself.
    """

    def __init__(
        self, setup: Setup, threads: int, memory: int | None, kept_free: Mapping[str, tuple[int, ...]]
    ) -> None:
        self._setup, self._threads, self._memory, self._kept_free = setup, threads, memory, kept_free
        self._counter = _SampleCounter()

    def start(self) -> Place | AutopruneError:
        """Import the task, build what trials share, and say where this is."""
        node = _node()
        _leave_cores(self._kept_free.get(node, ()))
        torch.set_num_threads(self._threads)
        task = _load(self._setup)
        if isinstance(task, AutopruneError):
            return task
        counted = replace(task, evaluate=self._counter.counting(task.evaluate))
        try:
            self._runner = TrialRunner(counted, self._setup.spec, self._setup.groundwork, metered=False)
        except AutopruneError as error:
            return error
        torch.set_num_threads(self._threads)  # whatever the task's code has set
        _limit_memory(self._memory)
        return _place(node, self._threads)

    def score(self, job: Job) -> tuple[Answer, PackedNetwork | OnnxModule | None]:
        """Do of a job what needs the data, and hand over the network that is to be measured."""
        self._counter.reset()
        torch.set_num_threads(self._threads)
        try:
            if job.dense is None:
                scored = self._runner.score_dense(job.number)
            else:
                scored = self._runner.score(job.config, job.number, job.origin, job.dense, job.rung)
            network = None if scored.model is None or job.dense is None else _sendable(scored.model)
        except AutopruneError as error:
            return Answer(error=traceback.format_exc(), failure=error), None
        except (Exception, SystemExit) as error:  # the boundary: a trial's own failure is its record's
            failure = RunError(f"the dense model cannot be scored ({one_line(error)})")
            return Answer(error=traceback.format_exc(), failure=failure), None
        answer = Answer(
            scored=replace(scored, model=None),
            measurable=scored.model is not None,
            latency=None if scored.model is None else self._runner.modelled(scored.costs),
            samples_per_s=self._counter.per_second(scored.record.timings.evaluate_s),
        )
        return answer, network

    def perform(self, errand: Errand[Any]) -> Report:
        """Do an errand that needs the data."""
        torch.set_num_threads(self._threads)
        return _report(errand, self._runner)


class MeterActor:
    """Measures networks, one at a time, in the order asked, on cores that it holds for itself.

    Args:
        setup: The study.
        device: Further device of the study that this is; None: the study's own.
        taken: Machine to cores that other meters hold there.
    """

    def __init__(
        self, setup: Setup, device: str | None = None, taken: Mapping[str, tuple[int, ...]] | None = None
    ) -> None:
        self._setup, self._device, self._taken = setup, device, taken or {}
        self._runner: TrialRunner | None = None

    @property
    def _profile(self) -> DeviceProfile:
        ground = self._setup.groundwork
        return ground.profile if self._device is None else ground.devices[self._device]

    def _conditions(self) -> LatencySpec:
        """What is set here: the study's latency section, for a further device with what its target says, pinned."""
        spec = self._setup.spec.latency
        if self._device is not None:
            own = ray_options(self._setup.spec.executor).further[self._device]
            given = {"runtime": own.runtime, "threads": own.threads}
            changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
            spec = spec.model_copy(update={**changes, "affinity": None, "record": None, "energy_meter": "none"})
        if spec.affinity is None and hasattr(os, "sched_getaffinity"):
            cores = os.sched_getaffinity(0)
            free = cores - set(self._taken.get(platform.node(), ())) or cores
            spec = spec.model_copy(update={"affinity": tuple(sorted(free)[-spec.threads :])})
        return spec

    def start(self) -> Place | AutopruneError:
        """Import the task, make the meter, and say where this is and which cores it holds."""
        profile = self._profile
        if profile.detect and profile.title != machine_title():
            return ClusterError(
                f"device {profile.name!r} was detected where the search was started ({profile.title}), and the target "
                f"is {machine_title()}; give the target's own profile ('autoprune calibrate' on it writes one)"
            )
        task = _load(self._setup)
        if isinstance(task, AutopruneError):
            return task
        self._task, self._spec = task, self._conditions()
        spec = self._spec
        try:
            model = task.model.eval()
            self._setup.groundwork.load_weights(model)
            inputs = rebatch(task.args, task.kwargs, spec.batch)
            self._bench = Bench(model, inputs, meter_here(spec, profile))
        except AutopruneError as error:
            return error
        torch.set_num_threads(spec.threads)
        _take_precedence()
        return replace(_place(_node(), spec.threads), cores=spec.affinity or ())

    def measure(self, network: PackedNetwork | OnnxModule | None, dense_ms: float | None) -> Measured:
        """Measure a network, or the dense one where none is given; ``dense_ms`` is as for :meth:`Bench.measure`."""
        started = time.perf_counter()
        try:
            model: nn.Module = self._bench.dense
            if network is not None:
                model = network.unpack(model) if isinstance(network, PackedNetwork) else network
            latency = self._bench.measure(model, dense_ms)
        except Exception:  # the boundary: what a measurement raises is told in the trial's record
            return Measured(None, time.perf_counter() - started, traceback.format_exc())
        return Measured(latency, time.perf_counter() - started)

    def perform(self, errand: Errand[Any]) -> Report:
        """Do an errand that measures the study's own device."""
        if self._runner is None:
            spec = self._setup.spec.model_copy(update={"latency": self._spec})
            try:
                self._runner = TrialRunner(self._task, spec, self._setup.groundwork, metered=False)
            except AutopruneError as error:
                return Report(None, error)
            self._runner.meter = self._bench.meter
        torch.set_num_threads(self._spec.threads)
        return _report(errand, self._runner)


class _SampleCounter:
    """Counts the samples that go through a network while it is evaluated."""

    def __init__(self) -> None:
        self._samples = 0

    def reset(self) -> None:
        self._samples = 0

    def per_second(self, seconds: float) -> float | None:
        return self._samples / seconds if self._samples and seconds > 0 else None

    def counting(self, evaluate: Callable[[nn.Module], float]) -> Callable[[nn.Module], float]:
        def counted(model: nn.Module) -> float:
            with contextlib.closing(_Hook(model, self._see)):
                return evaluate(model)

        return counted

    def _see(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        first = next((v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor) and v.dim()), None)
        self._samples += 0 if first is None else len(first)


class _Hook:
    def __init__(self, model: nn.Module, see: Callable[[tuple[Any, ...], Mapping[str, Any]], None]) -> None:
        self._handle = model.register_forward_pre_hook(lambda _, args, kwargs: see(args, kwargs), with_kwargs=True)

    def close(self) -> None:
        self._handle.remove()


def _report(errand: Errand[Any], runner: TrialRunner) -> Report:
    try:
        done = attempt(errand, runner)
    except SystemExit as error:  # the user's code must not end the actor
        return Report(None, RunError(one_line(error)))
    return Report(done.result, None if done.error is None else portable(done.error))


def _sendable(network: nn.Module) -> PackedNetwork | OnnxModule:
    """Return a network as data: weights, or the bytes of an ONNX file; never the user's own classes."""
    return network if isinstance(network, OnnxModule) else PackedNetwork.of(network)


def _load(setup: Setup) -> Task | AutopruneError:
    with contextlib.suppress(OSError):
        os.chdir(setup.working_dir)
    kept = Path(setup.directory)
    if not kept.is_dir():
        kept = Path(tempfile.gettempdir()) / f"autoprune-{setup.groundwork.graph.fingerprint[:16]}"
        kept.mkdir(exist_ok=True)
    try:
        check_same(platform.node(), versions_here(), setup.versions)
        return load_task(setup.spec.task, kept)
    except AutopruneError as error:
        return type(error)(f"on node {platform.node()}: {error}")


def _node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _place(node: str, threads: int) -> Place:
    cores = tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else tuple(range(core_count()))
    return Place(platform.node(), os.getpid(), node, threads, cores, machine_title())


def _take_precedence() -> None:
    """Go before the other processes of the node, Ray's own services too, as far as this process has the right to.

    Ray gives its workers niceness 15. Where the other cores are busy its services wake up on the meter's a few hundred
    times a second; at -20 a third fewer samples had to be taken again.
    """
    for niceness in (-20, 0):
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, 0, niceness)
            return


def _leave_cores(cores: tuple[int, ...]) -> None:
    """Keep every thread of this process off some cores, where there are others."""
    if cores and hasattr(os, "sched_setaffinity"):
        left = os.sched_getaffinity(0) - set(cores)
        for thread in Path("/proc/self/task").iterdir() if left else ():
            with contextlib.suppress(OSError):
                os.sched_setaffinity(int(thread.name), left)


def _limit_memory(limit: int | None) -> None:
    """Let further allocations above ``limit`` bytes fail as MemoryError does, instead of taking the node down."""
    if limit is None:
        return
    try:
        import resource
    except ImportError:  # Windows
        return
    held = 0
    with contextlib.suppress(OSError, StopIteration, ValueError):
        line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmData"))
        held = int(line.split()[1]) * 1024
    if held:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (held + limit, hard))
