"""``autoprune list``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich.table import Table
from rich.text import Text

from autoprune.cli.streams import out

if TYPE_CHECKING:
    from autoprune.spec.hardware import DeviceProfile

_KINDS = (
    "devices",
    "spaces",
    "criteria",
    "granularities",
    "runtimes",
    "samplers",
    "metrics",
    "schedules",
    "methods",
    "loggers",
    "executors",
)


@click.command(name="list")
@click.argument("kind", type=click.Choice(_KINDS))
def list_(kind: str) -> None:
    """List what a study may name."""
    table = Table("key", "meaning", box=None, header_style="bold", pad_edge=False)
    for key, meaning in _entries(kind):
        table.add_row(Text(key), Text(meaning))
    out.print(table)


def _how(profile: DeviceProfile) -> str:
    if not profile.meters:
        return "modelled, or measured by a command"
    listed = ", ".join(profile.meters)
    return f"measured by {listed}" + (" where the GPU is, else modelled" if profile.gpu else "")


def _availability(lacking: str) -> str:
    return f"Not here: {lacking}." if lacking else "Ready."


def _entries(kind: str) -> list[tuple[str, str]]:
    if kind == "devices":
        from autoprune.spec.hardware import load_device
        from autoprune.spec.library import names

        profiles = [(name, load_device(name)) for name in names("hw_models")]
        return [(name, f"{p.title}; latency {_how(p)}") for name, p in profiles]
    if kind == "spaces":
        from autoprune.spec.document import load_document
        from autoprune.spec.library import find, names
        from autoprune.spec.space import SpaceSpec

        found = [load_document(SpaceSpec, find("space", "search_spaces", name)) for name in names("search_spaces")]
        return [(space.name, space.description) for space in found]
    if kind == "criteria":
        from autoprune.pruning.criteria import CRITERIA

        return [
            (
                name,
                rule.summary
                + ("; needs batches and loss" if rule.needs_loss else "; needs batches" if rule.needs_data else "")
                + (f"; {', '.join(rule.granularities)} only" if rule.granularities else ""),
            )
            for name, rule in CRITERIA
        ]
    if kind == "granularities":
        from autoprune.pruning.granularity import catalogue

        return catalogue()
    if kind == "runtimes":
        from autoprune.cost.meters import RUNTIMES
        from autoprune.cost.meters.protocol import missing

        return [
            (name, f"{(meter.__doc__ or '').splitlines()[0]} {_availability(missing(meter))}")
            for name, meter in RUNTIMES
        ]
    if kind == "samplers":
        from autoprune.search.samplers import SAMPLERS

        return [(name, entry.summary) for name, entry in SAMPLERS]
    if kind == "executors":
        from autoprune.search.executors import EXECUTORS

        return [(name, entry.summary) for name, entry in EXECUTORS]
    if kind == "loggers":
        from autoprune.search.loggers import LOGGERS

        return [(name, place.summary) for name, place in LOGGERS]
    if kind == "schedules":
        from autoprune.training.schedules import SCHEDULES

        return [(name, schedule.summary) for name, schedule in SCHEDULES]
    if kind == "methods":
        from autoprune.training.methods import METHODS

        return [(name, method.summary) for name, method in METHODS]
    from autoprune.spec.objectives import METRICS

    return [(metric.name, metric.meaning) for metric in METRICS.values()]
