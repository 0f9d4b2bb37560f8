"""Why the front looks as it does: what a choice costs in score, what was left out, what really pays on the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autoprune.results.facts import NAME_LIMIT
from autoprune.results.formats import MISSING, ScoreFormat, percent, plain
from autoprune.results.profile_tables import layer_table as module_table
from autoprune.results.profile_tables import payoff_table, staircase_table
from autoprune.results.table import Cell, Column, Row, Table
from autoprune.spec.findings import DamageRecord, DroppedChoice
from autoprune.spec.record import RunRecords, StudyRecord

_MOST_SPARSITIES = 6
_MOST_ROWS = 40
_MOST_NAMES = 6


@dataclass(frozen=True)
class Why:
    """Tables that explain a front; each is None where the search did not find it out.

    Attributes:
        damage: What single choices cost in score.
        dropped: Choices of the space that the search left out, with reasons.
        payoffs: Patterns that were tried on the device, with ratios; those that do not pay are refused as speed-ups.
        staircases: Widths at which a layer really gets faster.
        bottlenecks: Where the dense model's time goes.
    """

    damage: Table | None = None
    dropped: Table | None = None
    payoffs: Table | None = None
    staircases: Table | None = None
    bottlenecks: Table | None = None

    @property
    def tables(self) -> tuple[Table, ...]:
        """Those there are, in the order in which a reader asks."""
        listed = (self.damage, self.dropped, self.payoffs, self.staircases, self.bottlenecks)
        return tuple(table for table in listed if table is not None)

    @property
    def absent(self) -> str:
        """One sentence about what the records do not hold; empty where nothing is missing."""
        pairs = (
            (self.damage, "what single choices cost in score"),
            (self.payoffs, "which patterns pay on the device"),
            (self.staircases, "which widths are worth taking"),
        )
        lacking = [what for table, what in pairs if table is None]
        return f"This search did not measure {_either(lacking)}." if lacking else ""


def why(records: RunRecords) -> Why:
    """Return what the records hold of the reasons for the front."""
    study = records.study
    step = study.dense.channel_step if study.dense is not None else 1
    return Why(
        damage=damage_table(study),
        dropped=dropped_table(study.dropped or ()),
        payoffs=payoff_table(study.payoffs or (), step),
        staircases=staircase_table(study.staircases or ()),
        bottlenecks=module_table(study.dense, most=12) if study.dense is not None and study.dense.layers else None,
    )


def damage_table(study: StudyRecord) -> Table | None:
    """Return the estimated drop of each group or layer alone by sparsity, the most sensitive first.

    Of several criteria the one with the smallest drop is shown, by name. None where there is no damage table.
    """
    if not study.damage:
        return None
    rows: dict[tuple[str, str], dict[float, DamageRecord]] = {}
    for found in study.damage:
        cells = rows.setdefault((found.name, found.granularity), {})
        known = cells.get(found.sparsity)
        if known is None or (found.drop, found.criterion) < (known.drop, known.criterion):
            cells[found.sparsity] = found
    sparsities = _spread(sorted({sparsity for cells in rows.values() for sparsity in cells}))
    ranked = sorted(rows.items(), key=lambda pair: -max(found.drop for found in pair[1].values()))
    scores = ScoreFormat.of(study)
    criteria = {found.criterion for found in study.damage}
    drawn = tuple(
        Row(
            (
                Cell(plain(name, NAME_LIMIT)),
                Cell(plain(granularity, NAME_LIMIT)),
                *(_damage_cell(cells, sparsity, scores, len(criteria) > 1) for sparsity in sparsities),
            )
        )
        for (name, granularity), cells in ranked[:_MOST_ROWS]
    )
    left = f"; {len(ranked) - _MOST_ROWS} less sensitive ones are left out" if len(ranked) > _MOST_ROWS else ""
    columns = (
        Column("group or layer", numeric=False),
        Column("granularity", numeric=False),
        *(Column(percent(sparsity), note="criterion" if len(criteria) > 1 else "") for sparsity in sparsities),
    )
    caption = f"Estimated accuracy drop when this alone is pruned, by sparsity, the most sensitive first{left}"
    return Table(caption, columns, drawn)


def dropped_table(dropped: tuple[DroppedChoice, ...]) -> Table | None:
    """Return the choices of the space that were left out, those with one reason in one row; None where none was."""
    if not dropped:
        return None
    alike: dict[tuple[str, str, str], list[str]] = {}
    for choice in dropped:
        key = (choice.granularity, choice.criterion or "all", choice.reason)
        alike.setdefault(key, []).append(choice.name)
    shown = list(alike.items())
    rows = tuple(
        Row(
            (
                Cell(_names(names)),
                Cell(plain(granularity, NAME_LIMIT)),
                Cell(plain(criterion, NAME_LIMIT)),
                Cell(plain(reason, 300)),
            )
        )
        for (granularity, criterion, reason), names in shown[:_MOST_ROWS]
    )
    left = f"; {len(shown) - _MOST_ROWS} more rows are left out" if len(shown) > _MOST_ROWS else ""
    columns = (
        Column("group or layer", numeric=False),
        Column("granularity", numeric=False),
        Column("criterion", numeric=False),
        Column("reason", numeric=False),
    )
    return Table(f"Choices of the space that the search left out{left}", columns, rows)


def _damage_cell(cells: Mapping[float, DamageRecord], sparsity: float, scores: ScoreFormat, named: bool) -> Cell:
    found = cells.get(sparsity)
    if found is None:
        return Cell(MISSING)
    return Cell(scores.drop(found.drop), plain(found.criterion, NAME_LIMIT) if named else "")


def _spread(sparsities: list[float]) -> list[float]:
    """At most six of them, the ends among them."""
    if len(sparsities) <= _MOST_SPARSITIES:
        return sparsities
    last = len(sparsities) - 1
    return [sparsities[round(i * last / (_MOST_SPARSITIES - 1))] for i in range(_MOST_SPARSITIES)]


def _names(names: list[str]) -> str:
    shown = ", ".join(plain(name, NAME_LIMIT) for name in names[:_MOST_NAMES])
    return shown + (f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else "")


def _either(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} or {parts[-1]}"
