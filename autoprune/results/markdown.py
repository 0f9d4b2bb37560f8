"""``report.md``: the report as GitHub Markdown."""

from __future__ import annotations

from autoprune.results.content import content
from autoprune.results.pictures import pictures
from autoprune.results.templating import template
from autoprune.spec.record import RunRecords


def render_markdown(records: RunRecords) -> str:
    """Return the report as GitHub Markdown; its plots are the files of :func:`autoprune.results.pictures.pictures`."""
    drawn = pictures(records)
    shown = {section: [p for p in drawn if p.section == section] for section in ("front", "layers", "trust", "devices")}
    return template("report.md.j2").render(**content(records), pictures=shown)
