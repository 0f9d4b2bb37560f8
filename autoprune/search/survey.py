"""Before the first trial: the device is asked what pays, and the space is narrowed to it. Done once in a study."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from autoprune.errors import AutopruneError, MeterError
from autoprune.pruning.granularity import granularity
from autoprune.search.errands import Hands, OwnHands
from autoprune.search.forecast import Forecast
from autoprune.search.narrowing import Narrowed, narrow
from autoprune.search.proposals import AUTO, NONE, PRECISION, Proposals
from autoprune.spec.config import Precision, PruningConfig
from autoprune.spec.profile import DeviceSummary, read_profile
from autoprune.spec.study import StudySpec
from autoprune.spec.survey import Survey
from autoprune.trial.runner import TrialRunner, runs_int8
from autoprune.trial.survey import Surveyor, masks_only

_PER_TRIAL_S = 0.2
_MOST_S = 30.0
_LEAST_TRIALS = 20
_LEAST_SAMPLES = 40  # networks below which a predictor is vague; a runtime that exports each takes longer for them
_LONGEST = 4.0  # times the usual survey, for that
_STEPS_S = 5.0  # where widths depend on it, steps are measured in a study of any length


@dataclass(frozen=True)
class Surveyed:
    """What is known before the first trial.

    Attributes:
        survey: What was measured.
        narrowed: The space, without what does not pay.
        forecast: The study's predictor.
    """

    survey: Survey
    narrowed: Narrowed
    forecast: Forecast


def survey_seconds(spec: StudySpec, proposals: Proposals) -> float:
    """Return how long a study's survey may take: what it says, or a fifth of a second for each trial."""
    if spec.latency.survey_s is not None:
        return spec.latency.survey_s
    if spec.latency.record is not None or spec.latency.runtime == "recorded":
        return 0.0  # a recording holds trials
    usual = min(_MOST_S, _PER_TRIAL_S * spec.search.trials) if spec.search.trials >= _LEAST_TRIALS else 0.0
    return max(usual, _STEPS_S) if any(knob.round_to == AUTO for knob in proposals.knobs) else usual


@dataclass(frozen=True)
class SurveyErrand:
    """Ask the device.

    Attributes:
        proposals: The space as it was written.
        seconds: How long it may take.
    """

    on_device: ClassVar[bool] = True
    proposals: Proposals
    seconds: float

    def __call__(self, runner: TrialRunner) -> tuple[Survey, str]:
        """Return what was found, and what could not be measured; empty where all was."""
        return _survey(runner, self.proposals, self.seconds)


def take_survey(
    runner: TrialRunner,
    proposals: Proposals,
    known: Survey | None,
    say: Callable[[str], None] = lambda _: None,
    hands: Hands | None = None,
    metered: bool | None = None,
    profiled: Path | None = None,
) -> Surveyed:
    """Ask the device, or take what is known.

    Args:
        runner: Model, graph, device, meter.
        proposals: The space as it was written.
        known: What this study found out in an earlier run; None at its start.
        say: Told what is done, and what was found or could not be measured.
        hands: What measures; None: this process.
        metered: Whether latency is measured; None: as the runner tells.
        profiled: Where the ``profile.json`` of this study may be: the times of modules that were measured for it.
    """
    survey = known
    seconds = survey_seconds(runner.spec, proposals)
    metered = runner.meter is not None if metered is None else metered
    if survey is None and seconds:
        if metered:
            more = f", up to {_LONGEST * seconds:.0f} s if each network takes long" * (
                runner.spec.latency.survey_s is None
            )
            say(f"Measuring what pays on this device, for about {seconds:.0f} s{more} (latency.survey_s) ...")
        (performed,) = (hands or OwnHands(runner)).perform([SurveyErrand(proposals, seconds)])
        survey, lacking = performed.value
        if lacking:
            say(lacking)
        if metered and profiled is not None and (dense := _measured_modules(profiled, survey, runner.spec)) is not None:
            survey = survey.model_copy(update={"dense": dense})
            say(f"The times of the dense network's modules are those of {profiled}.")
    survey = survey or Survey()
    narrowed = narrow(proposals, survey, runner.spec)
    forecast = Forecast(runner, survey)
    if known is None and narrowed.told:
        say(narrowed.told[:1].upper() + narrowed.told[1:] + ".")
    found = forecast.record()
    if known is None and found is not None and metered:
        say(
            f"Latency is predicted from {found.measurements} random networks: {found.mean_error:.1%} mean error, "
            f"{found.within_10:.0%} within 10 %, each left out in turn."
        )
    return Surveyed(survey, narrowed, forecast)


