"""``report.md``: the report as GitHub Markdown."""

from __future__ import annotations

from autoprune.results.content import content
from autoprune.results.templating import template
from autoprune.spec.record import RunRecords


def render_markdown(records: RunRecords) -> str:
    """Return the report as GitHub Markdown."""
    return template("report.md.j2").render(**content(records))
