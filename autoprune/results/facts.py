"""How every number of a report was made, in sentences: meters, intervals, what was not counted, seed and versions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from autoprune.results.formats import ScoreFormat, number, percent, plain, seconds
from autoprune.spec.front import DENSE, front, hypervolume_of
from autoprune.spec.objectives import METRICS
from autoprune.spec.record import EnergyRecord, LatencyRecord, RunRecords, TrialRecord

NAME_LIMIT = 80
MOST_REASONS = 3  # they hold figures, so hardly two are alike
_ANOTHER_SPEED = 1.25
"""Times the least of the dense network's medians: above it the machine ran at another speed, for noise is less."""


@dataclass(frozen=True)
class Fact:
    """One line of "how the numbers were made": what it is about, and sentences."""

    title: str
    sentences: tuple[str, ...]


def facts(records: RunRecords) -> tuple[Fact, ...]:
    """Return how every number of the report was made, what was not counted, and with what."""
    study = records.study
    listed = [
        Fact("Accuracy", _accuracy(records)),
        Fact("MACs", _macs(records)),
        Fact("Latency", _latency(records)),
        Fact("Energy", _energy(records)),
        Fact("Hypervolume", _hypervolume(records)),
        Fact("Recovery", _recovery(records)),
        Fact("Search", _search(records)),
        Fact(
            "Device",
            (f"{plain(study.device_title)} ({plain(study.spec.device)}). Searched on: {plain(study.machine)}.",),
        ),
        Fact("Model", (f"Architecture fingerprint {plain(study.fingerprint)}.",)),
        Fact("Versions", (", ".join(f"{plain(k)} {plain(v)}" for k, v in sorted(study.versions.items())),)),
    ]
    return tuple(Fact(fact.title, lines) for fact in listed if (lines := tuple(s for s in fact.sentences if s)))


def measured(records: RunRecords) -> list[TrialRecord]:
    """Return the complete trials that have a score, in the order of the records."""
    return [t for t in records.trials if t.state == "complete" and t.score is not None]


