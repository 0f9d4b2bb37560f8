"""Trials as columns, layers as a list of distinct states, configs as pieces of text: 2,000 trials in about a megabyte.

Every number that the page's script filters, draws or compares comes from here.
"""

from __future__ import annotations

import shlex
from typing import Any

from autoprune.results.export import config_path
from autoprune.results.formats import ScoreFormat, plain
from autoprune.results.page.figure import rounded
from autoprune.results.picks import picks
from autoprune.results.summary import recommended
from autoprune.spec.config import Choices, ModelIdentity, Provenance, PruningConfig
from autoprune.spec.document import yaml_text
from autoprune.spec.front import DENSE, DROP, dense_trial, front
from autoprune.spec.objectives import METRICS, SCORE
from autoprune.spec.record import LayerRecord, RunRecords, TrialRecord

NAME = 300
_SHORT = 160
_NOBODY = ModelIdentity(fingerprint="")


def shown_trials(records: RunRecords) -> list[TrialRecord]:
    """Return the trials that the page can place: complete ones that have a value, by number."""
    return [t for t in sorted(records.trials, key=lambda t: t.number) if t.state == "complete" and t.values]


def metric_names(records: RunRecords) -> tuple[str, ...]:
    """Return the metrics that a shown trial has: objectives first, then constrained ones, then the others."""
    held = {name for trial in shown_trials(records) for name in trial.values}
    spec = records.study.spec
    return tuple(name for name in dict.fromkeys((*spec.objectives, *spec.constraints, *METRICS)) if name in held)


def limits(records: RunRecords) -> dict[str, float]:
    """Return each constrained metric's bound in the metric's unit.

    A bound on the score is one on the accuracy drop. Percentages of dense values that are not known are left out.
    """
    study, dense = records.study, dense_trial(records)
    out: dict[str, float] = {}
    for bound in study.spec.bounds:
        on_score = bound.metric in (SCORE, DROP)
        base = study.dense_score if on_score else dense.values.get(bound.metric, 0.0) if dense else 0.0
        if bound.relative and base <= 0:
            continue
        value = bound.limit(base, study.higher_is_better).value
        if bound.metric == SCORE:
            value = (study.dense_score - value) * (1 if study.higher_is_better else -1)
        out[DROP if on_score else bound.metric] = value
    return out


def page_data(records: RunRecords) -> dict[str, Any]:
    """Return what the script of the report reads."""
    study, spec = records.study, records.study.spec
    trials = shown_trials(records)
    index = {trial.number: i for i, trial in enumerate(trials)}
    dense, take, scores = dense_trial(records), recommended(records), ScoreFormat.of(study)
    origins = list(dict.fromkeys(trial.origin for trial in trials))
    run = next((t.config.provenance.run for t in trials if t.config and t.config.provenance), None)
    return {
        "percent": scores.percent,
        "higher": study.higher_is_better,
        "task": {"shell": shlex.quote(plain(spec.task)), "python": repr(plain(spec.task))},
        "run": shlex.quote(plain(run)) if run else "DIR",
        "sampler": plain(spec.search.sampler, _SHORT),
        "metrics": [
            {
                "key": name,
                "title": METRICS[name].title if name in METRICS else plain(name, _SHORT),
                "unit": METRICS[name].unit if name in METRICS else "",
                "meaning": METRICS[name].meaning if name in METRICS else "",
            }
            for name in metric_names(records)
        ],
        "objectives": list(spec.objectives),
        "limits": {name: rounded(value) for name, value in limits(records).items()},
        "origins": [plain(origin, _SHORT) for origin in origins],
        "dense": index.get(dense.number) if dense else None,
        "take": index.get(take.number) if take else None,
        "front": [index[trial.number] for trial in front(records) if trial.number in index],
        "picks": [[title, index[trial.number]] for title, trial in picks(records).named() if trial.number in index],
        "trials": _columns(trials, metric_names(records), origins),
        "layers": _layers(records, trials),
        "configs": _configs(records, trials),
    }


def _columns(trials: list[TrialRecord], metrics: tuple[str, ...], origins: list[str]) -> dict[str, Any]:
    place = {origin: i for i, origin in enumerate(origins)}
    return {
        "number": [t.number for t in trials],
        "origin": [place[t.origin] for t in trials],
        "feasible": "".join("1" if t.feasible else "0" for t in trials),
        "score": [rounded(t.score) for t in trials],
        "test": [rounded(t.test_score) for t in trials],
        "values": {name: [rounded(t.values.get(name), 9) for t in trials] for name in metrics},
        "broken": {str(i): sorted(t.violations) for i, t in enumerate(trials) if t.violations},
        "ratio": [
            [rounded(t.latency.ratio, 4), rounded(t.latency.ratio_low, 4), rounded(t.latency.ratio_high, 4)]
            if t.latency
            else None
            for t in trials
        ],
        # c: measured, as precise as asked; l: measured, looser; m: modelled.
        "meter": "".join(
            "-" if t.latency is None else "m" if not t.latency.pairs else "c" if t.latency.converged else "l"
            for t in trials
        ),
        "energy": [[rounded(t.energy.low_mj, 4), rounded(t.energy.high_mj, 4)] if t.energy else None for t in trials],
    }


