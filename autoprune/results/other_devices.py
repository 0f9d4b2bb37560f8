"""The same trials on further devices: a front for each, and where the ranking changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autoprune.pareto import nondominated
from autoprune.ranks import spearman
from autoprune.results.facts import NAME_LIMIT
from autoprune.results.formats import MISSING, ScoreFormat, number, plain
from autoprune.results.picks import picks
from autoprune.results.table import Cell, Column, Row, Table
from autoprune.spec.findings import DeviceValues
from autoprune.spec.front import DENSE, DROP, candidates, dense_trial, front
from autoprune.spec.record import RunRecords, TrialRecord

_MOST_TRIALS = 15


@dataclass(frozen=True)
class DeviceFront:
    """One further device and the front that the trials form there.

    Attributes:
        key: Device profile.
        title: Its human name.
        measured: Whether its latencies were measured there.
        front: Trials that no other dominates when latency and energy are the device's own, by number.
        only_here: Those of them that the study's front leaves out.
        missing: Trials of the study's front that are dominated here.
        agreement: Rank correlation of the trials' latencies with the study's device; NaN where there is no order.
        fastest: The pruned front trial with the lowest latency here; None where the front has none.
    """

    key: str
    title: str
    measured: bool
    front: tuple[TrialRecord, ...]
    only_here: tuple[int, ...]
    missing: tuple[int, ...]
    agreement: float
    fastest: TrialRecord | None

    def ratio(self, trial: TrialRecord) -> float:
        """Return a front trial's latency here, over that of the dense model here."""
        values = _on(trial, self.key)
        assert values is not None
        return values.ratio


def device_fronts(records: RunRecords) -> tuple[DeviceFront, ...]:
    """Return the front on each further device of the study, in the study's order; empty where none was asked for.

    Objectives that no device changes (drop, MACs, size) stay; latency and energy are those of the device. Only trials
    that are feasible in the study and were costed on the device take part.
    """
    titles = dict(records.study.devices or {})
    for trial in records.trials:
        for key in trial.devices or {}:
            titles.setdefault(key, key)
    return tuple(found for key, title in titles.items() if (found := _front_on(key, title, records)) is not None)


def device_table(records: RunRecords) -> Table | None:
    """Return each further device with what the picks gain there; None where there is none."""
    fronts = device_fronts(records)
    if not fronts:
        return None
    dense, chosen = dense_trial(records), picks(records)
    scores = ScoreFormat.of(records.study)
    rows = []
    for device in fronts:
        base = _on(dense, device.key) if dense is not None else None
        fastest = device.fastest
        drop = scores.drop(fastest.values.get(DROP)) if fastest is not None else ""
        rows.append(
            Row(
                (
                    Cell(plain(device.title, NAME_LIMIT), plain(device.key, NAME_LIMIT)),
                    Cell("measured" if device.measured else "modelled"),
                    Cell(f"{number(base.latency_ms)} ms" if base else MISSING),
                    *(_ratio_cell(_on(trial, device.key)) for trial in chosen.trials()),
                    Cell(str(fastest.number), drop) if fastest is not None else Cell(MISSING),
                    Cell(MISSING if math.isnan(device.agreement) else number(device.agreement, 2)),
                )
            )
        )
    columns = (
        Column("device", numeric=False),
        Column("latency is", numeric=False),
        Column("dense"),
        *(Column(f"trial {t.number}: {', '.join(chosen.titles(t))}", note="energy") for t in chosen.trials()),
        Column("fastest there", note="its drop"),
        Column("rank correlation"),
    )
    caption = (
        "The same trials on other devices: latency of the picks as a ratio to dense there, and how the order of "
        "latencies agrees with the study's device"
    )
    return Table(caption, columns, tuple(rows))


def ranking_table(records: RunRecords) -> Table | None:
    """Return the front on each further device and where it departs from the study's; None where there is none."""
    fronts = device_fronts(records)
    if not fronts:
        return None
    rows = tuple(
        Row(
            (
                Cell(plain(device.title, NAME_LIMIT)),
                Cell(str(len(device.front))),
                Cell(_numbers([t.number for t in device.front if t.origin != DENSE])),
                Cell(_numbers(device.only_here)),
                Cell(_numbers(device.missing)),
            )
        )
        for device in fronts
    )
    columns = (
        Column("device", numeric=False),
        Column("trials on its front"),
        Column("which", numeric=False),
        Column("only there", numeric=False),
        Column("no longer on the front", numeric=False),
    )
    return Table("Where the ranking changes: the front of each device against the study's front", columns, rows)


def _front_on(key: str, title: str, records: RunRecords) -> DeviceFront | None:
    trials = [t for t in candidates(records) if _on(t, key) is not None]
    if not trials:
        return None
    objectives = records.study.spec.objectives
    mask = nondominated([[_value(t, name, key) for name in objectives] for t in trials])
    best = tuple(t for t, stays in zip(trials, mask, strict=True) if stays)
    here = {t.number for t in best}
    there = {t.number for t in front(records)}
    costed = {t.number for t in trials}
    pruned = [t for t in best if t.origin != DENSE]
    both = [t for t in trials if "latency_ms" in t.values]
    return DeviceFront(
        key=key,
        title=title,
        measured=all(values.measured for t in trials if (values := _on(t, key)) is not None),
        front=best,
        only_here=tuple(sorted(here - there)),
        missing=tuple(sorted((there & costed) - here)),
        agreement=spearman([t.values["latency_ms"] for t in both], [_value(t, "latency_ms", key) for t in both]),
        fastest=min(
            pruned, key=lambda t: (_value(t, "latency_ms", key), t.values.get(DROP, 0.0), t.number), default=None
        ),
    )


def _on(trial: TrialRecord, key: str) -> DeviceValues | None:
    return (trial.devices or {}).get(key)


def _value(trial: TrialRecord, name: str, key: str) -> float:
    values = _on(trial, key)
    assert values is not None
    return {"latency_ms": values.latency_ms, "energy_mj": values.energy_mj}.get(name, trial.values.get(name, math.inf))


def _ratio_cell(values: DeviceValues | None) -> Cell:
    return Cell(MISSING) if values is None else Cell(f"{values.ratio:.2f}×", f"{number(values.energy_mj)} mJ")


def _numbers(numbers: Sequence[int]) -> str:
    shown = ", ".join(str(n) for n in numbers[:_MOST_TRIALS])
    return (shown + (f" and {len(numbers) - _MOST_TRIALS} more" if len(numbers) > _MOST_TRIALS else "")) or "none"