def tally(texts: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """Return each text with how often it stands, most frequent first, then by text."""
    counts = Counter(texts)
    return tuple(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _accuracy(records: RunRecords) -> tuple[str, ...]:
    study, scores = records.study, ScoreFormat.of(records.study)
    tested = sum(t.test_score is not None for t in records.trials)
    better = "higher" if study.higher_is_better else "lower"
    return (
        f"The score of task {plain(study.spec.task, 200)} on validation data, {better} is better; dense: "
        f"{scores.score(study.dense_score)}. A drop is dense minus pruned"
        + (
            ", in percentage points (pp)."
            if scores.percent
            else "."
            if study.higher_is_better
            else ", turned round for a loss."
        ),
        f"The search saw validation data only. Test data was used once, for {tested} trials, after the search."
        if tested
        else "The search saw validation data only. No test score was recorded.",
    )


def _macs(records: RunRecords) -> tuple[str, ...]:
    trials = measured(records)
    if not any("macs" in t.values for t in trials):
        return ()
    uncounted: dict[str, int] = {}
    for trial in trials:
        for name, calls in trial.uncounted_ops.items():
            uncounted[name] = max(uncounted.get(name, 0), calls)
    listed = ", ".join(f"{plain(name, NAME_LIMIT)} ({calls}×)" for name, calls in sorted(uncounted.items()))
    return (
        "Multiply-adds of the model as executed, as fvcore counts them; zeros that are executed count.",
        f"Not counted, for want of a handle in fvcore: {listed}."
        if listed
        else "Every operator with MACs was counted.",
    )


def _latency(records: RunRecords) -> tuple[str, ...]:
    trials = [t for t in measured(records) if t.latency is not None]
    lines = [_sentence(meter, n) for meter, n in tally(t.latency.meter for t in trials if t.latency)]
    paired = [t.latency for t in trials if t.latency is not None and t.latency.pairs and t.origin != DENSE]
    if not paired:
        return tuple(lines)
    reasons = tally(latency.reason for latency in paired if latency.reason)
    return (
        *lines,
        _precision(paired, records),
        *_slowed(paired),
        *_unlike(paired),
        *(_sentence(reason, n) for reason, n in reasons[:MOST_REASONS]),
    )


def _recovery(records: RunRecords) -> tuple[str, ...]:
    return tuple(_sentence(text, n) for text, n in tally(t.recovery for t in measured(records)))


def _sentence(text: str, trials: int) -> str:
    clean = plain(text)
    return f"{clean[:1].upper()}{clean[1:]} ({trials} trials)."


def _precision(paired: list[LatencyRecord], records: RunRecords) -> str:
    spec = records.study.spec.latency
    half = median((latency.ratio_high - latency.ratio_low) / 2 for latency in paired)
    slow = [latency for latency in paired if latency.speed is not None]
    wide = [latency for latency in paired if not latency.converged and latency.speed is None]
    throughout = f", in {len(slow)} the machine was slow throughout ({_speeds(slow)} of its speed)" if slow else ""
    return (
        "The ratio to dense is measured in pairs and multiplied by the study's dense latency; its 95 % interval is "
        f"±{number(half * 100, 2)} % in the median trial. In {len(wide)} of {len(paired)} trials it did not become as "
        f"narrow as ±{number(spec.half_width * 100, 2)} % within {seconds(spec.budget_s)}{throughout}; "
        "these are marked ?."
    )


def _speeds(slow: list[LatencyRecord]) -> str:
    speeds = [latency.speed for latency in slow if latency.speed is not None]
    return _span(percent(min(speeds)), percent(max(speeds)))


def _span(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _unlike(paired: list[LatencyRecord]) -> tuple[str, ...]:
    """Return that trials were measured at several speeds of the machine, and none was told so by the meter.

    It remembers the full speed for minutes; what was measured before it was seen, or long after, only the study shows.
    """
    trusted = [latency.dense_ms for latency in paired if latency.speed is None]
    least = min(trusted, default=0.0)
    slower = sum(ms > _ANOTHER_SPEED * least for ms in trusted)
    if not slower:
        return ()
    return (
        f"The dense network took {number(least, 3)} to {number(max(trusted), 3)} ms in the trials' own measurements; "
        f"in {slower} of {len(paired)} trials the machine was over {percent(_ANOTHER_SPEED - 1)} slower than at its "
        "best, unseen by the meter, which remembers its speed for minutes: their ratios may be others at full speed.",
    )


def _slowed(paired: list[LatencyRecord]) -> tuple[str, ...]:
    """Return what the meter left out because the machine was slow meanwhile."""
    trials = sum(bool(latency.slowed) for latency in paired)
    if not trials:
        return ()
    out = sum(latency.slowed or 0 for latency in paired)
    taken = out + sum(latency.pairs for latency in paired)
    return (
        f"{percent(out / taken)} of the pairs, in {trials} of {len(paired)} trials, do not count: the machine ran "
        "slower than it can meanwhile (another load, or a lowered clock), and the ratio may be another then.",
    )


def _energy(records: RunRecords) -> tuple[str, ...]:
    energies = [t.energy for t in measured(records) if t.energy is not None]
    if not energies:
        return ()
    drawn = [energy for energy in energies if energy.measured is not None]
    return (
        "Modelled: power × time, arithmetic and memory traffic." if drawn else _MODELLED_ONLY,
        *(f"Basis: {plain(basis)} ({n} trials)." for basis, n in tally(energy.basis for energy in energies)),
        *_counted(drawn),
    )


_MODELLED_ONLY = "Modelled, not measured: power × time, arithmetic and memory traffic."


def _counted(drawn: list[EnergyRecord]) -> tuple[str, ...]:
    """What energy meters counted, beside the model: all that the device drew, idle power included."""
    meters = tally(energy.measured.meter for energy in drawn if energy.measured)
    ratios = [energy.mj / energy.measured.mj for energy in drawn if energy.measured]
    return tuple(
        f"Measured too, by {plain(meter)}, dense and pruned in turn ({n} trials); the model gives "
        f"{number(median(ratios), 2)} times what was measured in the median trial."
        for meter, n in meters
    )


def _hypervolume(records: RunRecords) -> tuple[str, ...]:
    value, study = hypervolume_of(records), records.study
    if value is None:
        return ("Not known: the dense model has not been measured, so there is no reference point.",)
    scores = ScoreFormat.of(study)
    corner = ", ".join(
        f"{METRICS[name].title} {scores.metric(name, study.reference[name])}" for name in study.spec.objectives
    )
    return (
        f"{number(value)} of the box between zero and the reference point ({corner}), "
        f"covered by a front of {len(front(records))} trials. Only runs with the same reference point compare.",
    )


def _search(records: RunRecords) -> tuple[str, ...]:
    spec = records.study.spec
    states = Counter(t.state for t in records.trials)
    broken = sum(bool(t.violations) for t in records.trials if t.state == "complete")
    bounds = ", ".join(str(bound.directed(records.study.higher_is_better)) for bound in spec.bounds) or "none"
    space = spec.space if isinstance(spec.space, str) else spec.space.name
    return (
        f"Sampler {plain(spec.search.sampler)}, seed {spec.search.seed}, space {plain(space, NAME_LIMIT)}; objectives "
        f"{', '.join(spec.objectives)}; constraints: {bounds}.",
        f"{len(records.trials)} trials: {states['complete']} complete ({broken} of them break a constraint), "
        f"{states['pruned']} stopped early, {states['failed']} failed.",
        f"Ended early: {plain(records.study.stopped)}." if records.study.stopped else "",
    )