def _layers(records: RunRecords, trials: list[TrialRecord]) -> dict[str, Any]:
    dense = dense_trial(records)
    ordered = ([dense] if dense else []) + trials
    names = list(dict.fromkeys(name for trial in ordered for name in trial.layers))
    owner = {layer: group for group, record in records.study.groups.items() for layer in record.layers}
    states: list[dict[tuple[Any, ...], int]] = [{} for _ in names]
    rows = []
    for trial in trials:
        row = []
        for known, name in zip(states, names, strict=True):
            layer = trial.layers.get(name)
            row.append(-1 if layer is None else known.setdefault(_state(layer), len(known)))
        rows.append(row)
    return {
        "names": [plain(name, NAME) for name in names],
        "owners": [plain(owner.get(name, name), NAME) for name in names],
        "dense": [next((t.layers[name].dense_channels for t in ordered if name in t.layers), 0) for name in names],
        "states": [[list(state) for state in known] for known in states],
        "of": rows,
    }


def _state(layer: LayerRecord) -> tuple[Any, ...]:
    return (
        layer.channels,
        rounded(layer.weight_sparsity, 3),
        layer.macs,
        rounded(layer.dram_bytes, 4),
        rounded(layer.predicted_ms, 4),
    )


def _configs(records: RunRecords, trials: list[TrialRecord]) -> dict[str, Any]:
    pieces = ConfigPieces()
    on_front = {trial.number for trial in front(records)}
    return {
        "of": [pieces.of(trial.config) if trial.config and trial.origin != DENSE else [] for trial in trials],
        "paths": {str(t.number): config_path(t) for t in trials if t.number in on_front and config_path(t)},
        "texts": pieces.texts,
        "choices": pieces.choices,
    }


class ConfigPieces:
    """Texts that the YAML of many configs is made of, each kept once: one for each distinct choice of a layer.

    Attributes:
        texts: The pieces; the mark stands for the number of the config's trial.
        choices: For each piece [address, [[granularity, criterion, sparsity or None], ...]], or None where the piece
            is no layer.
    """

    MARK = "\0"

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.choices: list[list[Any] | None] = []
        self._known: dict[Any, int] = {}

    def of(self, config: PruningConfig) -> list[int]:
        """Return the pieces whose texts, one after the other, are ``config.to_yaml()``."""
        layers = [self._layer(name, choices) for name, choices in config.layers.items()]
        return [self._head(config), *layers, *self._tail(config.provenance)]

    def text(self, pieces: list[int], number: int) -> str:
        """Return the YAML that pieces are, for the trial of that number."""
        return "".join(self.texts[piece] for piece in pieces).replace(self.MARK, str(number))

    def _head(self, config: PruningConfig) -> int:
        key = (config.schema_, config.model, config.seed, config.recovery.to_json(), bool(config.layers))
        if key not in self._known:
            text = config.model_copy(update={"layers": {}, "provenance": None}).to_yaml()
            self._known[key] = self._piece(text.removesuffix("layers: {}\n") + "layers:\n" if config.layers else text)
        return self._known[key]

    def _tail(self, provenance: Provenance | None) -> list[int]:
        if provenance is None:
            return []
        digits = len(str(provenance.trial))  # lines break by length
        key = ("provenance", provenance.model_copy(update={"trial": None}), digits)
        if key in self._known:
            return [self._known[key]]
        text = yaml_text({"provenance": provenance.to_data()})
        own = f"trial: {provenance.trial}"
        # Trials differ in their number alone: with a mark in its place their texts are one.
        if text.count(own) == 1 and text.count(own + ",") + text.count(own + "}") == 1:
            self._known[key] = self._piece(text.replace(own, f"trial: {self.MARK}"))
            return [self._known[key]]
        return [self._piece(text)]

    def _layer(self, name: str, choices: Choices) -> int:
        key = (name, choices)
        if key not in self._known:
            alone = PruningConfig(model=_NOBODY, layers={name: choices})
            text = yaml_text({"layers": alone.to_data()["layers"]})
            shown = [[plain(c.granularity, _SHORT), plain(c.criterion, _SHORT), rounded(c.fraction)] for c in choices]
            self._known[key] = self._piece(text.removeprefix("layers:\n"), [plain(name, NAME), shown])
        return self._known[key]

    def _piece(self, text: str, choice: list[Any] | None = None) -> int:
        if text not in self._known:
            self._known[text] = len(self.texts)
            self.texts.append(text)
            self.choices.append(choice)
        return self._known[text]
