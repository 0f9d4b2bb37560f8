"""What earlier studies of the same architecture tell a new one: their trials, on this space, with their own noise.

An earlier study may have had another device, another checkpoint of the same network, or a coarser space. What its
trials lost is a hint, not the truth: each carries a standard deviation. The best of its configs are among the first
trials here, whatever the sampler; a sampler that can use more reads all of them from the study, where they stand once
for all (the earlier directory may be gone when a study is resumed)::

    prior = prior_of(study)  # optuna.Study -> Prior, or None
    for trial in prior.trials if prior else ():
        trial.params, trial.drop, trial.noise  # parameters of this study's space, as Optuna names them
    told = prior.against(here)  # noise as this study's own trials of the same configs show it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from math import hypot, sqrt
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import optuna
from pydantic import Field

from autoprune.errors import RunDirectoryError
from autoprune.pareto import nondominated
from autoprune.search.proposals import Proposals
from autoprune.spec.config import PruningConfig
from autoprune.spec.document import Document, parse_document
from autoprune.spec.findings import Finite
from autoprune.spec.front import DENSE, DROP
from autoprune.spec.record import RunRecords, TrialRecord, read_records

PRIOR = "autoprune:prior"

MOST_WARM = 8
"""Configs of earlier studies that are tried first, at most; and at most a fifth of the trials asked for."""

RELATIVE_NOISE = 0.3
LEAST_NOISE = 0.005
"""Standard deviation of an earlier drop about the drop here, as a share of it and at least, before any is known."""


class PriorTrial(Document):
    """A trial of an earlier study.

    Attributes:
        params: The nearest parameters of this study's space: those that Optuna knows.
        drop: Accuracy drop there, against the dense model there.
        noise: Standard deviation of ``drop`` about what the same parameters would lose here.
        moved: Mean change of sparsity over groups and layers by which ``params`` differ from what was tried.
        costs: Metric to value over the dense one there, where it is exact and so the same on each device.
        source: Directory of the earlier study.
        best: Whether no other trial of the earlier studies was better in accuracy and MACs.
    """

    params: dict[str, str | float]
    drop: Finite
    noise: Annotated[float, Field(gt=0)]
    moved: Annotated[float, Field(ge=0)]
    costs: dict[str, float]
    source: str
    best: bool = False


class Prior(Document):
    """All trials of the earlier studies."""

    trials: tuple[PriorTrial, ...]

    def warmest(self, trials: int) -> tuple[PriorTrial, ...]:
        """Return the best configs, spread over the front from dear to cheap: what a study of so many trials repeats."""
        front = sorted((trial for trial in self.trials if trial.best), key=lambda t: -t.costs["macs"])
        places = np.linspace(0, len(front) - 1, min(len(front), MOST_WARM, trials // 5)).round().astype(int)
        return tuple(front[place] for place in places.tolist())

    def against(self, here: Sequence[tuple[Mapping[str, Any], float]]) -> Prior:
        """Return the same trials with the noise that repeated configs show.

        Args:
            here: Parameters and accuracy drop of trials of this study.

        Returns:
            All noise times the root mean square of how far repeated trials missed, in units of their noise; unchanged
            where fewer than three were repeated.
        """
        drops = {_key(params): drop for params, drop in here}
        misses = [(drops[key] - t.drop) / t.noise for t in self.trials if (key := _key(t.params)) in drops]
        if len(misses) < 3:
            return self
        factor = max(sqrt(float(np.mean(np.square(misses)))), 0.1)
        return Prior(trials=tuple(t.model_copy(update={"noise": t.noise * factor}) for t in self.trials))


def prior_of(study: optuna.Study) -> Prior | None:
    """Return what earlier studies told a study; None where it had no warm start."""
    data = study.user_attrs.get(PRIOR)
    return None if data is None else parse_document(Prior, data, "the prior in the storage")


def gather(directories: Sequence[str], proposals: Proposals) -> Prior:
    """Read earlier studies.

    Args:
        directories: Their run directories.
        proposals: The space of the new study.

    Raises:
        RunDirectoryError: A directory holds no records, or those of another architecture.
    """
    trials = list(chain.from_iterable(_trials(directory, proposals) for directory in directories))
    if trials:
        front = nondominated([(max(trial.drop, 0.0), trial.costs["macs"]) for trial in trials])
        trials = [trial.model_copy(update={"best": bool(best)}) for trial, best in zip(trials, front, strict=True)]
    return Prior(trials=tuple(trials))


def _trials(directory: str, proposals: Proposals) -> list[PriorTrial]:
    records = read_records(Path(directory) / "records.jsonl")
    if records.study.fingerprint != proposals.identity.fingerprint:
        raise RunDirectoryError(
            f"search.warm_start: {directory} is of another architecture (fingerprint {records.study.fingerprint}, this "
            f"model's is {proposals.identity.fingerprint}); give studies of this architecture"
        )
    dense = next((t for t in records.trials if t.origin == DENSE and t.state == "complete"), None)
    if dense is None:
        return []
    return [
        _trial(trial, trial.config, dense, records, directory, proposals)
        for trial in records.trials
        if trial.score is not None and trial.origin != DENSE and trial.config is not None
    ]


def _trial(
    trial: TrialRecord,
    config: PruningConfig,
    dense: TrialRecord,
    records: RunRecords,
    directory: str,
    proposals: Proposals,
) -> PriorTrial:
    params = proposals.nearest(config)
    moved = _moved(config, proposals.config(params), proposals)
    drop, size = trial.values[DROP], abs(records.study.dense_score) or 1.0
    return PriorTrial(
        params=proposals.searched(params),
        drop=drop,
        noise=hypot(LEAST_NOISE * size, RELATIVE_NOISE * drop, moved * size),
        moved=moved,
        costs={
            name: trial.values[name] / dense.values[name]
            for name in ("macs", "params", "size_bytes")
            if name in trial.values and dense.values.get(name)
        },
        source=directory,
    )


def _moved(was: PruningConfig, now: PruningConfig, proposals: Proposals) -> float:
    """Return the mean change of sparsity over all that either config or the space touches."""
    names = {*was.layers, *now.layers, *(knob.name for knob in proposals.knobs)}

    def gone(config: PruningConfig, name: str) -> float:
        return sum(choice.fraction for choice in config.layers.get(name, ()) if choice.threshold is None)

    return float(np.mean([abs(gone(was, name) - gone(now, name)) for name in names]))


def _key(params: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(params.items()))
