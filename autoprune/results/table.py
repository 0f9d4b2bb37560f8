"""Tables of trials as plain rows of text, and how terminal and Markdown draw them; HTML is drawn by the template."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from autoprune.results.formats import MISSING, ScoreFormat, interval, number, percent, plain
from autoprune.results.picks import picks
from autoprune.spec.front import DENSE, WARM, dense_trial, front
from autoprune.spec.objectives import METRICS
from autoprune.spec.record import RunRecords, TrialRecord


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: What stands in it.
        detail: Second thought in smaller print (a share of dense, an interval).
        href: Relative link of ``text``.
        relative: The value as a share of dense, for where there is room for one number only.
    """

    text: str
    detail: str = ""
    href: str = ""
    relative: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.detail})" if self.detail else self.text


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        title: Its heading.
        numeric: Aligned right.
        note: What the cells' details are.
        wide: Left out where there is little room: other columns imply it, or it can be missed.
    """

    title: str
    numeric: bool = True
    note: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Row:
    """One row; ``kind`` says how it stands out."""

    cells: tuple[Cell, ...]
    kind: Literal["dense", "pick", "total", ""] = ""


@dataclass(frozen=True)
class Table:
    """A table of text, ready to be drawn.

    Attributes:
        caption: One line over it.
        columns: Its columns; the first one heads the rows.
        rows: Its rows, each with as many cells as there are columns.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


def front_table(records: RunRecords, link: Callable[[TrialRecord], str] | None = None) -> Table:
    """Return the dense model and the front, ordered by accuracy drop, then by number."""
    return trial_table(records, front(records), "Front: feasible trials that no other one dominates", link)


def picks_table(records: RunRecords, link: Callable[[TrialRecord], str] | None = None) -> Table:
    """Return the dense model and the three picks, in the order no loss, knee, fastest."""
    return trial_table(records, picks(records).trials(), "The dense model and the picks", link, keep_order=True)


def baseline_table(records: RunRecords) -> Table | None:
    """Return the trials that no sampler proposed: uniform and published allocations; None where there are none."""
    sampler = records.study.spec.search.sampler
    searched = (DENSE, sampler, WARM)
    trials = [t for t in records.trials if t.origin not in searched and t.state == "complete"]
    if not trials:
        return None
    trials.sort(key=lambda t: (t.origin, -t.values.get("macs", 0.0), t.number))
    caption = "Baselines: one rule for the whole network, on the grid of the space"
    return trial_table(records, trials, caption, keep_order=True, origins=True)


def trial_table(
    records: RunRecords,
    trials: Sequence[TrialRecord],
    caption: str,
    link: Callable[[TrialRecord], str] | None = None,
    *,
    keep_order: bool = False,
    origins: bool = False,
) -> Table:
    """Return the dense model, then ``trials``, one row each.

    Args:
        records: The run that the trials are of.
        trials: Trials of the run; the dense trial comes first whether or not it is among them.
        caption: Caption of the table.
        link: Gives the relative link of a trial's number; "" for none.
        keep_order: Keep the order of ``trials`` rather than sort by accuracy drop.
        origins: Say beside the number who proposed the trial.

    Returns:
        A table; a column that no row fills is left out.
    """
    dense, chosen = dense_trial(records), picks(records)
    rest = [trial for trial in trials if dense is None or trial.number != dense.number]
    if not keep_order:
        rest.sort(key=lambda t: (t.values.get("accuracy_drop", float("inf")), t.number))
    shown = [*([dense] if dense else []), *rest]
    drawn = [(column, [cell(trial) for trial in shown]) for column, cell in _columns(records, dense)]
    filled = [(column, cells) for column, cells in drawn if any(cell.text != MISSING for cell in cells)]

    def first(trial: TrialRecord) -> Cell:
        href = link(trial) if link else ""
        if trial.origin == DENSE:
            return Cell(DENSE, "" if trial.feasible else _broken(trial), href)
        precision = trial.config.precision if trial.config is not None else "fp32"
        int8 = [precision] if precision != "fp32" and not (origins and trial.origin == precision) else []
        said = (*([trial.origin] if origins else []), *int8, *chosen.titles(trial), _broken(trial))
        return Cell(str(trial.number), ", ".join(filter(None, said)), href)

    rows = [
        Row(
            (first(trial), *(cells[i] for _, cells in filled)),
            "dense" if trial.origin == DENSE else "pick" if chosen.titles(trial) else "",
        )
        for i, trial in enumerate(shown)
    ]
    return Table(
        caption,
        (Column("trial", numeric=False, note="rule" if origins else "pick"), *(column for column, _ in filled)),
        tuple(rows),
    )


def in_several_precisions(records: RunRecords) -> bool:
    """Say whether a trial of the run is shipped in another number format than the dense model."""
    return any(trial.config is not None and trial.config.precision != "fp32" for trial in records.trials)


def to_markdown(table: Table) -> str:
    """Return a GitHub table; text of users is escaped."""
    lines = [
        "| " + " | ".join(escape_markdown(column.title) for column in table.columns) + " |",
        "|" + "|".join("--:" if column.numeric else ":--" for column in table.columns) + "|",
    ]
    for row in table.rows:
        cells = []
        for cell in row.cells:
            text = escape_markdown(cell.text)
            text = f"[{text}]({cell.href})" if cell.href else text
            cells.append(f"{text} ({escape_markdown(cell.detail)})" if cell.detail else text)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


_SHORT = 14
"""Most letters of a text that is never broken."""

