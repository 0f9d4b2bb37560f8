"""What page and Markdown both tell, in one place."""

from __future__ import annotations

from typing import Any

from autoprune.results.configs import config_texts
from autoprune.results.details import (
    energy_table,
    failures,
    group_table,
    layer_table,
    pinned_table,
    stopped,
    timings_table,
)
from autoprune.results.export import config_path
from autoprune.results.facts import facts
from autoprune.results.other_devices import device_table, ranking_table
from autoprune.results.picks import picks
from autoprune.results.summary import headline
from autoprune.results.table import baseline_table, front_table, picks_table
from autoprune.results.trust import trust
from autoprune.results.why import why
from autoprune.spec.front import front
from autoprune.spec.record import RunRecords


def content(records: RunRecords) -> dict[str, Any]:
    """Return what both templates are filled with."""
    return {
        "study": records.study,
        "spec": records.study.spec,
        "headline": headline(records),
        "picks_table": picks_table(records, config_path) if picks(records).named() else None,
        "front_table": front_table(records, config_path) if front(records) else None,
        "baseline_table": baseline_table(records),
        "configs": config_texts(records),
        "layer_table": layer_table(records),
        "why": why(records),
        "trust": trust(records),
        "device_tables": [t for t in (device_table(records), ranking_table(records)) if t is not None],
        "facts": facts(records),
        "energy_table": energy_table(records),
        "group_table": group_table(records),
        "pinned_table": pinned_table(records),
        "failures": failures(records),
        "stopped": stopped(records),
        "timings_table": timings_table(records),
    }
