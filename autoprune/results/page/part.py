"""A part of the page: figures, tables and sentences under one heading, or the sentence that says why there are none."""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.results.page.figure import Figure
from autoprune.results.table import Table


@dataclass(frozen=True)
class HeatCell:
    """One cell of a heat map.

    Attributes:
        text: What stands in it.
        level: 0 to 6, the strength of its tint; "g" where the choice gains.
        title: More of it, for the pointer.
    """

    text: str
    level: int | str = ""
    title: str = ""


@dataclass(frozen=True)
class Heat:
    """A heat map, which is a table.

    Attributes:
        caption: One line over it.
        head: Title of the rows.
        columns: Titles of the columns.
        rows: (name, cells).
    """

    caption: str
    head: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[HeatCell, ...]], ...]


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        title: Heading.
        note: What to read in it.
        figures: Drawn by the script.
        tables: Tables.
        heats: Heat maps.
        absent: Why it is empty and how to fill it; "" where it is not.
    """

    title: str
    note: str = ""
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    heats: tuple[Heat, ...] = ()
    absent: str = ""

    @property
    def wide(self) -> bool:
        """Whether it needs the whole width of the page."""
        return bool(self.tables or self.heats or len(self.figures) > 1)

    @property
    def beside(self) -> bool:
        """Whether its one figure and its small tables stand side by side."""
        return len(self.figures) == 1 and bool(self.tables) and all(len(t.columns) <= 4 for t in self.tables)
