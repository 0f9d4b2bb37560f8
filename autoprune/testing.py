"""Conformance suites: what built-ins pass, and plug-ins should. Call them from your own tests.

Each raises ``AssertionError`` with the rule that was broken.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from autoprune.cost.energy_meters import EnergyMeter
from autoprune.cost.meters import Meter, ModelInputs
from autoprune.deploy.sparsifier import Sparsifier
from autoprune.errors import MeterError
from autoprune.graph.groups import find_groups
from autoprune.graph.trace import fingerprint
from autoprune.pruning.criteria import Criterion, Evidence
from autoprune.pruning.granularity import Granularity, removed_count
from autoprune.pruning.proof import half_of_each, surgery_error
from autoprune.search.executors import Executor, Job
from autoprune.search.loggers import Logger, Standing
from autoprune.spec.config import LayerChoice, ModelIdentity, PruningConfig
from autoprune.spec.latency import LatencySpec
from autoprune.spec.record import RunRecords, StudyRecord, TrialRecord
from autoprune.spec.study import StudySpec
from autoprune.training.methods import Method
from autoprune.training.schedules import CubicSchedule, Schedule
from autoprune.trial.runner import TrialRunner


def check_criterion(criterion: Criterion, evidence: Evidence) -> None:
    """Check that a criterion scores every entry, the same twice, changing nothing.

    Scores are finite and not negative; signed contributions, with a leading dimension of draws, are finite.
    """
    before = {name: value.clone() for name, value in evidence.model.state_dict().items()}
    scores = criterion.scores(evidence)
    assert scores, "a criterion scores at least one tensor"
    parameters = dict(evidence.model.named_parameters())
    for name, values in scores.items():
        assert name in parameters, f"{name!r} is no parameter of the model"
        signed = values.dim() == parameters[name].dim() + 1
        shape = values.shape[1:] if signed else values.shape
        assert shape == parameters[name].shape, f"scores of {name!r} have the shape of the tensor"
        assert bool(torch.isfinite(values).all()), f"scores of {name!r} are finite"
        assert signed or bool((values >= 0).all()), f"scores of {name!r} are not negative"
    again = criterion.scores(evidence)
    assert all(torch.equal(scores[name], again[name]) for name in scores), "the same evidence gives the same scores"
    assert criterion.summary, "a criterion has a summary"
    for name, value in evidence.model.state_dict().items():
        assert torch.equal(value, before[name]), f"the criterion changed {name!r}"
    assert all(parameter.grad is None for parameter in parameters.values()), "the criterion left gradients behind"


def check_granularity(shape: Granularity, rows: int = 32, inner: int = 64, sparsity: float = 0.5) -> None:
    """Check a weight pattern: right shape, never more than asked removed, deterministic under ties."""
    if shape.mask is None:
        assert shape.removed, "a granularity without a mask removes units"
        return
    scores = torch.rand(rows, inner, generator=torch.Generator().manual_seed(0))
    kept = shape.mask(scores, sparsity)
    assert kept.dtype == torch.bool, "a mask is boolean"
    assert kept.shape == scores.shape, "a mask has the shape of the scores"
    assert int((~kept).sum()) <= removed_count(scores.numel(), sparsity), "no more goes than was asked"
    ties = torch.ones(rows, inner)
    assert torch.equal(shape.mask(ties, sparsity), shape.mask(ties.clone(), sparsity)), "ties break by index"


def surgery_difference(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None, seed: int = 0
) -> float:
    """Remove a random half of every group and return the relative difference to the masked dense model.

    The model should be in float64; exact surgery stays below 1e-9.
    """
    graph = find_groups(model, args, kwargs)
    gone = half_of_each(graph, seed)
    assert gone, "the model has no group of channels that may go"
    return surgery_error(model, graph, gone, args, kwargs)


def check_schedule(schedule: Schedule, final: float = 0.8) -> None:
    """Check a schedule: 0 before its begin, never falling, the config's sparsity at its end, no change after it."""
    steps = range(schedule.begin, schedule.end + 1)
    assert schedule.begin >= 0, "step 0 is before training"
    assert schedule.begin <= schedule.end, "a schedule does not end before it begins"
    assert all(schedule.sparsity(step, final) == 0 for step in range(schedule.begin)), "nothing goes before the begin"
    wanted = [schedule.sparsity(step, final) for step in steps]
    assert wanted == sorted(wanted), "sparsity does not fall"
    assert all(0 <= value <= final for value in wanted), "no more goes than the config asks for"
    assert schedule.sparsity(schedule.end, final) == final, "the end reaches the config's sparsity, exactly"
    assert schedule.due(schedule.end), "masks change at the end"
    assert not any(schedule.due(step) for step in range(schedule.end + 1, 2 * schedule.end + 2)), "and never after it"
    assert schedule.summary, "a schedule has a summary"


