"""The same trials on further devices: a front for each, and where the ranking changes."""

from __future__ import annotations

from collections.abc import Mapping

from autoprune.ranks import ranks
from autoprune.results.formats import ScoreFormat, plain
from autoprune.results.other_devices import device_table, ranking_table
from autoprune.results.page.figure import Axis, Figure, Point, Series
from autoprune.results.page.part import Part
from autoprune.spec.front import DENSE, DROP, candidates
from autoprune.spec.record import RunRecords, TrialRecord

_NAME = 60
_LINES = 10


def elsewhere(records: RunRecords) -> Part:
    """Return the fronts on every device that the trials were costed on."""
    title = ""
    trials = [t for t in candidates(records) if t.devices and t.origin != DENSE and t.latency is not None]
    if not trials:
        return Part(
            title,
            absent="The trials were costed on one device. Name others under devices: in study.yaml, or see the dense "
            "model alone there with autoprune profile STUDY.yaml --devices NAME,NAME.",
        )
    names = list(dict.fromkeys(name for t in trials for name in t.devices or {}))
    titles = records.study.devices or {}
    whole = [t for t in trials if all(name in (t.devices or {}) for name in names)]
    home = records.study.spec.device
    ratios: dict[str, dict[int, float]] = {home: {t.number: t.latency.ratio for t in trials if t.latency}}
    for name in names:
        ratios[name] = {t.number: (t.devices or {})[name].ratio for t in trials if name in (t.devices or {})}
    shown = {home: records.study.device_title} | {name: titles.get(name, name) for name in names}
    figures = [_fronts(records, trials, ratios, shown)]
    if len(whole) > 2:
        figures.append(_ranking(whole, ratios, shown))
    return Part(
        title,
        "Ratios to the dense model on each device; a modelled one ranks, it does not promise.",
        figures=tuple(figure for figure in figures if figure is not None),
        tables=tuple(table for table in (device_table(records), ranking_table(records)) if table is not None),
    )


def _fronts(
    records: RunRecords,
    trials: list[TrialRecord],
    ratios: Mapping[str, Mapping[int, float]],
    shown: Mapping[str, str],
) -> Figure | None:
    scores = ScoreFormat.of(records.study)
    factor = 100 if scores.percent else 1
    series = []
    for color, (name, found) in enumerate(ratios.items()):
        points, least = [], float("inf")
        known = [t for t in trials if t.number in found and DROP in t.values]
        for trial in sorted(known, key=lambda t: (found[t.number], t.values[DROP], t.number)):
            if trial.values[DROP] < least:
                least = trial.values[DROP]
                points.append(
                    Point(
                        found[trial.number],
                        least * factor,
                        f"config {trial.number} on {plain(shown[name], _NAME)}",
                        big=True,
                    )
                )
        series.append(Series(plain(shown[name], 40), color % 8, "steps", tuple(points)))
    if not any(one.points for one in series):
        return None
    return Figure(
        "devices-fronts",
        "A front for each device",
        f"Accuracy drop over the latency ratio to dense on {len(ratios)} devices.",
        Axis("latency / dense", "%"),
        Axis("accuracy drop (pp)" if scores.percent else "accuracy drop"),
        tuple(series),
        note="Further left for the same drop: pruning pays more there.",
    )


def _ranking(trials: list[TrialRecord], ratios: Mapping[str, Mapping[int, float]], shown: Mapping[str, str]) -> Figure:
    devices = list(ratios)
    order = sorted(trials, key=lambda t: (ratios[devices[0]][t.number], t.number))
    step = max(1, -(-len(order) // _LINES))
    chosen = order[::step]
    place = {name: ranks([ratios[name][t.number] for t in chosen]) for name in devices}
    series = tuple(
        Series(
            "",
            i % 8,
            "line",
            tuple(
                Point(
                    float(x),
                    float(len(chosen) - place[name][i]),
                    f"config {t.number}: {ratios[name][t.number]:.2f}× dense",
                    big=True,
                )
                for x, name in enumerate(devices)
            ),
        )
        for i, t in enumerate(chosen)
    )
    note = "Lines that cross: the order of two configs by latency is another one there."
    if step > 1:
        note += f" Every {step}th of {len(order)} feasible configs."
    return Figure(
        "devices-ranking",
        "Where the ranking changes",
        f"Places by latency of {len(chosen)} configs on {len(devices)} devices; the fastest is on top.",
        Axis("", names=tuple(plain(shown[name], 40) for name in devices)),
        Axis("place by latency", names=tuple(str(place) for place in range(len(chosen), 0, -1))),
        series,
        note=note,
    )
