"""``autoprune list``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click
from rich.table import Table
from rich.text import Text

from autoprune.cli.streams import out

if TYPE_CHECKING:
    from autoprune.spec.hardware import DeviceProfile

Entries = list[tuple[str, str]]
"""Keys with what they mean."""


def _devices() -> Entries:
    from autoprune.spec.hardware import load_device
    from autoprune.spec.library import names

    profiles = [(name, load_device(name)) for name in names("hw_models")]
    return [(name, f"{profile.title}; latency {_how(profile)}") for name, profile in profiles]


def _how(profile: DeviceProfile) -> str:
    if not profile.meters:
        return "modelled, or measured by a command"
    listed = ", ".join(profile.meters)
    return f"measured by {listed}" + (" where the GPU is, else modelled" if profile.gpu else "")


def _spaces() -> Entries:
    from autoprune.spec.document import load_document
    from autoprune.spec.library import find, names
    from autoprune.spec.space import SpaceSpec

    found = [load_document(SpaceSpec, find("space", "search_spaces", name)) for name in names("search_spaces")]
    return [(space.name, space.description) for space in found]


def _criteria() -> Entries:
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


def _granularities() -> Entries:
    from autoprune.pruning.granularity import catalogue

    return catalogue()


def _runtimes() -> Entries:
    from autoprune.cost.meters import RUNTIMES
    from autoprune.cost.meters.protocol import missing

    return [
        (name, f"{(meter.__doc__ or '').splitlines()[0]} {_availability(missing(meter))}") for name, meter in RUNTIMES
    ]


def _availability(lacking: str) -> str:
    return f"Not here: {lacking}." if lacking else "Ready."


def _samplers() -> Entries:
    from autoprune.search.samplers import SAMPLERS

    return [(name, entry.summary) for name, entry in SAMPLERS]


def _metrics() -> Entries:
    from autoprune.spec.objectives import METRICS

    return [(metric.name, metric.meaning) for metric in METRICS.values()]


def _schedules() -> Entries:
    from autoprune.training.schedules import SCHEDULES

    return [(name, schedule.summary) for name, schedule in SCHEDULES]


def _methods() -> Entries:
    from autoprune.training.methods import METHODS

    return [(name, method.summary) for name, method in METHODS]


def _loggers() -> Entries:
    from autoprune.search.loggers import LOGGERS

    return [(name, place.summary) for name, place in LOGGERS]


def _executors() -> Entries:
    from autoprune.search.executors import EXECUTORS

    return [(name, entry.summary) for name, entry in EXECUTORS]


_KINDS: dict[str, Callable[[], Entries]] = {
    "devices": _devices,
    "spaces": _spaces,
    "criteria": _criteria,
    "granularities": _granularities,
    "runtimes": _runtimes,
    "samplers": _samplers,
    "metrics": _metrics,
    "schedules": _schedules,
    "methods": _methods,
    "loggers": _loggers,
    "executors": _executors,
}


@click.command(name="list")
@click.argument("kind", type=click.Choice(list(_KINDS)))
def list_(kind: str) -> None:
    """List what a study may name."""
    table = Table("key", "meaning", box=None, header_style="bold", pad_edge=False)
    for key, meaning in _KINDS[kind]():
        table.add_row(Text(key), Text(meaning))
    out.print(table)
