"""Latency of a study's trials, predicted before it is measured, and learned from when it was."""

from __future__ import annotations

from collections import Counter

import numpy as np

from autoprune.cost.candidates import Candidates, joined
from autoprune.cost.predict import LatencyPredictor
from autoprune.cost.table import DENSE
from autoprune.errors import ConfigError
from autoprune.pruning.granularity import DEPTH
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
        candidates = self._candidates(record.config)
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
            candidates = self._candidates(record.config)
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
            basis=basis + f", and {trials} trials" * (trials > 0) + f"; not predicted: {left}" * bool(left),
            measurements=quality.measurements,
            mean_error=quality.mean_error,
            within_10=quality.within_10,
            spearman=quality.spearman,
        )

    def _candidates(self, config: PruningConfig | None) -> Candidates | None:
        model = self._runner.costs.model
        if config is None or model is None or config.precision != "fp32":
            return None
        try:
            return model.asked.configs([config])
        except ConfigError:  # a threshold or residual blocks: only scores tell what goes
            return None


def _why_not(config: PruningConfig) -> str:
    """Say why the latency of a config is not predicted; a predictor knows counts of the dense model's kernels."""
    if config.precision != "fp32":
        return f"in {config.precision} (other kernels than those that were measured)"
    choices = [choice for _, choice in config.choices()]
    if any(choice.granularity == DEPTH for choice in choices):
        return "without some blocks (their kernels are gone, and only scores tell which)"
    if any(choice.threshold is not None for choice in choices):
        return "with a threshold (only scores tell how many units go)"
    return "whose costs do not follow from counts"


def _spread(latency: LatencyRecord) -> float:
    return float((latency.ratio_high - latency.ratio_low) / 2 / _Z / latency.ratio)
