"""``report.md``: the report as GitHub Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from autoprune.results.content import content
from autoprune.results.pictures import Picture, pictures
from autoprune.results.templating import template
from autoprune.spec.record import RunRecords


def render_markdown(records: RunRecords, drawn: Sequence[Picture] | None = None) -> str:
    """Return the report as GitHub Markdown.

    Args:
        records: A run.
        drawn: Its plots, files beside the text; left out: :func:`autoprune.results.pictures.pictures` of the run.
    """
    drawn = pictures(records) if drawn is None else drawn
    shown = {section: [p for p in drawn if p.section == section] for section in ("front", "layers", "trust", "devices")}
    return template("report.md.j2").render(**content(records), pictures=shown)
