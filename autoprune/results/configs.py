"""The config of every pruned front trial, as a report shows it and as a file."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from autoprune.results.export import config_path
from autoprune.results.formats import plain
from autoprune.results.picks import picks
from autoprune.spec.front import DENSE, front
from autoprune.spec.record import RunRecords


@dataclass(frozen=True)
class ConfigText:
    """A front trial's config as the page shows it."""

    number: int
    titles: tuple[str, ...]
    path: str
    text: str
    command: str


def config_texts(records: RunRecords) -> tuple[ConfigText, ...]:
    """Return the configs of the front, by trial number; the dense model has none."""
    chosen, task = picks(records), shlex.quote(plain(records.study.spec.task))
    return tuple(
        ConfigText(
            number=trial.number,
            titles=chosen.titles(trial),
            path=config_path(trial),
            text=trial.config.to_yaml(),
            command=f"autoprune apply {config_path(trial)} --task {task} -o pruned-{trial.number:03d}.safetensors",
        )
        for trial in front(records)
        if trial.config is not None and trial.origin != DENSE
    )