_WIDE = 130
"""Columns of a terminal that has room for everything."""

_FEWEST = 2
"""Columns that stay on however narrow a terminal."""


def to_rich(table: Table, width: int = 160) -> RichTable:
    """Return a terminal table; nothing in it is read as markup.

    Args:
        table: What to draw.
        width: Columns of the terminal. Where they are too few, or below 130, a cell shows its share of dense alone,
            where it has one, without detail, and columns that are for wide tables are left out; so are the last ones,
            where even so a number would lose its unit, and the caption says how many.
    """
    if width >= _WIDE:
        drawn = _drawn(table, range(len(table.columns)), narrow=False)
        if _least_width(drawn) <= width:
            return drawn
    shown = [i for i, column in enumerate(table.columns) if not column.wide]
    drawn, every = _drawn(table, shown, narrow=True), len(shown)
    while len(shown) > _FEWEST and _least_width(drawn) > width:
        shown.pop()
        drawn = _drawn(table, shown, narrow=True)
        more = every - len(shown)
        drawn.title = Text(f"{table.caption} ({more} more column{'s' if more > 1 else ''} where there is room)")
    return drawn


def _least_width(drawn: RichTable) -> int:
    console = Console(width=10_000, file=io.StringIO())
    return Measurement.get(console, console.options, drawn).minimum


def _drawn(table: Table, shown: Sequence[int], narrow: bool) -> RichTable:
    out = RichTable(
        title=Text(table.caption), title_justify="left", header_style="bold", pad_edge=False, box=box.SIMPLE_HEAD
    )
    columns = []
    for place in shown:
        column, cells = table.columns[place], [row.cells[place] for row in table.rows]
        texts = [Text(cell.relative or cell.text if narrow else cell.text) for cell in cells]
        details = [cell.detail if place == 0 or not narrow else "" for cell in cells]
        # Where there is little room texts go on in the next line, so that no number loses digits or its unit.
        longest = max((len(cell.text) for cell in cells), default=0)
        whole = column.numeric or (longest <= _SHORT and not any(details))
        for text, detail in zip(texts, details, strict=True):
            if detail:
                text.append(f" ({detail})", style="dim")
        out.add_column(
            Text(column.title),
            justify="right" if column.numeric else "left",
            no_wrap=whole,
            overflow="fold",
            min_width=max(text.cell_len for text in [Text(column.title), *texts]) if whole else None,
        )
        columns.append(texts)
    for row, texts_of_row in zip(table.rows, zip(*columns, strict=True), strict=True):
        out.add_row(*texts_of_row, style="bold" if row.kind in ("dense", "total") else None)
    return out


def escape_markdown(text: str) -> str:
    """Return ``text`` on one line so that Markdown and the HTML inside it show it as it is."""
    flat = " ".join(plain(text).split())
    for mark in "\\`*_[]|~#":
        flat = flat.replace(mark, "\\" + mark)
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


Render = Callable[[TrialRecord], Cell]


def _columns(records: RunRecords, dense: TrialRecord | None) -> list[tuple[Column, Render]]:
    study, scores = records.study, ScoreFormat.of(records.study)

    def share(name: str, trial: TrialRecord) -> str:
        base = dense.values.get(name) if dense and trial.origin != DENSE else None
        return percent(trial.values[name] / base) if base and name in trial.values else ""

    def plain_metric(name: str) -> Render:
        return lambda t: Cell(scores.metric(name, t.values.get(name)), share(name, t), relative=share(name, t))

    def drop(t: TrialRecord) -> Cell:
        return Cell(scores.drop(t.values.get("accuracy_drop")))

    def latency(t: TrialRecord) -> Cell:
        value = scores.metric("latency_ms", t.values.get("latency_ms"))
        if t.latency is None or t.origin == DENSE:
            return Cell(value)
        ratio, doubt = f"{t.latency.ratio:.2f}×", "" if t.latency.converged else " ?"
        return Cell(value, f"{ratio}, {interval(t.latency)}{doubt}", relative=ratio + doubt)

    def energy(t: TrialRecord) -> Cell:
        value = scores.metric("energy_mj", t.values.get("energy_mj"))
        spread = f"{number(t.energy.low_mj)}–{number(t.energy.high_mj)}" if t.energy else ""
        return Cell(value, spread, relative=share("energy_mj", t))

    listed: list[tuple[Column, Render]] = [
        (Column("score", wide=True), lambda t: Cell(scores.score(t.score))),
        (Column("drop"), drop),
        (Column("test score"), lambda t: Cell(scores.score(t.test_score))),
        (Column("MACs", note="share of dense"), plain_metric("macs")),
        (Column("latency", note="ratio, 95 % interval"), latency),
        (Column("energy", note="low–high"), energy),
        (Column("params", note="share of dense", wide=True), plain_metric("params")),
        (Column("size", note="share of dense"), plain_metric("size_bytes")),
    ]
    known = {"accuracy_drop", "macs", "latency_ms", "energy_mj", "params", "size_bytes"}
    for name in dict.fromkeys((*study.spec.objectives, *(bound.metric for bound in study.spec.bounds))):
        if name not in known and name in METRICS:
            listed.append((Column(METRICS[name].title, note="share of dense"), plain_metric(name)))
    return listed


def _broken(trial: TrialRecord) -> str:
    if trial.state != "complete":
        return trial.state
    return f"breaks {', '.join(sorted(trial.violations))}" if trial.violations else ""
