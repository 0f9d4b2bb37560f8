"""Latency of a study's trials, predicted before it is measured, and learned from when it was."""

from __future__ import annotations

from collections import Counter

import numpy as np

from autoprune.cost.candidates import Candidates, joined
from autoprune.cost.model import CostModel
from autoprune.cost.predict import LatencyPredictor
from autoprune.cost.table import DENSE
from autoprune.errors import ConfigError
from autoprune.pruning.granularity import DEPTH, granularity
from autoprune.spec.config import PruningConfig
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
        predictor: What predicts; None where latency is modelled or costs do not follow from counts.
    """

    def __init__(self, runner: TrialRunner, survey: Survey) -> None:
        self._runner = runner
        self._surveyed = len(survey.samples)
        self._not_known: Counter[str] = Counter()
        device = runner.costs.device
        measured = not runner.modelled_because and device is not None
        self.predictor = LatencyPredictor(device) if measured and device is not None else None
        if self.predictor is not None and survey.samples:
            kept = np.array([sample.kept for sample in survey.samples], np.int64)
            nothing = np.full((len(kept), len(runner.graph.layers)), DENSE, np.int64)
            self.predictor.learn(
                Candidates(kept, nothing, nothing),
                [sample.ratio for sample in survey.samples],
                [sample.spread for sample in survey.samples],
            )

    def foretold(self, record: TrialRecord, dense: TrialRecord) -> TrialRecord:
        """Return a record with its predicted latency, whole and layer by layer, where it can be predicted."""
        candidates = self._candidates(record)
        if self.predictor is None or candidates is None or dense.latency is None or not self.predictor.measurements:
            return record
        ms = dense.latency.ms
        told, parts = self.predictor.predict(candidates), self.predictor.by_layer(candidates)[0]
        layers = {
            name: record.layers[name].model_copy(update={"predicted_ms": ms * float(part)})
            for name, part in zip(self._runner.graph.layers, parts, strict=True)
            if name in record.layers
        }
        prediction = Prediction(
            ms=ms * float(told.ratio[0]),
            low_ms=ms * float(told.low[0]),
            high_ms=ms * float(told.high[0]),
            source=f"regression on {self.predictor.measurements} measured networks",
        )
        return record.model_copy(update={"prediction": prediction, "layers": {**record.layers, **layers}})

    def learn(self, *records: TrialRecord) -> None:
        """Take measured trials in; those whose costs only scores tell are left out."""
        measured = [r for r in records if r.latency is not None and r.latency.pairs and r.origin != "dense"]
        seen = []
        for record in measured:
            candidates = self._candidates(record)
            if candidates is not None and record.latency is not None:
                seen.append((candidates, record.latency))
            elif record.config is not None:
                self._not_known[_why_not(record.config)] += 1
        if self.predictor is not None and seen:
            self.predictor.learn(
                joined([candidates for candidates, _ in seen]),
                [latency.ratio for _, latency in seen],
                [_spread(latency) for _, latency in seen],
            )

    def record(self) -> PredictorRecord | None:
        """Return how well it predicts what was left out; None while there is too little to say so."""
        quality = self.predictor.quality() if self.predictor is not None else None
        if quality is None:
            return None
        trials = quality.measurements - self._surveyed
        left = ", ".join(f"{count} {why}" for why, count in sorted(self._not_known.items()))
        basis = f"{self._surveyed} random networks of the space, measured before the first trial"
        return PredictorRecord(
            basis=basis
            + f", and {trials} trial{'s' * (trials > 1)}" * (trials > 0)
            + f"; not predicted: {left}" * bool(left),
            measurements=quality.measurements,
            mean_error=quality.mean_error,
            within_10=quality.within_10,
            spearman=quality.spearman,
        )

    def _candidates(self, record: TrialRecord) -> Candidates | None:
        model, config = self._runner.costs.model, record.config
        if config is None or model is None or config.precision != "fp32":
            return None
        try:
            return model.asked.configs([config])
        except ConfigError:  # a threshold or residual blocks: only scores tell what goes
            return _as_recorded(model, config, record)


def _as_recorded(model: CostModel, config: PruningConfig, record: TrialRecord) -> Candidates | None:
    """Return what a config with thresholds made of the model, told by its record; None where that does not tell all."""
    choices = list(config.choices())
    if any(choice.granularity == DEPTH for _, choice in choices) or not set(model.groups) <= set(record.layers):
        return None
    of_groups = [record.layers[name] for name in model.groups]
    share = np.array([layer.channels / max(layer.dense_channels, 1) for layer in of_groups])
    kept = np.maximum(np.rint(model.blueprint.units * share), 1).astype(np.int64)[None]
    pattern, sparsity = np.full((1, len(model.layers)), DENSE, np.int64), np.zeros((1, len(model.layers)))
    patterns: dict[str, int] = {}
    for name, choice in choices:
        if name in record.layers and not granularity(choice.granularity).removed:
            column = model.layers.index(name)
            pattern[0, column] = patterns.setdefault(choice.granularity, len(patterns))
            sparsity[0, column] = record.layers[name].weight_sparsity
    made = model.asked.fractions(kept, pattern, sparsity, list(patterns))
    known = [record.layers[name].channels if name in record.layers else -1 for name in model.layers]
    return made if model.counts(made).layer_channels[0].tolist() == known else None


def _why_not(config: PruningConfig) -> str:
    """Say why the latency of a config is not predicted; a predictor knows counts of the dense model's kernels."""
    if config.precision != "fp32":
        return f"in {config.precision} (other kernels than those that were measured)"
    if any(choice.granularity == DEPTH for _, choice in config.choices()):
        return "without some blocks (their kernels are gone, and only scores tell which)"
    return "whose costs do not follow from counts"


def _spread(latency: LatencyRecord) -> float:
    return float((latency.ratio_high - latency.ratio_low) / 2 / _Z / latency.ratio)
