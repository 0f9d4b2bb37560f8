"""Latency of a study's trials, predicted before it is measured, and learned from when it was."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from autoprune.cost.candidates import Candidates, joined
from autoprune.cost.model import CostModel
from autoprune.cost.predict import LatencyPredictor, quality_of
from autoprune.cost.table import DENSE
from autoprune.errors import ConfigError
from autoprune.graph.groups import ModelGraph
from autoprune.pruning.granularity import DEPTH, granularity
from autoprune.spec.config import Precision, PruningConfig
from autoprune.spec.findings import Prediction, PredictorRecord
from autoprune.spec.record import LatencyRecord, TrialRecord
from autoprune.spec.survey import Survey
from autoprune.trial.runner import TrialRunner

_Z = 1.96


class Forecast:
    """A study's predictor.

    Args:
        runner: Costs from counts, and whether there is something to predict: a modelled latency is known exactly.
        survey: What was measured before the first trial.

    Attributes:
        predictors: What predicts, in each precision; empty where latency is modelled or costs do not follow from
            counts.
    """

    def __init__(self, runner: TrialRunner, survey: Survey) -> None:
        self._runner = runner
        self._surveyed = len(survey.samples)
        self._not_known = 0
        devices = {} if runner.modelled_because else runner.costs.devices
        self.predictors: dict[Precision, LatencyPredictor] = {
            precision: LatencyPredictor(device, None if precision == "fp32" else devices["fp32"])
            for precision, device in devices.items()
        }
        for precision, predictor in self.predictors.items():
            samples = [sample for sample in survey.samples if sample.precision == precision]
            if samples:
                kept = np.array([sample.kept for sample in samples], np.int64)
                nothing = np.full((len(kept), len(runner.graph.layers)), DENSE, np.int64)
                predictor.learn(
                    Candidates(kept, nothing, nothing),
                    [sample.ratio for sample in samples],
                    [sample.spread for sample in samples],
                    np.stack([devices[precision].model.without(sample.gone) for sample in samples]),
                )

    def foretold(self, record: TrialRecord, dense: TrialRecord) -> TrialRecord:
        """Return a record with its predicted latency, whole and layer by layer, where it can be predicted."""
        candidates, predictor = self._candidates(record), self._predictor(record)
        if predictor is None or candidates is None or dense.latency is None or not predictor.measurements:
            return record
        ms, present = dense.latency.ms, self._present(record)
        told = predictor.predict(candidates, present=present)
        parts = predictor.by_layer(candidates, present)[0]
        layers = {
            name: record.layers[name].model_copy(update={"predicted_ms": ms * float(part)})
            for name, part in zip(self._runner.graph.layers, parts, strict=True)
            if name in record.layers
        }
        prediction = Prediction(
            ms=ms * float(told.ratio[0]),
            low_ms=ms * float(told.low[0]),
            high_ms=ms * float(told.high[0]),
            source=f"regression on {predictor.measurements} measured networks" + _in(record.config),
        )
        return record.model_copy(update={"prediction": prediction, "layers": {**record.layers, **layers}})

    def learn(self, *records: TrialRecord) -> None:
        """Take measured trials in; those whose costs do not follow from counts are left out."""
        seen: dict[Precision, list[tuple[Candidates, LatencyRecord, NDArray[np.bool_]]]] = {}
        for record in records:
            if record.latency is None or not record.latency.pairs or record.origin == "dense" or record.config is None:
                continue
            candidates = self._candidates(record)
            if candidates is None:
                self._not_known += 1
            else:
                row = (candidates, record.latency, self._present(record))
                seen.setdefault(record.config.precision, []).append(row)
        for precision, rows in seen.items():
            if precision in self.predictors:
                self.predictors[precision].learn(
                    joined([candidates for candidates, _, _ in rows]),
                    [latency.ratio for _, latency, _ in rows],
                    [_spread(latency) for _, latency, _ in rows],
                    np.concatenate([present for _, _, present in rows]),
                )

    def record(self) -> PredictorRecord | None:
        """Return how well it predicts what was left out; None while there is too little to say so."""
        quality = quality_of(list(self.predictors.values())) if self.predictors else None
        if quality is None:
            return None
        trials = quality.measurements - self._surveyed
        basis = f"{self._surveyed} random networks of the space, measured before the first trial"
        return PredictorRecord(
            basis=basis
            + f", and {trials} trial{'s' * (trials > 1)}" * (trials > 0)
            + f"; not predicted: {self._not_known} whose costs do not follow from counts" * bool(self._not_known),
            measurements=quality.measurements,
            mean_error=quality.mean_error,
            within_10=quality.within_10,
            spearman=quality.spearman,
        )

    def _predictor(self, record: TrialRecord) -> LatencyPredictor | None:
        return None if record.config is None else self.predictors.get(record.config.precision)

    def _present(self, record: TrialRecord) -> NDArray[np.bool_]:
        """Return which operators a trial's network runs, shape (1, ops)."""
        model = self._runner.costs.model
        assert model is not None
        return model.without(_gone_blocks(self._runner.graph, record))[None]

    def _candidates(self, record: TrialRecord) -> Candidates | None:
        model, config = self._runner.costs.model, record.config
        if config is None or model is None:
            return None
        try:
            return model.asked.configs([config])
        except ConfigError:  # a threshold or residual blocks: only scores tell what goes
            return _as_recorded(model, config, record)