def check_method(make: Callable[[], Method], layers: Mapping[str, Any], steps: int = 8, seed: int = 0) -> None:
    """Check a training-time method on a small network of two linear layers, called "0" and "2", and a batch norm.

    It reaches the config's sparsity, keeps masked weights at zero, leaves names and hooks of the model alone, and goes
    on from its state with the same bits.

    Args:
        make: Returns the method anew at each call.
        layers: What the config prunes: layer name to its choice.
        steps: Of the training.
        seed: Of network and data.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        dense = nn.Sequential(nn.Linear(8, 12), nn.BatchNorm1d(12), nn.Linear(12, 4))
        x, y = torch.randn(16, 8), torch.randint(0, 4, (16,))
    config = PruningConfig(model=ModelIdentity(fingerprint=fingerprint(dense)), seed=seed, layers=dict(layers))

    def start() -> tuple[nn.Module, torch.optim.Optimizer, Sparsifier]:
        model = copy.deepcopy(dense).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        schedule = CubicSchedule(begin=2, end=steps - 2, every=1)
        return model, optimizer, Sparsifier(model, config, optimizer, schedule, method=make(), example_inputs=x[:2])

    def go_on(model: nn.Module, optimizer: torch.optim.Optimizer, sparsifier: Sparsifier, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            sparsifier.step()

    whole, half, again = start(), start(), start()
    go_on(*whole, steps)
    go_on(*half, steps // 2)
    again[0].load_state_dict(half[0].state_dict())
    again[1].load_state_dict(half[1].state_dict())
    again[2].load_state_dict(half[2].state_dict())
    go_on(*again, steps - steps // 2)
    for name, value in whole[0].state_dict().items():
        assert torch.equal(value, again[0].state_dict()[name]), f"a resumed training has the same {name!r}"
    assert whole[2].masks, "the config's weights are masked"
    for name, mask in whole[2].masks.items():
        assert torch.equal(mask, again[2].masks[name]), f"a resumed training has the same mask of {name!r}"
        assert not bool(whole[0].get_parameter(name)[~mask].any()), f"masked weights of {name!r} are zero"
    for layer in whole[2].report().layers.values():
        assert abs(layer.masked - layer.wanted) < 0.1, "the config's sparsity is reached"
    assert list(whole[0].state_dict()) == list(dense.state_dict()), "the model keeps its names"
    hooked = [module for module in whole[0].modules() if module._forward_hooks or module._forward_pre_hooks]
    assert whole[2].method.noisy or not hooked, "and no hooks, but for a method with noise"


def check_logger(make: Callable[[], Logger]) -> None:
    """Check a logger: it takes every kind of trial, and one made anew at the same place knows what was told there.

    Args:
        make: Opens the same, at first empty, place at each call.
    """
    config = PruningConfig(
        model=ModelIdentity(fingerprint="check"),
        layers={"stem.conv": (LayerChoice(granularity="channel", criterion="magnitude_l2", sparsity=0.5),)},
    )
    complete = TrialRecord(
        number=0, state="complete", origin="tpe", config=config, values={"macs": 5.0, "accuracy_drop": -0.1}, score=0.9
    )
    refused = TrialRecord(number=1, state="complete", origin="tpe", values={"macs": 9.0}, violations={"macs": 4.0})
    failed = TrialRecord(number=2, state="failed", origin="tpe", error="Traceback\nValueError: no <data>")
    study = StudyRecord(
        spec=StudySpec(task="a:b", space="channels"),
        device_title="",
        fingerprint="check",
        dense_score=0.8,
        higher_is_better=True,
    )
    first = make()
    assert first.known() == frozenset(), "an empty place knows no trial"
    first.log(complete, Standing(front_size=1, hypervolume=0.25))
    first.log(refused, Standing(front_size=1, hypervolume=None))
    first.close(None)
    again = make()
    assert again.known() == {0, 1}, "a search that goes on finds what it told before"
    again.log(failed, None)
    tested = complete.model_copy(update={"test_score": 0.85})
    again.close(RunRecords(study=study, trials=(tested, refused, failed)))
    last = make()
    assert last.known() == {0, 1, 2}, "trials of every state are told"
    last.close(RunRecords(study=study, trials=(tested, refused, failed)))


def check_meter(make: Callable[[LatencySpec], Meter], runtime: str = "torch", budget_s: float = 0.2) -> None:
    """Check a runtime: a pair of networks and one alone, on a small convolutional network and a narrower one.

    Ratios and intervals follow from the samples, conditions are those that were asked for, a missed precision says so,
    an input without samples is refused, and models, flags, threads and modes are as they were.

    Args:
        make: Returns the meter for a ``latency`` section, as the registry's factory does; the section is this
            function's own but for what ``make`` changes.
        runtime: Its registry key.
        budget_s: Of one measurement.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dense, narrow = _convolutions(16), _convolutions(8)
        image = torch.randn(1, 3, 16, 16)
    inputs = ModelInputs((image,))
    dense.train()
    dense[1].eval()
    state = {name: value.clone() for name, value in dense.state_dict().items()}
    flags = [module.training for module in dense.modules()]
    threads = torch.get_num_threads()
    asked = LatencySpec.model_construct(runtime=runtime, batch=2, half_width=0.9, budget_s=budget_s)
    meter = make(asked)
    pairs = [meter.measure_pair(dense, narrow, inputs), meter.measure_pair(dense, dense, inputs)]
    alone = meter.measure(narrow, inputs, budget_s)

    assert [module.training for module in dense.modules()] == flags, "training flags are put back"
    assert all(torch.equal(value, state[name]) for name, value in dense.state_dict().items()), "weights stay"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in dense.modules()), "no hooks stay"
    assert torch.get_num_threads() == threads, "threads are put back"
    assert gc.isenabled(), "the garbage collector is put back"
    assert not torch.is_inference_mode_enabled(), "inference mode is left"
    for found in pairs:
        samples = np.array(found.samples_s)
        assert samples.shape == (found.pairs, 2), "the samples are the pairs, for recordings"
        assert bool((samples > 0).all()), "samples are positive seconds"
        assert isclose(found.ratio, np.median(samples[:, 1] / samples[:, 0])), "the ratio is the median of the pairs'"
        assert found.low <= found.ratio <= found.high, "the ratio lies in its interval"
        assert isclose(found.dense_ms, 1e3 * np.median(samples[:, 0])), "dense_ms is the median in ms"
        assert isclose(found.candidate_ms, 1e3 * np.median(samples[:, 1])), "candidate_ms is the median in ms"
        assert found.candidate_p99_ms is None or found.candidate_p90_ms <= found.candidate_p99_ms, "percentiles rise"
        assert found.outliers is None or found.outliers >= 0, "outliers are counted"
        assert found.meter, "every number names its meter"
        assert found.converged == (not found.reason), "a missed precision says why, a reached one nothing"
        conditions = found.conditions
        assert conditions is not None, "what was set is told"
        assert (conditions.batch, conditions.dtype) == (2, "float32"), "batch and type are those that were asked for"
        assert conditions.threads in (None, 1), "threads are those that were asked for, or none were"
        assert found.to_record(1.0).ms == found.ratio, "the record's latency is the ratio times the study's dense one"
    assert alone.low_ms <= alone.ms <= alone.high_ms, "the median lies in its interval"
    assert len(alone.samples_s) == alone.samples > 0, "samples of one network alone are kept"
    assert alone.meter, "every number names its meter"
    hopeless = make(asked.model_copy(update={"half_width": 1e-9, "budget_s": 1e-9})).measure_pair(dense, narrow, inputs)
    assert not hopeless.converged, "a precision that was not reached is told"
    assert hopeless.reason, "with its reason"
    try:
        meter.measure_pair(dense, narrow, ModelInputs((image[:0],)))
    except MeterError:
        pass
    else:
        raise AssertionError("an input without a sample is a MeterError")
    other = meter.measure_pair(dense, narrow[0], inputs, ModelInputs((image[:, :, :8],)))
    assert other.ratio > 0, "a candidate may take other inputs than the reference"


