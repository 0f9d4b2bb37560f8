"""Latency of networks that nobody has built, learned from short measurements of others of the same search space."""

from __future__ import annotations

from autoprune.cost.predict.predictor import LatencyPredictor, Predicted, quality_of

__all__ = ["LatencyPredictor", "Predicted", "quality_of"]
