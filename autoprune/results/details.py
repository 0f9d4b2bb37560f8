"""Tables behind the front: each layer, groups and pins, energy beside its baselines, failures, wall time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from autoprune.results.facts import NAME_LIMIT, measured, tally
from autoprune.results.formats import MISSING, count, number, percent, plain, seconds
from autoprune.results.picks import picks
from autoprune.results.table import Cell, Column, Row, Table
from autoprune.spec.front import dense_trial
from autoprune.spec.record import RunRecords, Timings, TrialRecord


@dataclass(frozen=True)
class Failure:
    """A trial that crashed.

    Attributes:
        number: Its number.
        last_line: Last line of its traceback.
        text: All of it.
    """

    number: int
    last_line: str
    text: str


def layer_table(records: RunRecords) -> Table | None:
    """Return what the picks do to each layer: channels kept, zeros among its weights, granularity and criterion.

    Layers that no pick changes are left out and counted in the caption; None where there is no pick.
    """
    trials = picks(records).trials()
    if not trials:
        return None
    chosen = picks(records)
    names = list(dict.fromkeys(name for trial in trials for name in trial.layers))
    changed = [name for name in names if any(is_changed(trial, name) for trial in trials)]
    owner = {layer: group for group, record in records.study.groups.items() for layer in record.layers}
    rows = [
        Row((Cell(plain(name, NAME_LIMIT)), *(_layer_cell(trial, name, owner.get(name, name)) for trial in trials)))
        for name in changed
    ]
    same = len(names) - len(changed)
    left = f"; {same} unchanged layers are left out" if same else ""
    heads = [Column(f"trial {t.number}: {', '.join(chosen.titles(t))}", numeric=False) for t in trials]
    caption = f"Output channels kept of the dense layer's, and how, for each pick{left}"
    return Table(caption, (Column("layer", numeric=False), *heads), tuple(rows))


def is_changed(trial: TrialRecord, name: str) -> bool:
    """Whether a trial removed channels or weights of a layer."""
    layer = trial.layers.get(name)
    return layer is not None and (layer.channels != layer.dense_channels or layer.weight_sparsity > 0)


def energy_table(records: RunRecords) -> Table | None:
    """Return the energy estimate of dense and picks beside its two baselines; None where no energy was modelled."""
    dense = dense_trial(records)
    trials = [t for t in ((dense,) if dense else ()) + picks(records).trials() if t.energy is not None]
    if not trials:
        return None
    heads = (
        "trial",
        "estimate",
        "range",
        "MACs-only baseline",
        "time-only baseline",
        "time part",
        "arithmetic part",
        "memory part",
    )
    rows = []
    for trial in trials:
        e = trial.energy
        assert e is not None
        parts = (e.macs_only_mj, e.time_only_mj, e.time_mj, e.compute_mj, e.memory_mj)
        texts = [number(e.mj), f"{number(e.low_mj)}–{number(e.high_mj)}", *(number(part) for part in parts)]
        rows.append(Row((Cell("dense" if trial is dense else str(trial.number)), *(Cell(text) for text in texts))))
    columns = tuple(Column(head, numeric=i > 0) for i, head in enumerate(heads))
    return Table(
        "Modelled energy of one run in mJ, beside dense energy scaled by MACs alone and by latency alone",
        columns,
        tuple(rows),
    )


def group_table(records: RunRecords) -> Table | None:
    """Return the groups that the graph found; None where there is none."""
    groups = records.study.groups
    if not groups:
        return None
    rows = [
        Row(
            (Cell(plain(name, NAME_LIMIT)), Cell(count(g.units)), Cell(str(len(g.layers))), Cell(_short_list(g.layers)))
        )
        for name, g in groups.items()
    ]
    columns = (Column("group", numeric=False), Column("units"), Column("layers"), Column("which", numeric=False))
    return Table("Groups: layers that lose the same channels together", columns, tuple(rows))


def pinned_table(records: RunRecords) -> Table | None:
    """Return the layers whose channels stay, by reason; None where there is none."""
    pinned = records.study.pinned
    if not pinned:
        return None
    rows = [
        Row((Cell(plain(reason)), Cell(str(len(names))), Cell(_short_list(names))))
        for reason, names in sorted(pinned.items())
    ]
    columns = (Column("reason", numeric=False), Column("layers"), Column("which", numeric=False))
    return Table("Pinned: layers whose channels were left alone", columns, tuple(rows))


def timings_table(records: RunRecords) -> Table | None:
    """Return the median seconds of each part of a complete trial; None where no trial is complete."""
    trials = measured(records)
    if not trials:
        return None
    total = sum(t.timings.total_s for t in trials)
    rows = []
    for field in Timings.model_fields:
        values = [float(getattr(t.timings, field)) for t in trials]
        if not any(values):
            continue
        share = percent(sum(values) / total) if total else MISSING
        rows.append(
            Row(
                (Cell(field.removesuffix("_s")), Cell(seconds(median(values))), Cell(seconds(sum(values))), Cell(share))
            )
        )
    middle = median(t.timings.total_s for t in trials)
    rows.append(Row((Cell("whole trial"), Cell(seconds(middle)), Cell(seconds(total)), Cell("")), "total"))
    columns = (Column("part", numeric=False), Column("median of a trial"), Column("all trials"), Column("share"))
    return Table(f"Wall time of {len(trials)} complete trials", columns, tuple(rows))


def failures(records: RunRecords) -> tuple[Failure, ...]:
    """Return the failed trials with their tracebacks, by number."""
    out = []
    for trial in sorted(records.trials, key=lambda t: t.number):
        if trial.state == "failed":
            text = plain(trial.error or "no reason was recorded").strip()
            out.append(Failure(trial.number, plain(text.splitlines()[-1] if text else "", 200), text))
    return tuple(out)


def stopped(records: RunRecords) -> tuple[tuple[str, int], ...]:
    """Return (reason, count) of the trials that were stopped early, most frequent first."""
    reasons = ((t.error or "stopped early", t.rungs) for t in records.trials if t.state == "pruned")
    # What stopped a trial on a rung holds its numbers, so no two are alike: they count by rung.
    return tally(plain(text.partition(": ")[0] if rungs else text, 200) for text, rungs in reasons)


def _layer_cell(trial: TrialRecord, name: str, group: str) -> Cell:
    layer = trial.layers.get(name)
    if layer is None:
        return Cell(MISSING)
    zeros = f", {percent(layer.weight_sparsity)} of weights zero" if layer.weight_sparsity > 0 else ""
    kept = f"{layer.channels} of {layer.dense_channels}{zeros}" if layer.channels else "gone with its block"
    layers = trial.config.layers if trial.config else {}
    choices = [c for key in dict.fromkeys((group, name)) for c in layers.get(key, ()) if c.fraction > 0]
    return Cell(kept, "; ".join(plain(f"{c.granularity}, {c.criterion}", NAME_LIMIT) for c in choices))


def _short_list(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(plain(name, NAME_LIMIT) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