def _convolutions(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 8, 3), nn.Flatten()
    )


@dataclass(frozen=True)
class _Asked:
    """An errand that tells of which network a runner is, or raises."""

    on_device: ClassVar[bool] = False
    number: int
    raises: bool = False

    def __call__(self, runner: TrialRunner) -> tuple[int, str]:
        if self.raises:
            raise ValueError(f"errand {self.number} raises")
        return self.number, runner.graph.fingerprint


def check_executor(executor: Executor, jobs: Sequence[Job], broken: Job) -> None:
    """Check that an executor gives every job back once, with its own record, and a failed one for what raises.

    Errands come back once as well, with their result or what they raised.

    Args:
        executor: Open; it is closed here.
        jobs: Jobs that succeed, each with another number.
        broken: A job whose trial raises.
    """
    try:
        assert executor.capacity >= 1, "there is room for a job"
        waiting, flying, back = [*jobs, broken], 0, {}
        while waiting or flying:
            while waiting and flying < executor.capacity:
                executor.submit(waiting.pop(0))
                flying += 1
            job, record = executor.wait()
            flying -= 1
            assert job.number not in back, "a job comes back once"
            assert record.number == job.number, "a record is that of its job"
            assert record.origin == job.origin, "a record says who proposed it"
            back[job.number] = record
        assert back.keys() == {job.number for job in (*jobs, broken)}, "every job comes back"
        assert all(back[job.number].state == "complete" for job in jobs), "a job that succeeds is complete"
        failed = back[broken.number]
        assert failed.state == "failed", "a job that raises is a failed trial"
        assert failed.error, "a failed trial says why"
        asked = [_Asked(0), _Asked(1, raises=True), _Asked(2)]
        done = {performed.errand: performed for performed in executor.perform(asked)}
        assert done.keys() == set(asked), "every errand comes back, once"
        assert isinstance(done[asked[1]].error, ValueError), "what an errand raises is told"
        model = broken.config.model.fingerprint
        assert all(done[each].value == (each.number, model) for each in (asked[0], asked[2])), "its own result"
        assert isinstance(executor.has_meter, bool)
        assert executor.ended == 0, "nothing is left to be returned"
    finally:
        executor.close()


def check_energy_meter(meter: EnergyMeter, work: Callable[[], Any], least_j: float = 0.0) -> None:
    """Check an energy meter: it tells what it counts, begins near zero, never falls, and moves while something works.

    Args:
        meter: Newly built.
        work: Keeps the device busy for the meter's ``window_s``, or lets a recording go on as long.
        least_j: What it must have counted by then.
    """
    assert meter.name, "every number names its meter"
    assert meter.covers in ("cpu", "gpu"), "a meter counts the CPU or the GPU"
    assert meter.window_s > 0, "a window takes time"
    read = [meter.read_j()]
    for _ in range(3):
        work()
        read.append(meter.read_j())
    assert all(isinstance(value, float) for value in read), "joules are numbers"
    assert read == sorted(read), "a counter never falls, whatever wraps behind it"
    assert read[-1] > read[0], "it moves"
    assert read[-1] - read[0] >= least_j, "and counts what was drawn"
