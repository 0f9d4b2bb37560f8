"""``index.html`` of a run: template, data, style and script put together."""

from __future__ import annotations

from autoprune.results.content import content
from autoprune.results.page.assets import REPORT_SCRIPTS, REPORT_STYLES, assets
from autoprune.results.page.decision import decision, study_facts
from autoprune.results.page.elsewhere import elsewhere
from autoprune.results.page.encode import page_data, shown_trials
from autoprune.results.page.trust import trust_parts
from autoprune.results.page.why import why_parts
from autoprune.results.templating import template
from autoprune.spec.record import RunRecords


def render_html(records: RunRecords) -> str:
    """Return the report as a page: self-contained, without network, every text of users escaped.

    A content security policy lets run only the script that the page is built with, by its hash.
    """
    why, trust, other = why_parts(records), trust_parts(records), elsewhere(records)
    placed = len(shown_trials(records))
    data = page_data(records) | {
        "figures": [figure.to_data() for part in (*why, *trust, other) for figure in part.figures]
    }
    return template("report.html.j2").render(
        **content(records),
        assets=assets(data, REPORT_SCRIPTS, REPORT_STYLES),
        decision=decision(records),
        study_facts=study_facts(records),
        placed=placed,
        # Before the first trial there is nothing to explain, unless something was found out before it.
        explained=placed or any(part.figures or part.tables or part.heats for part in why),
        has_configs=any(data["configs"]["of"]),
        why_parts=why,
        trust_parts=trust,
        devices_part=other,
    )
