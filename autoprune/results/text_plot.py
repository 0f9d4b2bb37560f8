"""The front as characters, for a terminal: accuracy drop up, one cost to the right, the chosen trial marked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from autoprune.results.formats import ScoreFormat
from autoprune.results.pictures import axis
from autoprune.spec.front import DENSE, DROP, front
from autoprune.spec.record import RunRecords, TrialRecord

_HEIGHT = 14
_FEWEST_COLUMNS = 24
_MOST_COLUMNS = 100


@dataclass(frozen=True)
class _Kind:
    """One kind of point: later ones of the list cover earlier ones where they meet."""

    name: str
    mark: str
    ascii: str
    style: str


_KINDS = (
    _Kind("breaks a constraint", "×", "x", "red"),
    _Kind("dominated", "·", ".", "dim"),
    _Kind("front", "●", "o", "blue"),
    _Kind("dense", "◆", "D", "yellow"),
    _Kind("chosen", "★", "@", "bold green"),
)


def front_in_text(
    records: RunRecords, chosen: TrialRecord, cost: str | None = None, width: int = 80, *, unicode: bool = True
) -> Text | None:
    """Draw every complete trial as a character, accuracy drop against one cost.

    Args:
        records: A run.
        chosen: The trial that is marked.
        cost: Metric to the right; left out: latency where it is an objective, else the first cost.
        width: Columns of the terminal; the drawing takes at most 100 and, beside its numbers, at least 24.
        unicode: Whether marks beyond ASCII may be used.

    Returns:
        Lines with styles, which a console without colour leaves out; None where fewer than two trials have both
        numbers.
    """
    objectives = [name for name in records.study.spec.objectives if name != DROP]
    if cost is None or cost == DROP:
        cost = "latency_ms" if "latency_ms" in objectives else next(iter(objectives), None)
    if cost is None:
        return None
    trials = [
        trial
        for trial in records.trials
        if trial.state == "complete" and all(math.isfinite(trial.values.get(name, math.nan)) for name in (cost, DROP))
    ]
    if len(trials) < 2:
        return None
    scores, unit = ScoreFormat.of(records.study), axis(cost, [t.values[cost] for t in trials])
    xs = [t.values[cost] / unit.factor for t in trials]
    ys = [t.values[DROP] * (100 if scores.percent else 1) for t in trials]
    left, right, bottom, top = min(xs), max(xs), min(ys), max(ys)
    numbers = {0: _short(top), _HEIGHT - 1: _short(bottom)}
    margin = max(len(number) for number in numbers.values())
    columns = max(_FEWEST_COLUMNS, min(width, _MOST_COLUMNS) - margin - 3)
    best = {t.number for t in front(records)}
    cells: dict[tuple[int, int], int] = {}
    for trial, x, y in zip(trials, xs, ys, strict=True):
        place = (_place(y, top, bottom, _HEIGHT), _place(x, left, right, columns))
        cells[place] = max(cells.get(place, -1), _kind(trial, chosen, best))
    out = Text(no_wrap=True)
    out.append(f"{'accuracy drop (pp)' if scores.percent else 'accuracy drop'}, up; {unit.title}, right\n", style="dim")
    wall, corner, floor = ("│", "└", "─") if unicode else ("|", "+", "-")
    for row in range(_HEIGHT):
        out.append(f"{numbers.get(row, ''):>{margin}} {wall}")
        for column in range(columns):
            kind = cells.get((row, column))
            if kind is None:
                out.append(" ")
            else:
                out.append(_mark(kind, unicode), style=_KINDS[kind].style)
        out.append("\n")
    out.append(f"{'':>{margin}} {corner}{floor * columns}\n")
    ends = _short(left), _short(right)
    out.append(f"{'':>{margin}}  {ends[0]}{ends[1]:>{max(columns - len(ends[0]), 1)}}\n")
    out.append_text(_legend(sorted(set(cells.values())), chosen, unicode, width))
    return out


def _kind(trial: TrialRecord, chosen: TrialRecord, best: set[int]) -> int:
    if trial.number == chosen.number:
        return len(_KINDS) - 1
    if trial.origin == DENSE:
        return 3
    return 2 if trial.number in best else 1 if trial.feasible else 0


def _place(value: float, first: float, last: float, cells: int) -> int:
    return 0 if first == last else round((value - first) / (last - first) * (cells - 1))


def _mark(kind: int, unicode: bool) -> str:
    return _KINDS[kind].mark if unicode else _KINDS[kind].ascii


def _legend(kinds: Sequence[int], chosen: TrialRecord, unicode: bool, width: int) -> Text:
    out, used = Text(), 0
    for kind in reversed(kinds):
        name = f"trial {chosen.number}, chosen" if kind == len(_KINDS) - 1 else _KINDS[kind].name
        room = len(name) + 2
        if used and used + 3 + room > width:
            out.append("\n")
            used = 0
        elif used:
            out.append("   ")
            used += 3
        out.append(_mark(kind, unicode), style=_KINDS[kind].style)
        out.append(f" {name}")
        used += room
    return out


def _short(value: float) -> str:
    return f"{value:.4g}"
