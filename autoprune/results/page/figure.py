"""Figures as data: axes, series and marks, which the page's script draws for the theme and the width at hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from autoprune.results.formats import plain

Shape = Literal["points", "line", "steps", "bars"]
TEXT = 120


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        title: What it shows.
        unit: Unit after each number; "%" for fractions, "B" and "" with decimal prefixes.
        log: Logarithmic.
        zero: Starts at 0.
        names: In the place of numbers: a name for each of the values 0, 1, 2, ...
    """

    title: str
    unit: str = ""
    log: bool = False
    zero: bool = False
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Point:
    """One value.

    Attributes:
        x: Across.
        y: Up.
        text: Its name; where it is not empty, the pointer and the keyboard find the point and tell its values.
        low: Lower end of its interval in y; likewise.
        high: Upper end.
        big: Stands out.
    """

    x: float
    y: float
    text: str = ""
    low: float | None = None
    high: float | None = None
    big: bool = False


@dataclass(frozen=True)
class Series:
    """Values of one kind.

    Attributes:
        name: In the legend; "" for none.
        color: Index in the palette of eight, or "muted".
        shape: How they are drawn.
        points: The values.
        mark: Of points: "circle", "ring", "cross", "diamond", "square", "triangle".
    """

    name: str
    color: int | Literal["muted"]
    shape: Shape
    points: Sequence[Point]
    mark: str = "circle"


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        key: Stable id in the page.
        title: Its caption.
        description: What it shows, for those who do not see it.
        x: Axis across.
        y: Axis up; of bars, the names stand here, and bars lie.
        series: What is drawn.
        diagonal: Draw the line y = x, and beside it those of so many times as much and as little; None for none.
        note: A sentence below.
    """

    key: str
    title: str
    description: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    diagonal: float | None = None
    note: str = ""

    def to_data(self) -> dict[str, Any]:
        """Return what the script reads; values that are not finite are left out."""
        return {
            "key": self.key,
            "x": _axis(self.x),
            "y": _axis(self.y),
            "diagonal": self.diagonal,
            "series": [
                {
                    "name": plain(series.name, TEXT),
                    "color": series.color,
                    "shape": series.shape,
                    "mark": series.mark,
                    "points": [
                        [
                            rounded(p.x),
                            rounded(p.y),
                            plain(p.text, 400),
                            rounded(p.low),
                            rounded(p.high),
                            int(p.big),
                        ]
                        for p in series.points
                        if math.isfinite(p.x) and math.isfinite(p.y)
                    ],
                }
                for series in self.series
            ],
        }


def rounded(value: float | None, digits: int = 6) -> float | int | None:
    """Return a number with ``digits`` significant digits, as an integer where it is one; None where it is not finite.

    A page shows three digits; six keep it small and every order as it is.
    """
    if value is None or not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def _axis(axis: Axis) -> dict[str, Any]:
    return {
        "title": axis.title,
        "unit": axis.unit,
        "log": axis.log,
        "zero": axis.zero,
        "names": [plain(name, TEXT) for name in axis.names],
    }