def _measured_modules(path: Path, survey: Survey, spec: StudySpec) -> DeviceSummary | None:
    """Return what a profile measured of the dense network; None unless it was the same network, measured alike.

    The same are device and machine, runtime, threads and type, and of every module its name, multiply-adds (so batch
    and inputs too) and parameters.
    """
    try:
        found = read_profile(path)
    except AutopruneError:  # none, or of another version: the models tell
        return None
    here, asked = survey.dense, spec.latency
    if here is None or not found.device.measured:
        return None
    conditions = (found.runtime, found.threads, found.dtype, found.device.device, found.device.title)
    same = conditions == (asked.runtime, asked.threads, asked.dtype, spec.device, here.title)
    return found.device if same and _modules(found.device) == _modules(here) else None


def _modules(device: DeviceSummary) -> list[tuple[str, float, int]]:
    return [(layer.name, layer.macs, layer.params) for layer in device.layers]


def _survey(runner: TrialRunner, proposals: Proposals, seconds: float) -> tuple[Survey, str]:
    lacking = ""
    started = time.perf_counter()
    surveyor = Surveyor(runner, seconds)
    dense = surveyor.dense()
    slow = surveyor.slowest(dense)
    survey = Survey(dense=dense)
    try:
        if masks_only([m.partition("/")[0] for knob in proposals.knobs for m in knob.methods if m != NONE]):
            survey = survey.model_copy(update={"payoffs": surveyor.payoffs(slow)})
        if any(knob.round_to == AUTO for knob in proposals.knobs):
            survey = survey.model_copy(update={"staircases": surveyor.staircases(slow)})
        precisions = [each for each in proposals.precisions if each == "fp32" or runs_int8(runner.spec.latency)]
        if precisions:
            narrowed = narrow(proposals, survey, runner.spec).proposals
            draws = random_configs(narrowed, runner.spec.search.seed, precisions)
            least = 0 if runner.spec.latency.survey_s is not None else _LEAST_SAMPLES
            found = surveyor.samples(draws, started + seconds, least, started + _LONGEST * seconds)
            survey = survey.model_copy(update={"samples": found})
    except MeterError as error:  # a part of the network that the runtime cannot run alone is no reason not to search
        lacking = f"Not all was measured: {error}."
    return survey.model_copy(update={"seconds": time.perf_counter() - started}), lacking


def random_configs(
    proposals: Proposals, seed: int, precisions: Sequence[Precision] = ("fp32",)
) -> Iterator[PruningConfig]:
    """Yield networks of a space, without patterns: they change no time.

    In turns each group at random, all about alike, and only some: a regression learns groups and their sum. In turns
    each precision, three networks at a time. Every second network may lose residual blocks.
    """
    random = np.random.default_rng(seed)
    methods = {
        knob.name: [m for m in knob.methods if m != NONE and granularity(m.partition("/")[0]).removed]
        for knob in proposals.knobs
    }
    for number in range(100_000):
        level, some = random.uniform(0, 0.85), random.uniform(0.1, 0.9)
        params: dict[str, Any] = {PRECISION: precisions[number // 3 % len(precisions)]}
        for knob in proposals.knobs:
            params |= knob.uniform(0.0)
            if not methods[knob.name] or (number % 3 == 2 and random.random() > some):
                continue
            if knob.stage is not None:
                if number % 2:
                    sparsity = knob.sparsities[int(random.uniform() * len(knob.sparsities))]
                    params |= {f"{knob.name}|method": methods[knob.name][0], f"{knob.name}|sparsity": sparsity}
                continue
            wanted = level + random.normal(0, 0.2) if number % 3 == 1 else random.uniform(0, 1)
            if number % 3 == 1:
                sparsity = min((abs(choice - wanted), choice) for choice in knob.sparsities)[1]
            else:
                sparsity = knob.sparsities[int(wanted * len(knob.sparsities))]
            params |= {f"{knob.name}|method": methods[knob.name][0], f"{knob.name}|sparsity": sparsity}
        yield proposals.config(params)
