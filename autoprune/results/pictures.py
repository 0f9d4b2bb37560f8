"""The static plots of ``report.md``: the front in every cost, hypervolume, layers, predictions, other devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from autoprune.results.details import is_changed
from autoprune.results.formats import ScoreFormat, plain
from autoprune.results.other_devices import device_fronts
from autoprune.results.picks import picks
from autoprune.results.stairs import stairs
from autoprune.results.svg import Bars, Chart, Label, Line, Points, Tone, draw, draw_bars
from autoprune.results.trust import predicted_pairs
from autoprune.spec.front import DENSE, DROP, candidates, dense_trial, front, hypervolume_history
from autoprune.spec.objectives import METRICS
from autoprune.spec.record import RunRecords, TrialRecord

FOLDER = "plots"
_MOST_LAYERS = 40
_MOST_DEVICES = 6
_MOST_TITLES = 300  # of one kind of point; more are a cloud, and a megabyte
_TONES: tuple[Tone, ...] = ("blue", "vermilion", "green", "orange", "sky", "grey")
_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Picture:
    """One static plot.

    Attributes:
        path: In the report's folder.
        section: Where it belongs: "front", "layers", "trust" or "devices".
        title: What it shows.
        svg: The document.
    """

    path: str
    section: str
    title: str
    svg: str


def pictures(records: RunRecords) -> tuple[Picture, ...]:
    """Return the plots that the records can fill, in the order of the report; none where no trial is complete."""
    drawn: list[Picture] = []

    def add(name: str, section: str, title: str, svg: str | None) -> None:
        if svg is not None:
            drawn.append(Picture(f"{FOLDER}/{name}.svg", section, title, svg))

    costs = [name for name in records.study.spec.objectives if name != DROP]
    for cost in costs:
        add(f"front-{cost}", "front", f"Accuracy drop against {METRICS[cost].title}", front_picture(records, cost))
    add("layers", "layers", "What the picks keep of each layer", layers_picture(records))
    add("hypervolume", "trust", "Hypervolume over trials", hypervolume_picture(records))
    add("predicted", "trust", "Predicted against measured latency", predicted_picture(records))
    add("devices", "devices", "Accuracy drop against latency relative to dense, by device", devices_picture(records))
    return tuple(drawn)


def front_picture(records: RunRecords, cost: str) -> str | None:
    """Draw accuracy drop against one cost for every complete trial that has both; None where none has."""
    trials = [t for t in records.trials if t.state == "complete" and DROP in t.values and cost in t.values]
    if not trials:
        return None
    on_front = {t.number for t in front(records)} if candidates(records) else set()
    unit = axis(cost, [t.values[cost] for t in trials])
    scores, chosen = ScoreFormat.of(records.study), picks(records)
    rule = {t.origin for t in trials} - {DENSE, records.study.spec.search.sampler}

    def group(name: str, tone: Tone, shape: Any, keep: Callable[[TrialRecord], bool]) -> Points:
        kept = [t for t in trials if t.origin != DENSE and keep(t)]
        return _points(f"{name} ({len(kept)})" if kept else "", tone, shape, kept, cost, unit, records)

    dense = [t for t in trials if t.origin == DENSE]
    groups = (
        group("infeasible", "vermilion", "cross", lambda t: not t.feasible),
        group("dominated", "grey", "ring", lambda t: t.feasible and t.number not in on_front and t.origin not in rule),
        group("baseline", "green", "triangle", lambda t: t.feasible and t.number not in on_front and t.origin in rule),
        group("front", "blue", "circle", lambda t: t.number in on_front),
        _points("dense" if dense else "", "orange", "diamond", dense, cost, unit, records),
    )
    steps = stairs([t for t in trials if t.number in on_front], lambda t: t.values[cost])
    line = Line([t.values[cost] / unit.factor for t in steps], [_drop(t, scores) for t in steps], "blue", step=True)
    labels = [
        Label(t.values[cost] / unit.factor, _drop(t, scores), ", ".join(chosen.titles(t)), above=t is chosen.fastest)
        for t in chosen.trials()
        if cost in t.values and DROP in t.values
    ]
    title = f"Accuracy drop against {METRICS[cost].title}; down and left is better"
    return draw(Chart(title, unit.title, _drop_title(scores), groups, [line], labels))


def layers_picture(records: RunRecords) -> str | None:
    """Draw what each pick keeps of each changed layer, in model order; None where no pick changes a layer.

    A bar is the share of output channels kept times the share of the remaining weights that is not zero. Of more than
    40 changed layers the 40 with the most dense channels are drawn.
    """
    chosen = picks(records)
    trials = chosen.trials()
    names = [n for n in dict.fromkeys(n for t in trials for n in t.layers) if any(is_changed(t, n) for t in trials)]
    if not names:
        return None
    if len(names) > _MOST_LAYERS:
        widest = sorted(names, key=lambda n: -max(t.layers[n].dense_channels for t in trials if n in t.layers))
        kept = set(widest[:_MOST_LAYERS])
        names = [name for name in names if name in kept]

    def share(trial: TrialRecord, name: str) -> float | None:
        layer = trial.layers.get(name)
        return None if layer is None else layer.channels / layer.dense_channels * (1 - layer.weight_sparsity)

    tones: tuple[Tone, ...] = ("green", "blue", "vermilion")
    series = [
        (f"{', '.join(chosen.titles(t))} (trial {t.number})", tone, [share(t, name) for name in names])
        for t, tone in zip(trials, tones, strict=False)
    ]
    return draw_bars(Bars("Share of each layer that the picks keep", names, series))


def hypervolume_picture(records: RunRecords) -> str | None:
    """Draw the hypervolume after each trial; None where there is no reference point or there are under two trials."""
    history = hypervolume_history(records)
    if len(history) < 2:
        return None
    numbers = [float(n) for n in sorted(trial.number for trial in records.trials)]
    line = Line(numbers, history, "green", step=True)
    title = "Hypervolume over trials; up is better"
    return draw(Chart(title, "trial", "hypervolume", (), [line], height=300, from_zero=True))


def predicted_picture(records: RunRecords) -> str | None:
    """Draw measured latency over predicted latency; None where fewer than two trials have both."""
    trials = predicted_pairs(records)
    if len(trials) < 2:
        return None
    pairs = [(t.prediction.ms, t.latency.ms) for t in trials if t.prediction is not None and t.latency is not None]
    ends = [min(min(pair) for pair in pairs), max(max(pair) for pair in pairs)]
    group = Points(
        "", [a for a, _ in pairs], [b for _, b in pairs], "blue", "circle", [f"trial {t.number}" for t in trials]
    )
    exact = Line(ends, ends, "grey", name="equal", dashed=True)
    return draw(Chart("Predicted against measured latency", "predicted (ms)", "measured (ms)", [group], [exact]))


def devices_picture(records: RunRecords) -> str | None:
    """Draw the front of each further device as accuracy drop over latency relative to dense there; None without one."""
    fronts = device_fronts(records)[:_MOST_DEVICES]
    if not fronts or DROP not in records.study.spec.objectives:
        return None
    scores = ScoreFormat.of(records.study)
    groups, lines = [], []
    for device, tone in zip(fronts, _TONES, strict=False):
        best = stairs(device.front, device.ratio)
        xs, ys = [device.ratio(t) for t in best], [_drop(t, scores) for t in best]
        lines.append(Line(xs, ys, tone, step=True))
        groups.append(Points(plain(device.key, 32), xs, ys, tone, "circle", [f"trial {t.number}" for t in best]))
    title = "Best accuracy drop for a latency, each device against its own dense model"
    return draw(Chart(title, "latency / dense latency there", _drop_title(scores), groups, lines))


@dataclass(frozen=True)
class Axis:
    """How a cost is written along an axis: its title, and what values are divided by."""

    title: str
    factor: float


def axis(metric: str, values: Sequence[float]) -> Axis:
    """Return the axis of a metric whose values are ``values``, with a decimal prefix where they are counts or bytes."""
    known = METRICS[metric]
    if known.unit not in ("", "B"):
        return Axis(f"{known.title} ({known.unit})", 1.0)
    for factor, prefix in _PREFIXES:
        if max(values) >= factor:
            return Axis(f"{known.title} ({prefix}{known.unit})", factor)
    return Axis(f"{known.title} ({known.unit})" if known.unit else known.title, 1.0)


def _points(
    name: str, tone: Tone, shape: Any, trials: Sequence[TrialRecord], cost: str, unit: Axis, records: RunRecords
) -> Points:
    scores, dense = ScoreFormat.of(records.study), dense_trial(records)

    def told(trial: TrialRecord) -> str:
        base = dense.values.get(cost) if dense else None
        share = f" ({trial.values[cost] / base:.0%} of dense)" if base and trial.origin != DENSE else ""
        drop, value = scores.drop(trial.values[DROP]), scores.metric(cost, trial.values[cost])
        return f"trial {trial.number}: drop {drop}, {value}{share}"

    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    if cost == "latency_ms" and name:
        spans = [_span(trial) for trial in trials]
        low, high = tuple(a / unit.factor for a, _ in spans), tuple(b / unit.factor for _, b in spans)
    return Points(
        name,
        [t.values[cost] / unit.factor for t in trials],
        [_drop(t, scores) for t in trials],
        tone,
        shape,
        [told(t) for t in trials] if len(trials) <= _MOST_TITLES else (),
        low if tone == "blue" else (),
        high if tone == "blue" else (),
    )


def _span(trial: TrialRecord) -> tuple[float, float]:
    latency, value = trial.latency, trial.values["latency_ms"]
    if latency is None or not latency.ratio:
        return value, value
    return value * latency.ratio_low / latency.ratio, value * latency.ratio_high / latency.ratio


def _drop(trial: TrialRecord, scores: ScoreFormat) -> float:
    return trial.values[DROP] * (100 if scores.percent else 1)


def _drop_title(scores: ScoreFormat) -> str:
    return "accuracy drop (pp)" if scores.percent else "accuracy drop"