def _as_recorded(model: CostModel, config: PruningConfig, record: TrialRecord) -> Candidates | None:
    """Return what thresholds and removed blocks made of the model, told by its record; None where that tells not all.

    A layer that is gone counts as one unit; who asks leaves it out.
    """
    if not set(model.groups) <= set(record.layers):
        return None
    choices = [(name, choice) for name, choice in config.choices() if choice.granularity != DEPTH]
    gone = {name for name, layer in record.layers.items() if not layer.channels and layer.dense_channels}
    of_groups = [record.layers[name] for name in model.groups]
    share = np.array([layer.channels / max(layer.dense_channels, 1) for layer in of_groups])
    kept = np.maximum(np.rint(model.blueprint.units * share), 1).astype(np.int64)[None]
    pattern, sparsity = np.full((1, len(model.layers)), DENSE, np.int64), np.zeros((1, len(model.layers)))
    patterns: dict[str, int] = {}
    for name, choice in choices:
        if name in record.layers and name not in gone and not granularity(choice.granularity).removed:
            column = model.layers.index(name)
            pattern[0, column] = patterns.setdefault(choice.granularity, len(patterns))
            sparsity[0, column] = record.layers[name].weight_sparsity
    made = model.asked.fractions(kept, pattern, sparsity, list(patterns))
    found = dict(zip(model.layers, model.counts(made).layer_channels[0].tolist(), strict=True))
    told = all(name in record.layers and record.layers[name].channels == found[name] for name in set(found) - gone)
    return made if told else None


def _in(config: PruningConfig | None) -> str:
    return "" if config is None or config.precision == "fp32" else f" in {config.precision}"


def _gone_blocks(graph: ModelGraph, record: TrialRecord) -> tuple[str, ...]:
    """Return the residual blocks that a trial's network lacks: none of their layers has a channel left."""
    if record.config is None or all(choice.granularity != DEPTH for _, choice in record.config.choices()):
        return ()
    blocks = [block for stage in graph.stages.values() for block in stage.blocks]
    lacks = {name for name, layer in record.layers.items() if not layer.channels and layer.dense_channels}
    return tuple(block.name for block in blocks if lacks.issuperset(block.layers))


def _spread(latency: LatencyRecord) -> float:
    return float((latency.ratio_high - latency.ratio_low) / 2 / _Z / latency.ratio)
